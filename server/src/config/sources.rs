//! Where settings come from. The first of these that has a value counts:
//!
//! 1. a flag, `--admin-key`,
//! 2. its variable, `SEGNO_ADMIN_KEY`; empty counts as unset,
//! 3. for a secret, a file that holds nothing else: `SEGNO_ADMIN_KEY_FILE`,
//! 4. the upstream product's variable, so that a deployment of it need not be rewritten,
//! 5. one TOML file, `--config`, with the variables' names as keys, in small letters and without
//!    `SEGNO_`: `admin_key`, or `admin_key_file` for 3; what shares a beginning may stand in a table,
//! 6. the default.
//!
//! What 3 to 5 say becomes the default of the command's argument, so that there is one parser and one
//! list of settings: the arguments themselves.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use super::{ConfigError, host_of};

const PREFIX: &str = "SEGNO_";
const SECRET_FILE: &str = "_file";
/// Has settings of its own: loopback, no authentication.
const WITHOUT: &str = "dev";
/// The command whose arguments are the settings.
const SETTINGS_OF: &str = "serve";

/// Variables of the upstream product, and the settings they are.
const UPSTREAM: [(&str, &str); 10] = [
    ("DBOS__CONDUCTOR_PORT", "listen"),
    ("DBOS__CONDUCTOR_DB_URL", "database_url"),
    ("DBOS__ADVERTISE_ADDRESS", "advertise_address"),
    ("DBOS__METRICS_COLLECTION_PERIOD", "metrics_period"),
    ("DBOS_OAUTH_ENABLED", "auth"),
    ("DBOS_OAUTH_ISSUER", "oidc_issuer"),
    ("DBOS_OAUTH_AUDIENCE", "oidc_audience"),
    ("DBOS_OAUTH_CLIENT_ID", "oidc_client_id"),
    ("DBOS_OAUTH_SCOPE", "oidc_scopes"),
    ("DBOS_OAUTH_JWKS_URL", "oidc_jwks_url"),
];

/// What was found outside flags and variables of our own, by the setting's name.
#[derive(Debug, Default)]
pub struct Found(BTreeMap<String, Value>);

#[derive(Debug)]
struct Value {
    texts: Vec<String>,
    origin: String,
}

/// One setting, for people.
#[derive(Debug)]
pub struct Setting {
    /// Its name in the configuration file.
    pub name: String,
    /// `--name`.
    pub flag: String,
    /// `SEGNO_NAME`.
    pub variable: String,
    /// Whether `SEGNO_NAME_FILE` may name a file that holds it.
    pub secret: bool,
    /// What it is when nobody says.
    pub default: String,
    /// One sentence.
    pub help: String,
}

