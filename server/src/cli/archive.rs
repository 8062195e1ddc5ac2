//! `segno export` and `segno import`: the server's own state as one file, from one database to another.
//!
//! The file is lines of JSON. The first names the format and the schema; then each table is a line with its
//! columns, followed by a line for each row; the last counts the rows and has the SHA-256 of all that is
//! before it. A file of an older schema is imported into an empty database of that schema, which is then
//! migrated as any other, so it ends as an upgrade would have.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{connect, heartbeat_expiry};
use crate::auth::key;
use crate::config::StoreArgs;
use crate::store::archive::{Column, Table};
use crate::store::{Store, StoreError, Tx};

const FORMAT: &str = "segno";
const FORMAT_VERSION: u32 = 1;
/// Rows that are held in memory and written at once.
const ROWS_AT_ONCE: usize = 500;
const STANDARD_STREAM: &str = "-";

#[derive(Args)]
pub(super) struct Export {
    /// The file to write; `-` is standard output
    #[arg(default_value = STANDARD_STREAM)]
    file: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Args)]
pub(super) struct Import {
    /// A file that `segno export` wrote; `-` is standard input
    file: PathBuf,
    /// Delete what the database holds first; without it a database that holds something is refused
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Header {
    format: String,
    format_version: u32,
    /// Version of the schema that the rows are of.
    schema: i64,
    /// Version of the program that wrote it.
    segno: String,
    /// Epoch milliseconds of the database's clock.
    exported_at: i64,
}

/// A line that is not a row.
#[derive(Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Line {
    Table { table: String, columns: Vec<String> },
    End { end: u64, sha256: String },
}

// ---- out ------------------------------------------------------------------------------------------------

pub(super) async fn export(args: Export) -> anyhow::Result<()> {
    let store = connect(&args.store).await?;
    let rows = if args.file == Path::new(STANDARD_STREAM) {
        write(&store, io::stdout().lock()).await?
    } else {
        // Whole or not at all, and for the operator's eyes: it holds what a backup of the database holds.
        let half = args.file.with_added_extension("part");
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&half);
        let file = file.with_context(|| format!("cannot write {}", half.display()))?;
        let rows = write(&store, &file).await?;
        file.sync_all()?;
        std::fs::rename(&half, &args.file)
            .with_context(|| format!("cannot write {}", args.file.display()))?;
        rows
    };
    store.close().await;
    eprintln!("Exported {rows} rows.");
    Ok(())
}

async fn write(store: &Store, to: impl Write) -> anyhow::Result<u64> {
    let (found, known) = store.schema().await?;
    ensure!(
        found > 0,
        "there is nothing to export: the database has no schema"
    );
    if found > known {
        return Err(StoreError::NewerSchema { found, known }.into());
    }
    let mut writer = Writer {
        to: BufWriter::new(to),
        hash: Sha256::new(),
        rows: 0,
    };
    writer.line(&Header {
        format: FORMAT.to_owned(),
        format_version: FORMAT_VERSION,
        schema: found,
        segno: env!("CARGO_PKG_VERSION").to_owned(),
        exported_at: store.now().await?,
    })?;
    let tables = store.archived_tables().await?;
    let mut snapshot = store.snapshot().await?;
    for table in &tables {
        writer.line(&Line::Table {
            table: table.name.clone(),
            columns: table.columns.iter().map(|each| each.name.clone()).collect(),
        })?;
        let rows = store.read_rows(&mut snapshot, table, |row| {
            writer.rows += 1;
            writer.line(&row).map_err(Failure::Other)
        });
        rows.await?;
    }
    drop(snapshot);
    writer.end()
}

/// What may go wrong while rows are passed on.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Other(anyhow::Error),
}

struct Writer<W: Write> {
    to: BufWriter<W>,
    hash: Sha256,
    rows: u64,
}

impl<W: Write> Writer<W> {
    fn line(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec(value)?;
        text.push(b'\n');
        self.hash.update(&text);
        self.to.write_all(&text).context("cannot write the export")
    }

    fn end(mut self) -> anyhow::Result<u64> {
        let sha256 = key::hex(&self.hash.clone().finalize());
        let end = self.rows;
        self.line(&Line::End { end, sha256 })?;
        self.to.flush().context("cannot write the export")?;
        Ok(end)
    }
}

// ---- in -------------------------------------------------------------------------------------------------

pub(super) async fn import(args: Import) -> anyhow::Result<()> {
    let name = args.file.display().to_string();
    let mut reader = if args.file == Path::new(STANDARD_STREAM) {
        Reader::new(Box::new(BufReader::new(io::stdin())))
    } else {
        let file = File::open(&args.file).with_context(|| format!("cannot read {name}"))?;
        Reader::new(Box::new(BufReader::new(file)))
    };
    let store = connect(&args.store).await?;
    let header = reader.header().with_context(|| name.clone())?;
    let tables = store.archived_tables().await?;
    store
        .check_nobody_serves(&tables, heartbeat_expiry())
        .await?;
    let known = prepare(&store, &header).await?;
    let tables = store.archived_tables().await?;
    let held = store.held(&tables).await?;
    if !held.is_empty() && !args.replace {
        let held: Vec<String> = held
            .iter()
            .map(|(table, count)| format!("{table}: {count}"))
            .collect();
        bail!(
            "the database holds something already ({}); import into an empty one, or give --replace to delete that first",
            held.join(", ")
        );
    }

    let mut tx = store.begin().await?;
    store.clear(&mut tx, &tables).await?;
    let read = reader.rows(&store, &mut tx, &tables).await;
    // Dropped without a commit, the transaction leaves no trace.
    let read =
        read.with_context(|| format!("{name}: line {}; nothing was imported", reader.number))?;
    if tables.iter().any(|table| table.name == "instances") {
        store.stop_copied_instances(&mut tx).await?;
    }
    store.commit(tx).await?;
    if header.schema < known {
        store.migrate().await?;
    }
    store.close().await;
    eprintln!("Imported {} rows.", read.rows);
    if read.sealed > 0 {
        eprintln!(
            "The secrets of {} alert channels are encrypted: give the server the SEGNO_ENCRYPTION_KEY of the old one.",
            read.sealed
        );
    }
    Ok(())
}

