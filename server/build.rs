//! Tells cargo to embed the migrations and the console again when they changed.

fn main() {
    println!("cargo:rerun-if-changed=../migrations/postgres");
    println!("cargo:rerun-if-changed=../migrations/sqlite");
    // Named only when it is there: cargo takes a path that does not exist for changed, always. `make console`
    // touches this file, which is how a first build of the console is noticed.
    if std::path::Path::new("../web/dist").exists() {
        println!("cargo:rerun-if-changed=../web/dist");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
