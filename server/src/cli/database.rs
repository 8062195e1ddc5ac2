//! Which system database a command is about.

use clap::Args;
use segno::{Client, Db};

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
    pub(super) async fn connect(&self, create: bool) -> anyhow::Result<Db> {
        let url = self.url.clone();
        let url = url.or_else(|| std::env::var("DBOS_SYSTEM_DATABASE_URL").ok());
        let Some(url) = url.filter(|url| !url.is_empty()) else {
            anyhow::bail!(
                "which database? give --system-database-url, or set SEGNO_SYSTEM_DATABASE_URL"
            );
        };
        let path = url.strip_prefix("sqlite://").unwrap_or_default();
        let path = path.split('?').next().unwrap_or_default();
        if !create && !path.is_empty() && !std::path::Path::new(path).exists() {
            anyhow::bail!("there is no file {path}; `segno system migrate` would create it");
        }
        Ok(Db::connect_to_schema(&url, &self.schema).await?)
    }

    /// A client of the applications in it.
    pub(super) async fn client(&self, application: Option<&str>) -> anyhow::Result<Client> {
        let db = self.connect(false).await?;
        let client = Client::on(&db).await?;
        Ok(match application {
            Some(name) => client.application(name),
            None => client,
        })
    }
}