/// Reads everything but flags and own variables. `env` gives the value of a variable.
pub fn find(
    command: &Command,
    file: Option<&Path>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Found, ConfigError> {
    let settings = settings(command);
    let mut found = Found::default();
    if let Some(path) = file {
        found.read_file(path, &settings)?;
    }
    for (variable, setting) in UPSTREAM {
        let Some(text) = env(variable).filter(|text| !text.is_empty()) else {
            continue;
        };
        let text = translated(variable, text)?;
        found.insert(setting, vec![text], variable.to_owned());
    }
    for setting in settings.iter().filter(|setting| setting.secret) {
        let variable = format!("{}_FILE", setting.variable);
        if let Some(path) = env(&variable).filter(|path| !path.is_empty()) {
            if env(&setting.variable).is_some_and(|text| !text.is_empty()) {
                return Err(ConfigError::Twice {
                    one: setting.variable.clone(),
                    other: variable,
                });
            }
            found.insert_secret(setting, Path::new(&path), &variable)?;
        }
    }
    Ok(found)
}

impl Found {
    fn insert(&mut self, name: &str, texts: Vec<String>, origin: String) {
        self.0.insert(name.to_owned(), Value { texts, origin });
    }

    fn insert_secret(
        &mut self,
        setting: &Setting,
        path: &Path,
        named_by: &str,
    ) -> Result<(), ConfigError> {
        let text = read(path, named_by)?;
        let text = text.trim_end_matches(['\r', '\n']).to_owned();
        if text.is_empty() {
            return Err(ConfigError::File {
                named_by: named_by.to_owned(),
                path: path.to_owned(),
                reason: "it is empty".to_owned(),
            });
        }
        let origin = format!("{named_by} ({})", path.display());
        self.insert(&setting.name, vec![text], origin);
        Ok(())
    }

    fn read_file(&mut self, path: &Path, settings: &[Setting]) -> Result<(), ConfigError> {
        let wrong = |reason: String| ConfigError::File {
            named_by: "--config".to_owned(),
            path: path.to_owned(),
            reason,
        };
        let table: toml::Table = read(path, "--config")?
            .parse()
            // The message alone: the rest quotes the line, which may hold a secret.
            .map_err(|error: toml::de::Error| {
                let line = error.span().map(|span| line_of(path, span.start));
                let line = line.map(|line| format!(" (line {line})"));
                wrong(format!("{}{}", error.message(), line.unwrap_or_default()))
            })?;
        for (key, value) in flatten(table) {
            if settings.iter().any(|setting| setting.name == key) {
                let texts = texts(&value).ok_or_else(|| {
                    wrong(format!(
                        "`{key}` must be a text, a number, true or false, or a list of such"
                    ))
                })?;
                self.insert(&key, texts, path.display().to_string());
                continue;
            }
            let secret = key
                .strip_suffix(SECRET_FILE)
                .and_then(|name| settings.iter().find(|known| known.name == name))
                .filter(|setting| setting.secret);
            match (secret, value.as_str()) {
                (Some(setting), Some(secret_path)) => {
                    self.insert_secret(setting, Path::new(secret_path), &key)?;
                }
                (Some(_), None) => return Err(wrong(format!("`{key}` must be a path"))),
                (None, _) => {
                    let nearest = nearest(&key, settings);
                    let hint = nearest.map(|name| format!("; did you mean `{name}`?"));
                    return Err(wrong(format!(
                        "there is no setting `{key}`{}",
                        hint.unwrap_or_default()
                    )));
                }
            }
        }
        Ok(())
    }

    /// Makes what was found the defaults of `command` and of those below it.
    pub fn apply(&self, command: Command) -> Command {
        command
            .mut_args(|arg| self.apply_to(arg))
            .mut_subcommands(|sub| match sub.get_name() {
                WITHOUT => sub,
                _ => self.apply(sub),
            })
    }

    fn apply_to(&self, arg: Arg) -> Arg {
        let Some(variable) = own_variable(&arg) else {
            return arg;
        };
        let arg = match std::env::var_os(&variable) {
            Some(text) if text.is_empty() => arg.env(Resettable::Reset),
            _ => arg,
        };
        match self.0.get(&setting_of(&variable)) {
            None => arg,
            Some(value) => {
                // Hidden, or --help would print secrets.
                let hidden = arg.get_action().takes_values();
                arg.default_values(value.texts.iter().map(OsString::from))
                    .hide_default_value(hidden)
            }
        }
    }

    /// Where the value found for `name` is from, if there is one.
    pub fn origin_of(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.origin.as_str())
    }

    /// Where the value of `setting` comes from.
    pub fn origin(&self, setting: &Setting, matches: &ArgMatches) -> String {
        match matches.value_source(&setting.name) {
            Some(ValueSource::CommandLine) => setting.flag.clone(),
            Some(ValueSource::EnvVariable) => setting.variable.clone(),
            _ => self
                .origin_of(&setting.name)
                .unwrap_or("default")
                .to_owned(),
        }
    }
}

/// All settings, in the order of `segno serve --help`.
pub fn settings(command: &Command) -> Vec<Setting> {
    let serve = command.find_subcommand(SETTINGS_OF);
    let args = serve
        .into_iter()
        .chain([command])
        .flat_map(Command::get_arguments);
    args.filter_map(|arg| {
        let variable = own_variable(arg)?;
        let name = setting_of(&variable);
        (name != "config").then(|| Setting {
            flag: format!("--{}", arg.get_long().unwrap_or_default()),
            secret: arg.is_hide_env_values_set(),
            default: default_of(arg),
            help: arg.get_help().map(ToString::to_string).unwrap_or_default(),
            name,
            variable,
        })
    })
    .collect()
}

