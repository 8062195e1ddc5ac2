//! `segno migrate`: the schema forwards, back, or tried.

use clap::Args;

use super::{connect, heartbeat_expiry};
use crate::config::StoreArgs;

#[derive(Args)]
pub(super) struct Migrate {
    /// Apply what is missing, say how long it took, and take it back: nothing is changed
    #[arg(long, conflicts_with = "to")]
    dry_run: bool,
    /// The version to go to, forwards or back [default: the newest]. Going back deletes what later versions
    /// added, and needs all servers stopped
    #[arg(long, value_name = "VERSION")]
    to: Option<i64>,
    #[command(flatten)]
    store: StoreArgs,
}

pub(super) async fn run(args: Migrate) -> anyhow::Result<()> {
    let store = connect(&args.store).await?;
    let (before, newest) = store.schema().await?;
    if args.dry_run {
        for trial in store.try_migrations().await? {
            let took = trial.took.as_millis();
            println!(
                "{:04} {}: would be applied (took {took} ms)",
                trial.version, trial.name
            );
        }
        println!("The schema stays at version {before}; the newest is {newest}.");
    } else {
        match args.to {
            Some(target) => {
                store.migrate_to(target, heartbeat_expiry()).await?;
            }
            None => store.migrate().await?,
        }
        println!(
            "The schema is at version {}.",
            store.schema_version().await?
        );
    }
    store.close().await;
    Ok(())
}
