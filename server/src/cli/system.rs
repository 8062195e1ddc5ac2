//! `segno system`: the tables of an application's system database.

use clap::{Args, Subcommand};
use segno::Error;
use segno::system_database::SCHEMA_VERSION;
use serde_json::json;

use super::database::SystemDatabaseArgs;
use super::output::{self, Format};

#[derive(Subcommand)]
pub(super) enum SystemCommand {
    /// Create the tables, or bring them up to date
    Migrate {
        /// Let this role of the database do what an application does, and no more (Postgres)
        #[arg(long, value_name = "ROLE")]
        grant_to: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Delete every workflow and everything recorded, for good, and begin anew
    Reset {
        /// Yes, delete everything
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Tell the version of the tables and how many workflows there are; exit code 1 if they are not up to date
    Status {
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Args)]
pub(super) struct Common {
    #[command(flatten)]
    database: SystemDatabaseArgs,
    /// How to print
    #[arg(long, short = 'o', default_value = "table")]
    output: Format,
}

pub(super) async fn run(command: SystemCommand) -> segno::Result<()> {
    match command {
        SystemCommand::Migrate { grant_to, common } => migrate(&common, grant_to.as_deref()).await,
        SystemCommand::Reset { yes, common } => {
            if !yes {
                return Err(Error::message(
                    "this deletes every workflow of every application in the database; say --yes",
                ));
            }
            let db = common.database.connect(false).await?;
            db.system_database().reset().await?;
            let line = "Everything was deleted; the tables are new.";
            output::done(common.output, line, &json!({"version": SCHEMA_VERSION}))
        }
        SystemCommand::Status { common } => status(&common).await,
    }
}

async fn migrate(common: &Common, role: Option<&str>) -> segno::Result<()> {
    let db = common.database.connect(true).await?;
    let system = db.system_database();
    system.migrate().await?;
    if let Some(role) = role {
        system.grant_to(role).await?;
    }
    let version = system.schema_version().await?;
    let line = format!("The tables are at version {version}.");
    output::done(common.output, &line, &json!({"version": version}))
}

async fn status(common: &Common) -> segno::Result<()> {
    let db = common.database.connect(false).await?;
    let system = db.system_database();
    let version = system.schema_version().await?;
    let current = system.verify().await;
    let counts = match &current {
        Ok(()) => Some(system.count_by_status().await?),
        Err(_) => None,
    };
    let status = json!({
        "version": version,
        "needed": SCHEMA_VERSION,
        "current": version >= SCHEMA_VERSION,
        "usable": current.is_ok(),
        "workflows": counts,
    });
    output::object(common.output, &status)?;
    Ok(current?)
}
