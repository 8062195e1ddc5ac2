//! Which system database a command is about.

use clap::Args;
use segno::system_database::Options;
use segno::{Client, Db, Error};
use serde_json::json;

use super::output::{self, Format};

/// The system database of an application: the one that its workflows are checkpointed in.
#[derive(Args, Clone)]
pub(super) struct SystemDatabaseArgs {
    /// postgres://… or sqlite://…, as the application has it; else from DBOS_SYSTEM_DATABASE_URL
    #[arg(
        long = "system-database-url",
        short = 's',
        env = "SEGNO_SYSTEM_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    url: Option<String>,

    /// The schema of its tables, on Postgres
    #[arg(long, env = "SEGNO_SYSTEM_DATABASE_SCHEMA", default_value = "dbos")]
    schema: String,
}

impl SystemDatabaseArgs {
    /// Connects; on SQLite the file must exist unless it is to be made.
    pub(super) async fn connect(&self, create: bool) -> segno::Result<Db> {
        let url = self.url.clone();
        let url = url.or_else(|| std::env::var("DBOS_SYSTEM_DATABASE_URL").ok());
        let Some(url) = url.filter(|url| !url.is_empty()) else {
            return Err(Error::message(
                "which database? give --system-database-url, or set SEGNO_SYSTEM_DATABASE_URL",
            ));
        };
        let path = url.strip_prefix("sqlite://").unwrap_or_default();
        let path = path.split('?').next().unwrap_or_default();
        if !create && !path.is_empty() && !std::path::Path::new(path).exists() {
            return Err(Error::message(format!(
                "there is no file {path}; `segno system migrate` would create it"
            )));
        }
        let options = Options {
            schema: self.schema.clone(),
            max_connections: 2,
            create,
            ..Options::default()
        };
        Db::connect_with(&url, options).await
    }

    /// A client of the applications in it.
    pub(super) async fn client(&self, application: Option<&str>) -> segno::Result<Client> {
        let db = self.connect(false).await?;
        let client = Client::on(&db).await?;
        Ok(match application {
            Some(name) => client.application(name),
            None => client,
        })
    }
}

/// What commands about workflows and queues have in common.
#[derive(Args)]
pub(super) struct Common {
    #[command(flatten)]
    database: SystemDatabaseArgs,
    /// Of this application, if several share the database
    #[arg(long, short = 'a', value_name = "NAME")]
    pub(super) application: Option<String>,
    /// How to print
    #[arg(long, short = 'o', default_value = "table")]
    pub(super) output: Format,
}

impl Common {
    pub(super) async fn client(&self) -> segno::Result<Client> {
        self.database.client(self.application.as_deref()).await
    }

    /// Tells what was done with these workflows.
    pub(super) fn changed(&self, done: &str, ids: &[String]) -> segno::Result<()> {
        let line = format!("{done}: {}", ids.join(", "));
        output::done(self.output, &line, &json!({ done: ids }))
    }
}
