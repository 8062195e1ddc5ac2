//! The command line.

mod archive;
mod config;
mod database;
mod health;
mod man;
mod migrate;
mod output;
mod queue;
mod system;
mod workflow;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::error::{ContextKind, ContextValue};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::api::openapi::{self, SpecVersion};
use crate::auth::{AppScope, Permission, Permissions, key};
use crate::config::sources::{self, Found};
use crate::config::{LogFormat, ServeArgs, StoreArgs};
use crate::dev;
use crate::recovery;
use crate::store::keys::NewKey;
use crate::store::orgs::{LOCAL, OrgRow};
use crate::store::{Store, StoreError};
use crate::telemetry::{Metrics, logging};

/// The control plane for durable workflows.
#[derive(Parser)]
#[command(name = "segno", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// TOML file with settings; see `segno config reference`
    #[arg(long, env = "SEGNO_CONFIG", value_name = "FILE", global = true)]
    config: Option<PathBuf>,

    /// What to log: a level, or levels per module as in RUST_LOG
    #[arg(long = "log", env = "SEGNO_LOG", default_value = "info", global = true)]
    log: String,

    /// How log lines look
    #[arg(long, env = "SEGNO_LOG_FORMAT", default_value = "text", global = true)]
    log_format: LogFormat,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server
    Serve(Box<ServeArgs>),
    /// Run a server and a few executors on this machine, to look at or to develop with
    Dev(Box<dev::DevArgs>),
    /// An executor of `segno dev`
    #[command(hide = true)]
    DevExecutor(dev::Guard),
    /// Print the OpenAPI document
    Openapi {
        /// 3.1, or 3.0 for older generators
        #[arg(long, default_value = "3.1")]
        spec_version: DocumentVersion,
        /// Print YAML instead of JSON
        #[arg(long)]
        yaml: bool,
    },
    /// Bring the database's schema up to date
    Migrate(migrate::Migrate),
    /// Write the server's own state into a file, while it runs or not: everything but the workflows, which are
    /// the applications'. Treat it like a backup of the database: it holds secrets
    Export(archive::Export),
    /// Read such a file into a database, all of it or nothing; from SQLite to PostgreSQL, for instance
    Import(archive::Import),
    /// Explain the settings
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Ask a running server whether it is healthy; exit code 0 if so
    Healthcheck(health::Healthcheck),
    /// Manage API keys in the database itself, whether or not a server runs
    #[command(subcommand)]
    Key(KeyCommand),
    /// Write the manual pages
    Man(man::Man),
    /// Look at the workflows in an application's own database and change them, server or not
    #[command(subcommand)]
    Workflow(workflow::WorkflowCommand),
    /// Look at the queues in an application's own database and change them
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// Create, check or empty the tables of an application's own database
    #[command(subcommand)]
    System(system::SystemCommand),
    /// Print a shell's completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum DocumentVersion {
    #[value(name = "3.1")]
    V31,
    #[value(name = "3.0")]
    V30,
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Create a key and print it
    Create(KeyCreate),
    /// List the keys, without their secrets
    List {
        #[command(flatten)]
        org: OrgArg,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Revoke a key
    Delete {
        /// Its name
        name: String,
        /// An administrator's key
        #[arg(long)]
        admin: bool,
        #[command(flatten)]
        org: OrgArg,
        #[command(flatten)]
        store: StoreArgs,
    },
}

#[derive(Args)]
struct OrgArg {
    /// The organization whose keys these are; there are others than `local` with --auth oidc only
    #[arg(long, default_value = LOCAL)]
    org: String,
}

impl OrgArg {
    async fn find(&self, store: &Store) -> anyhow::Result<OrgRow> {
        // `local` is made by whoever needs it first.
        store.local_org().await?;
        let org = store.org_by_name(&self.org).await?;
        org.with_context(|| format!("there is no organization `{}`", self.org))
    }
}

#[derive(Args)]
struct KeyCreate {
    /// Its name
    name: String,
    /// What it may do (repeatable) [default: websocket.connect]
    #[arg(
        long = "permission",
        value_name = "PERMISSION",
        conflicts_with = "admin"
    )]
    permissions: Vec<String>,
    /// Which application it covers (repeatable) [default: all]
    #[arg(long = "app", value_name = "APP", conflicts_with = "admin")]
    apps: Vec<String>,
    /// An administrator's key, which may do everything
    #[arg(long)]
    admin: bool,
    #[command(flatten)]
    org: OrgArg,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs the binary.