/// The default as `--help` gives it, or as its sentence says.
fn default_of(arg: &Arg) -> String {
    let given: Vec<_> = arg
        .get_default_values()
        .iter()
        .map(|text| text.to_string_lossy())
        .collect();
    if !given.is_empty() {
        return given.join(",");
    }
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let said = help.split_once("[default: ").map(|(_, rest)| rest);
    match said.and_then(|rest| rest.split_once(']')) {
        Some((text, _)) => text.to_owned(),
        None if arg.get_action().takes_values() => "none".to_owned(),
        None => "false".to_owned(),
    }
}

fn own_variable(arg: &Arg) -> Option<String> {
    let name = arg.get_env()?.to_str()?;
    name.starts_with(PREFIX).then(|| name.to_owned())
}

fn setting_of(variable: &str) -> String {
    variable.trim_start_matches(PREFIX).to_ascii_lowercase()
}

/// `[oidc] issuer = …` is `oidc_issuer = …`; a dash will do for an underscore.
fn flatten(table: toml::Table) -> Vec<(String, toml::Value)> {
    let mut flat = Vec::new();
    for (key, value) in table {
        let key = key.replace('-', "_");
        match value {
            toml::Value::Table(inner) => flat.extend(
                flatten(inner)
                    .into_iter()
                    .map(|(below, value)| (format!("{key}_{below}"), value)),
            ),
            value => flat.push((key, value)),
        }
    }
    flat
}

fn texts(value: &toml::Value) -> Option<Vec<String>> {
    match value {
        toml::Value::String(text) => Some(vec![text.clone()]),
        toml::Value::Integer(number) => Some(vec![number.to_string()]),
        toml::Value::Boolean(yes) => Some(vec![yes.to_string()]),
        toml::Value::Array(items) => items
            .iter()
            .map(|item| texts(item).filter(|texts| texts.len() == 1))
            .collect::<Option<Vec<_>>>()
            .map(|texts| texts.concat()),
        _ => None,
    }
}

/// A name that was probably meant.
fn nearest<'a>(key: &str, settings: &'a [Setting]) -> Option<&'a str> {
    const ALIKE: f64 = 0.7;
    let likeness = |setting: &&Setting| strsim::jaro_winkler(key, &setting.name);
    let best = settings
        .iter()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&best) >= ALIKE).then_some(best.name.as_str())
}

fn read(path: &Path, named_by: &str) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| ConfigError::File {
        named_by: named_by.to_owned(),
        path: PathBuf::from(path),
        reason: error.to_string(),
    })
}

fn line_of(path: &Path, offset: usize) -> usize {
    let text = std::fs::read(path).unwrap_or_default();
    let before = text.iter().take(offset);
    before.filter(|byte| **byte == b'\n').count() + 1
}

/// The upstream variables that say something in other words than we do.
fn translated(variable: &'static str, text: String) -> Result<String, ConfigError> {
    let wrong = |expected| ConfigError::Upstream {
        name: variable,
        expected,
    };
    match variable {
        "DBOS__CONDUCTOR_PORT" => match text.parse::<u16>() {
            Ok(port) => Ok(format!("0.0.0.0:{port}")),
            Err(_) => Err(wrong("a port number")),
        },
        "DBOS__ADVERTISE_ADDRESS" => Ok(host_of(&text)),
        "DBOS__METRICS_COLLECTION_PERIOD" => match text.parse::<u32>() {
            Ok(1..) => Ok(text),
            _ => Err(wrong("a number of seconds, at least 1")),
        },
        "DBOS_OAUTH_ENABLED" => match text.as_str() {
            "true" => Ok("oidc".to_owned()),
            "false" => Ok("none".to_owned()),
            _ => Err(wrong("true or false")),
        },
        _ => Ok(text),
    }
}