/// Makes the database's schema that of the file; returns the newest version.
async fn prepare(store: &Store, header: &Header) -> anyhow::Result<i64> {
    let (found, known) = store.schema().await?;
    if header.schema > known {
        bail!(
            "the file is of version {} of the schema, newer than this binary knows ({known}); import it with segno {} or later",
            header.schema,
            header.segno
        );
    }
    if found < header.schema {
        store.migrate_to(header.schema, 0).await?;
    } else if found > header.schema {
        bail!(
            "the file is of version {} of the schema and the database of {found}: import it into an empty database, which \
             is migrated afterwards",
            header.schema
        );
    }
    Ok(known)
}

/// What was imported.
#[derive(Default)]
struct Read {
    rows: u64,
    /// Alert channels whose secrets are encrypted.
    sealed: u64,
}

struct Reader {
    from: Box<dyn BufRead>,
    hash: Sha256,
    /// The line that was read last.
    number: u64,
}

impl Reader {
    fn new(from: Box<dyn BufRead>) -> Self {
        Self {
            from,
            hash: Sha256::new(),
            number: 0,
        }
    }

    /// The next line, which is not yet part of the hash; none at the end of the file.
    fn next(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let read = self.from.read_until(b'\n', &mut line)?;
        self.number += 1;
        Ok((read > 0).then_some(line))
    }

    fn header(&mut self) -> anyhow::Result<Header> {
        let line = self.next()?.unwrap_or_default();
        let what = "this is not a file that `segno export` wrote";
        let value: Value = serde_json::from_slice(&line).context(what)?;
        ensure!(value["format"] == FORMAT, what);
        ensure!(
            value["formatVersion"] == FORMAT_VERSION,
            "the file has version {} of the format, and this binary knows {FORMAT_VERSION}",
            value["formatVersion"]
        );
        self.hash.update(&line);
        serde_json::from_value(value).context(what)
    }

    async fn rows(&mut self, store: &Store, tx: &mut Tx, known: &[Table]) -> anyhow::Result<Read> {
        let mut read = Read::default();
        let mut table: Option<Table> = None;
        let mut waiting: Vec<Vec<Value>> = Vec::new();
        loop {
            let Some(line) = self.next()? else {
                bail!("the file ends before its end: it was cut off");
            };
            if line.first() == Some(&b'[') {
                let table = table
                    .as_ref()
                    .context("a row before the name of its table")?;
                let row = row(&line, table)?;
                read.rows += 1;
                read.sealed += u64::from(sealed(table, &row));
                waiting.push(row);
            }
            let other = line.first() != Some(&b'[');
            if (other || waiting.len() == ROWS_AT_ONCE)
                && let Some(table) = &table
            {
                let rows = std::mem::take(&mut waiting);
                let written = store.write_rows(tx, table, &rows).await;
                written.with_context(|| format!("cannot write into {}", table.name))?;
            }
            if other {
                match serde_json::from_slice(&line)
                    .context("neither a table nor a row nor the end")?
                {
                    Line::Table {
                        table: name,
                        columns,
                    } => table = Some(found(known, &name, &columns)?),
                    Line::End { end, sha256 } => {
                        ensure!(
                            end == read.rows && sha256 == key::hex(&self.hash.clone().finalize()),
                            "the file was changed or damaged: its checksum is another"
                        );
                        return Ok(read);
                    }
                }
            }
            self.hash.update(&line);
        }
    }
}

/// The database's table `name`, with its columns in the order of the file.
fn found(known: &[Table], name: &str, columns: &[String]) -> anyhow::Result<Table> {
    let table = known.iter().find(|table| table.name == name);
    let table = table.with_context(|| format!("there is no table `{name}`"))?;
    let column = |name: &String| -> anyhow::Result<Column> {
        let column = table.columns.iter().find(|column| column.name == *name);
        Ok(column
            .with_context(|| format!("{} has no column `{name}`", table.name))?
            .clone())
    };
    let columns = columns
        .iter()
        .map(column)
        .collect::<anyhow::Result<Vec<_>>>()?;
    ensure!(
        columns.len() == table.columns.len(),
        "columns of `{name}` are missing"
    );
    Ok(Table {
        name: table.name.clone(),
        columns,
    })
}

fn row(line: &[u8], table: &Table) -> anyhow::Result<Vec<Value>> {
    let row: Vec<Value> = serde_json::from_slice(line).context("not a row")?;
    ensure!(
        row.len() == table.columns.len(),
        "a row of {} must have {} values",
        table.name,
        table.columns.len()
    );
    for (column, value) in table.columns.iter().zip(&row) {
        let (fits, wanted) = match column.number {
            true => (value.is_i64(), "a whole number"),
            false => (value.is_string(), "a text"),
        };
        ensure!(
            fits || value.is_null(),
            "{}.{} must be {wanted}",
            table.name,
            column.name
        );
    }
    Ok(row)
}

/// Whether the row is an alert channel whose secrets are encrypted.
fn sealed(table: &Table, row: &[Value]) -> bool {
    let mut cells = table.columns.iter().zip(row);
    table.name == "alert_channels"
        && cells.any(|(column, value)| {
            column.name == "secrets"
                && value
                    .as_str()
                    .is_some_and(crate::policies::channels::is_sealed)
        })
}