pub fn main() -> ExitCode {
    let command = Cli::command();
    let found = match sources::find(&command, config_file(&command).as_deref(), variable) {
        Ok(found) => found,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let parsed = found.apply(command.clone()).try_get_matches();
    let parsed = parsed.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return refuse(&error, &found, &command),
    };
    // `segno dev` logs into its directory: its terminal is for people.
    let quiet = matches!(cli.command, Command::Dev(_) | Command::DevExecutor(_));
    if !quiet && let Err(message) = logging::init(cli.log_format, &cli.log) {
        eprintln!("error: {message}");
        return ExitCode::from(2);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let parsed = config::Parsed {
        command: &command,
        found: &found,
        matches: &matches,
    };
    match runtime.block_on(Box::pin(run(cli, &parsed))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// An error of the library, whose type is none of the standard library's.
fn told(error: segno::Error) -> anyhow::Error {
    anyhow::anyhow!("{error}")
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The configuration file, which must be read before the command line can be: what is wrong with the
/// latter does not matter yet.
fn config_file(command: &clap::Command) -> Option<PathBuf> {
    let matches = command.clone().ignore_errors(true).try_get_matches().ok()?;
    matches.get_one::<PathBuf>("config").cloned()
}

/// Tells what is wrong with the command line, and where the value came from if it was not given there.
fn refuse(error: &clap::Error, found: &Found, command: &clap::Command) -> ExitCode {
    // Where the terminal is gone there is nobody to tell.
    let _ = error.print();
    if let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) {
        let flag = argument.split(' ').next().unwrap_or_default();
        let settings = sources::settings(command);
        let setting = settings.iter().find(|setting| setting.flag == flag);
        if let Some(origin) = setting.and_then(|setting| found.origin_of(&setting.name)) {
            eprintln!("\nunless it is given as a flag or variable, {flag} comes from {origin}");
        }
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

async fn run(cli: Cli, parsed: &config::Parsed<'_>) -> anyhow::Result<()> {
    match cli.command {
        Command::Serve(args) => serve(*args).await,
        Command::Dev(args) => Box::pin(dev::run(*args, cli.log_format, &cli.log)).await,
        Command::DevExecutor(guard) => Err(guard.exec()),
        Command::Openapi { spec_version, yaml } => print_document(spec_version, yaml),
        Command::Migrate(args) => migrate::run(args).await,
        Command::Export(args) => archive::export(args).await,
        Command::Import(args) => archive::import(args).await,
        Command::Healthcheck(args) => health::run(args).await,
        Command::Key(command) => key_command(command).await,
        Command::Config(command) => config::run(command, parsed),
        Command::Man(args) => man::run(&args, Cli::command()),
        Command::Workflow(command) => Box::pin(workflow::run(command)).await.map_err(told),
        Command::Queue(command) => Box::pin(queue::run(command)).await.map_err(told),
        Command::System(command) => Box::pin(system::run(command)).await.map_err(told),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "segno", &mut std::io::stdout());
            Ok(())
        }
    }
}

async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let config = args.resolve()?;
    if std::env::var_os("DBOS_CONDUCTOR_LICENSE_KEY").is_some() {
        tracing::info!(
            "DBOS_CONDUCTOR_LICENSE_KEY is set; no license key is needed, it is ignored"
        );
    }
    let listener = listen(config.listen).with_context(|| {
        format!(
            "cannot listen on {} (--listen, SEGNO_LISTEN)",
            config.listen
        )
    })?;
    let shutdown = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        tracing::info!("stopping");
        stop.cancel();
    });
    Box::pin(crate::serve(config, listener, shutdown)).await
}

/// A listening socket with a long queue: after a restart every executor dials within a second.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    const QUEUE: u32 = 4096;
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // As the usual way to bind does: what an earlier process left behind is no obstacle.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(QUEUE)
}

fn print_document(version: DocumentVersion, yaml: bool) -> anyhow::Result<()> {
    let document = openapi::document(match version {
        DocumentVersion::V31 => SpecVersion::V31,
        DocumentVersion::V30 => SpecVersion::V30,
    });
    if yaml {
        print!("{}", openapi::yaml(&document)?);
    } else {
        println!("{}", serde_json::to_string_pretty(&document)?);
    }
    Ok(())
}

