//! What very many workflows that only wait cost a process, and how soon it works when it finds as many to recover.
//! See ../../README.md for what the figures mean.
//!
//! Each part is a process of its own, so that its memory is its own: the program starts itself again.

mod part;

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use segno::Db;
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use uuid::Uuid;

#[derive(Debug, Parser)]
struct Args {
    /// A Postgres on which a database may be created
    #[arg(long, env = "SEGNO_TEST_POSTGRES_URL", hide_env_values = true)]
    postgres: String,

    /// Workflows that wait
    #[arg(long, default_value_t = 100_000)]
    n: u32,

    /// If a process takes more memory than this, in MiB, the program fails
    #[arg(long, default_value_t = 1024.0)]
    limit_mib: f64,

    /// How long the idle process is watched
    #[arg(long, default_value_t = 10)]
    idle_secs: u64,

    /// The one part to run, on the database of that URL: what the program starts itself with
    #[arg(long, requires = "database", hide = true)]
    part: Option<Part>,

    #[arg(long, hide = true)]
    database: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Part {
    /// Workflows that sleep for an hour
    Sleep,
    /// Workflows that wait for a message
    Wait,
    /// The workflows that another process left behind are recovered
    Recover,
}

/// What a part found.
#[derive(Debug, Serialize, Deserialize)]
struct Figures {
    /// Workflows that wait in the process at the end.
    waiting: u32,
    /// Until the first of them ran, and until all waited.
    first_s: f64,
    all_s: f64,
    /// A workflow of one step that was enqueued when all waited.
    new_one_ms: f64,
    /// At the end, and at most. Before anything was started it was `empty_mib`.
    resident_mib: f64,
    peak_mib: f64,
    empty_mib: f64,
    /// Share of one processor that the process takes while nothing happens.
    idle_cpu: f64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let (Some(part), Some(database)) = (args.part, &args.database) {
        let figures =
            part::run(part, database, args.n, Duration::from_secs(args.idle_secs)).await?;
        println!("{}", serde_json::to_string(&figures)?);
        return Ok(());
    }
    println!("{} workflows", args.n);
    println!(
        "| database | part | first, s | all, s | new one, ms | resident, MiB | at most | KiB a workflow | idle, % of a processor |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut most: f64 = 0.0;
    for name in ["postgres", "sqlite"] {
        let folder = tempfile::tempdir()?;
        for before in [Part::Sleep, Part::Wait] {
            let postgres = Scratch::create(&args.postgres).await?;
            let url = match name {
                "postgres" => postgres.url.clone(),
                _ => format!(
                    "sqlite://{}",
                    folder.path().join(format!("{before:?}.db")).display()
                ),
            };
            Db::connect(&url)
                .await
                .map_err(failed)?
                .system_database()
                .migrate()
                .await?;
            for part in [before, Part::Recover] {
                let figures = start(part, &url, &args).await?;
                most = most.max(figures.peak_mib);
                print_row(name, before, part, &figures);
            }
            postgres.drop().await?;
        }
    }
    anyhow::ensure!(
        most < args.limit_mib,
        "a process took {most:.0} MiB, and may take {:.0}",
        args.limit_mib
    );
    Ok(())
}

fn print_row(database: &str, before: Part, part: Part, figures: &Figures) {
    let name = match part {
        Part::Recover => format!("recover those of {before:?}").to_lowercase(),
        _ => format!("{part:?}").to_lowercase(),
    };
    let each =
        (figures.resident_mib - figures.empty_mib) * 1024.0 / f64::from(figures.waiting.max(1));
    println!(
        "| {database} | {name} | {:.1} | {:.1} | {:.0} | {:.0} | {:.0} | {each:.1} | {:.0} |",
        figures.first_s,
        figures.all_s,
        figures.new_one_ms,
        figures.resident_mib,
        figures.peak_mib,
        figures.idle_cpu * 100.0,
    );
}

/// Runs a part in a process of its own, which is killed by its end: what it waited for is left behind.
async fn start(part: Part, database: &str, args: &Args) -> anyhow::Result<Figures> {
    let name = part.to_possible_value().context("a part has a name")?;
    let output = tokio::process::Command::new(std::env::current_exe()?)
        .args(["--part", name.get_name(), "--database", database])
        .args(["--n", &args.n.to_string(), "--postgres", "none"])
        .args(["--idle-secs", &args.idle_secs.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .await?;
    anyhow::ensure!(output.status.success(), "part {part:?} failed");
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn failed(error: segno::Error) -> anyhow::Error {
    anyhow::anyhow!("{error}")
}

/// A database of the run's own.
struct Scratch {
    admin: String,
    name: String,
    url: String,
}

impl Scratch {
    async fn create(admin: &str) -> anyhow::Result<Self> {
        let name = format!("segno_sleepers_{}", Uuid::new_v4().simple());
        execute(admin, format!("CREATE DATABASE {name}")).await?;
        let (server, _) = admin
            .rsplit_once('/')
            .context("the URL names no database")?;
        Ok(Self {
            admin: admin.to_owned(),
            url: format!("{server}/{name}"),
            name,
        })
    }

    async fn drop(self) -> anyhow::Result<()> {
        execute(
            &self.admin,
            format!("DROP DATABASE {} WITH (FORCE)", self.name),
        )
        .await
    }
}

async fn execute(url: &str, sql: String) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await?;
    Ok(connection.close().await?)
}
