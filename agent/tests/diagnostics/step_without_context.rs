#![allow(unused)]

#[segno::step]
async fn charge(cents: u64) -> segno::Result<u64> {
    Ok(cents)
}

fn main() {}
