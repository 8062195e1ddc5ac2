//! A disk that is full: work waits for room, loses nothing and repeats nothing.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rand::Rng as _;
use rand::distr::Alphanumeric;
use segno::system_database::Pool;
use segno::{Ctx, Db, Segno, sqlx};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::database_support::{self, PostgresDatabase};
use super::{World, within};

/// Steps and transactions of a run, each step with an output that takes this much room, whatever compresses it.
const COUNT: usize = 20;
const BYTES: usize = 40_000;

fn incompressible(bytes: usize) -> String {
    rand::rng()
        .sample_iter(Alphanumeric)
        .take(bytes)
        .map(char::from)
        .collect()
}

/// Takes room in steps and in transactions by turns, so many bytes in each transaction.
async fn fills(ctx: Ctx<World>, bytes: usize) -> segno::Result<usize> {
    let mut written = 0;
    for number in 0..COUNT {
        written += ctx
            .step("step", || async { Ok(incompressible(BYTES)) })
            .await?
            .len();
        let transaction = ctx.transaction(&ctx.state().db, "transaction", |tx| {
            Box::pin(async move {
                let insert = tx.query("INSERT INTO effects (name) VALUES ($1)");
                insert.bind(format!("{number}")).execute().await?;
                Ok(incompressible(bytes))
            })
        });
        written += transaction.await?.len();
    }
    Ok(written)
}

async fn launch(world: &World) -> Segno {
    let app = world.app().workflow("fills", fills);
    app.launch().await.unwrap()
}

async fn nothing_is_missing(app: &Segno, world: &World) {
    let steps = app.steps("run").await.unwrap();
    let names: Vec<_> = steps
        .iter()
        .map(|step| (step.position, step.name.as_str()))
        .collect();
    let wanted: Vec<_> = (0..2 * COUNT as i64)
        .map(|position| {
            (
                position,
                if position % 2 == 0 {
                    "step"
                } else {
                    "transaction"
                },
            )
        })
        .collect();
    assert_eq!(names, wanted);
    assert_eq!(world.effects().await, COUNT as i64);
}

/// Without root: SQLite refuses to let its file grow, and then lets it grow again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_waits_until_a_file_may_grow() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("app.db").display());
    let db = Db::connect(&url).await.unwrap();
    let world = World::on(&db).await;
    let app = launch(&world).await;
    let Pool::Sqlite { writer, .. } = db.system_database().pool() else {
        panic!("it is SQLite");
    };
    let limit = async |limit: &str| {
        let pages = sqlx::query_scalar("PRAGMA page_count").fetch_one(writer);
        let pages: i64 = pages.await.unwrap();
        let limit = limit.replace("PAGES", &(pages + 5).to_string());
        let limit = format!("PRAGMA max_page_count = {limit}");
        sqlx::query(AssertSqlSafe(limit))
            .execute(writer)
            .await
            .unwrap();
    };
    // Transactions try again by themselves, uncounted: they are so small that the steps meet the limit.
    let small = 100;
    let run = app.start(fills, small).id("run").await.unwrap();
    let steps = async || app.steps("run").await.map_or(0, |steps| steps.len());
    for at_least in [1, 8, 15] {
        super::eventually("it goes on", async || steps().await >= at_least).await;
        let before = app.recorder_stats().retries;
        limit("PAGES").await;
        super::eventually("no room", async || {
            // The limit is the connection's: where SQLite ended the transaction itself, a new one has no limit.
            app.recorder_stats().retries > before || steps().await >= at_least + 5
        })
        .await;
        limit("4294967294").await;
    }
    assert_eq!(within(run).await.unwrap(), COUNT * (BYTES + small));
    let refused = app.recorder_stats().retries;
    assert!(refused > 0, "there was room all the time");
    nothing_is_missing(&app, &world).await;
    app.abort().await;
}

