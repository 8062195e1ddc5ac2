//! `segno config`: what is in force and why, and what there is to set.

use anyhow::Context;
use clap::{ArgMatches, Command, Subcommand};

use crate::config::ServeArgs;
use crate::config::sources::{Found, Setting, settings};

#[derive(Subcommand)]
pub(super) enum ConfigCommand {
    /// Show what `serve` would go by and where each value comes from; exit code 0 if it could start so
    Check(Box<ServeArgs>),
    /// Print all settings as a table in Markdown
    Reference,
}

/// What the command line was parsed with and to.
pub(super) struct Parsed<'a> {
    pub(super) command: &'a Command,
    pub(super) found: &'a Found,
    pub(super) matches: &'a ArgMatches,
}

pub(super) fn run(command: ConfigCommand, parsed: &Parsed) -> anyhow::Result<()> {
    match command {
        ConfigCommand::Check(args) => check(*args, parsed),
        ConfigCommand::Reference => {
            print!("{}", reference(&settings(parsed.command)));
            Ok(())
        }
    }
}

fn check(args: ServeArgs, parsed: &Parsed) -> anyhow::Result<()> {
    let matches = ["config", "check"]
        .iter()
        .try_fold(parsed.matches, |matches, name| {
            matches.subcommand_matches(name)
        })
        .context("the command line is not the one that was parsed")?;
    let rows: Vec<[String; 3]> = settings(parsed.command)
        .into_iter()
        .map(|setting| {
            let value = value(&setting, matches);
            let origin = parsed.found.origin(&setting, matches);
            [setting.name, value, origin]
        })
        .collect();
    let header = ["SETTING", "VALUE", "FROM"].map(str::to_owned);
    let width = |column: usize| {
        let cells = rows.iter().chain([&header]).map(|row| &row[column]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let (first, second) = (width(0), width(1));
    for [name, value, origin] in [&header].into_iter().chain(&rows) {
        println!("{name:first$}  {value:second$}  {origin}");
    }
    args.resolve()?;
    println!("\n`segno serve` can start with these settings.");
    Ok(())
}

fn value(setting: &Setting, matches: &ArgMatches) -> String {
    let Some(raw) = matches.get_raw(&setting.name) else {
        return setting.default.clone();
    };
    if setting.secret {
        return "(hidden)".to_owned();
    }
    let texts: Vec<_> = raw.map(|text| text.to_string_lossy()).collect();
    texts.join(",")
}

fn reference(settings: &[Setting]) -> String {
    let mut text = String::from(
        "| In the file | Flag | Variable | Default | What it is |\n| --- | --- | --- | --- | --- |\n",
    );
    for setting in settings {
        let Setting {
            name,
            flag,
            variable,
            default,
            help,
            ..
        } = setting;
        let file = match setting.secret {
            true => format!("; or `{name}_file`, `{variable}_FILE`"),
            false => String::new(),
        };
        let help = help.split(" [default:").next().unwrap_or_default();
        let help = help.replace('|', "\\|").replace('\n', " ");
        text += &format!("| `{name}` | `{flag}` | `{variable}` | {default} | {help}{file} |\n");
    }
    text
}