async fn connect(args: &StoreArgs) -> anyhow::Result<Store> {
    Ok(Store::connect(&args.database_url()?, Metrics::new()?).await?)
}

/// Milliseconds of silence after which an instance counts as gone.
fn heartbeat_expiry() -> i64 {
    let expiry = recovery::Options::default().heartbeat_expiry;
    i64::try_from(expiry.as_millis()).unwrap_or(i64::MAX)
}

async fn key_command(command: KeyCommand) -> anyhow::Result<()> {
    match command {
        KeyCommand::Create(create) => create_key(create).await,
        KeyCommand::List { org, store } => list_keys(&ready(&store).await?, &org).await,
        KeyCommand::Delete {
            name,
            admin,
            org,
            store,
        } => {
            let store = ready(&store).await?;
            let org = org.find(&store).await?;
            let mut tx = store.begin().await?;
            match store.delete_key(&mut tx, &org.id, &name, admin).await {
                Ok(_) => {}
                Err(StoreError::NotFound) if !admin => {
                    bail!("there is no key `{name}` (an administrator's key needs --admin)")
                }
                Err(StoreError::NotFound) => bail!("there is no administrator's key `{name}`"),
                Err(error) => return Err(error.into()),
            }
            store.commit(tx).await?;
            Ok(())
        }
    }
}

/// The store with a current schema; an empty database is set up, an older one left alone.
async fn ready(args: &StoreArgs) -> anyhow::Result<Store> {
    let store = connect(args).await?;
    if store.schema_version().await? == 0 {
        store.migrate().await?;
    }
    store.check_schema().await?;
    Ok(store)
}

async fn create_key(create: KeyCreate) -> anyhow::Result<()> {
    let store = ready(&create.store).await?;
    let org = create.org.find(&store).await?;
    let permissions = if create.admin {
        Permissions::all()
    } else {
        permissions(&create.permissions)?
    };
    let mut apps = Vec::new();
    for name in &create.apps {
        let app = store.app_by_name(&org.id, name).await?;
        apps.push(
            app.with_context(|| format!("there is no application `{name}`"))?
                .id,
        );
    }
    let text = key::generate(&org.id);
    let new = NewKey {
        org_id: &org.id,
        name: &create.name,
        hash: &key::hash(text.expose()),
        permissions,
        scope: &if apps.is_empty() {
            AppScope::All
        } else {
            AppScope::Only(apps)
        },
        admin: create.admin,
    };
    let mut tx = store.begin().await?;
    match store.insert_key(&mut tx, &new).await {
        Err(StoreError::Taken) => bail!(
            "there is a key `{}` already; choose another name",
            create.name
        ),
        other => other?,
    };
    store.commit(tx).await?;
    println!("{}", text.expose());
    Ok(())
}

fn permissions(names: &[String]) -> anyhow::Result<Permissions> {
    if names.is_empty() {
        return Ok([Permission::WebsocketConnect].into_iter().collect());
    }
    names
        .iter()
        .map(|name| match Permission::parse(name) {
            Some(Permission::TokenWrite) => {
                bail!("token.write is for administrators' keys: use --admin")
            }
            Some(permission) => Ok(permission),
            None => bail!("there is no permission `{name}`"),
        })
        .collect()
}

async fn list_keys(store: &Store, org: &OrgArg) -> anyhow::Result<()> {
    let org = org.find(store).await?;
    println!("NAME\tPERMISSIONS\tAPPLICATIONS");
    for admin in [true, false] {
        for key in store.keys(&org.id, admin).await? {
            let permissions: Vec<&str> = key.permissions.iter().map(Permission::name).collect();
            let permissions = if admin {
                "(administrator)".to_owned()
            } else {
                permissions.join(",")
            };
            let apps = match key.scope {
                AppScope::All => "(all)".to_owned(),
                AppScope::Only(apps) => app_names(store, &apps).await?.join(","),
            };
            println!("{}\t{permissions}\t{apps}", key.name);
        }
    }
    Ok(())
}

async fn app_names(store: &Store, ids: &[String]) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    for id in ids {
        names.extend(store.app_by_id(id).await?.map(|app| app.name));
    }
    Ok(names)
}