/// A file system of 24 MiB, for root on Linux.
struct Small(
    PathBuf,
    #[expect(dead_code, reason = "removed with it")] tempfile::TempDir,
);

impl Small {
    /// None where nothing can be mounted.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("small");
        std::fs::create_dir(&path).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"])
            .arg(&path)
            .status();
        if mount.is_ok_and(|status| status.success()) {
            return Some(Self(path, folder));
        }
        println!("not tried on a real file system: mounting one takes root on Linux");
        None
    }

    /// Takes all the room there is, until it is removed.
    fn fill(&self) -> Filler {
        let path = self.0.join("filler");
        let mut file = File::create(&path).unwrap();
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
        Filler(path)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

struct Filler(PathBuf);

impl Drop for Filler {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

/// The disk is filled while the run is on its way, and again when it went on.
async fn work_waits_for_room(small: &Small, db: &Db) {
    let world = World::on(db).await;
    let app = launch(&world).await;
    let run = app.start(fills, BYTES).id("run").await.unwrap();
    let steps = async || app.steps("run").await.map_or(0, |steps| steps.len());
    let mut waited = 0;
    for at_least in [2, 8, 14] {
        super::eventually("it goes on", async || steps().await >= at_least).await;
        let filler = small.fill();
        let begun = app.recorder_stats().retries;
        super::eventually("no room", async || {
            // A transaction tries again by itself: its run has not moved for a while.
            let stuck = steps().await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            app.recorder_stats().retries > begun || stuck == steps().await
        })
        .await;
        if !run.status().await.unwrap().is_active() {
            // It was over before the disk was full.
            break;
        }
        waited += 1;
        drop(filler);
    }
    assert!(waited > 0, "there was room all the time");
    assert_eq!(within(run).await.unwrap(), 2 * COUNT * BYTES);
    nothing_is_missing(&app, &world).await;
    app.abort().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_waits_for_room_on_sqlite() {
    let Some(small) = Small::mount() else { return };
    let url = format!("sqlite://{}", small.0.join("app.db").display());
    let db = Db::connect(&url).await.unwrap();
    work_waits_for_room(&small, &db).await;
    db.system_database().close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_waits_for_room_on_postgres() {
    let Some(small) = Small::mount() else { return };
    let admin = std::env::var("SEGNO_TEST_POSTGRES_URL").unwrap();
    let Some(folder) = folder_for_the_server(&admin, &small.0).await else {
        println!("not tried on Postgres: its server runs on another machine");
        return;
    };
    let space = format!("segno_small_{}", uuid::Uuid::new_v4().simple());
    let create = format!("CREATE TABLESPACE {space} LOCATION '{}'", folder.display());
    database_support::execute(&admin, &create).await;
    let database = PostgresDatabase::create().await;
    let name = database.url.rsplit('/').next().unwrap();
    let here = format!("ALTER DATABASE {name} SET TABLESPACE {space}");
    database_support::execute(&admin, &here).await;
    let db = Db::connect(&database.url).await.unwrap();
    work_waits_for_room(&small, &db).await;
    db.system_database().close().await;
    database.drop().await;
    database_support::execute(&admin, &format!("DROP TABLESPACE {space}")).await;
}

/// A folder there that belongs to the server's user; none if the server is not on this machine.
async fn folder_for_the_server(admin: &str, small: &Path) -> Option<PathBuf> {
    let mut connection = PgConnection::connect(admin).await.unwrap();
    let data: String = sqlx::query_scalar("SHOW data_directory")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    let owner = std::fs::metadata(data).ok()?;
    let folder = small.join("space");
    std::fs::create_dir(&folder).unwrap();
    std::os::unix::fs::chown(&folder, Some(owner.uid()), Some(owner.gid())).unwrap();
    // The way there is open to that user, too.
    let mut above = folder.parent();
    while let Some(folder) = above {
        if folder == std::env::temp_dir() {
            break;
        }
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder, open).unwrap();
        above = folder.parent();
    }
    Some(folder)
}
