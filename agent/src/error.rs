//! The one error type of the crate, and how errors are written down so that they survive a replay.

use std::any::TypeId;
use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

/// What almost every function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Key under which the engine's own kinds are kept inside a recorded error's `data`.
const ENGINE_KEY: &str = "segno_error";

/// What went wrong, in the engine's words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An error of the application, or one that a program in another language recorded.
    Portable {
        /// Name of the error's type, without its path.
        name: String,
        /// Its text.
        message: String,
        /// A code, where the writer gave one.
        code: Option<Value>,
        /// The error itself as JSON, where its type was known; see [`Error::decode`].
        data: Option<Value>,
    },
    /// A step failed as often as it may; [`Error::causes`] has every attempt's error, oldest first.
    RetriesExhausted {
        /// The step's name.
        step: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// One attempt of a step took longer than its timeout.
    StepTimeout {
        /// The step's name.
        step: String,
        /// The timeout in milliseconds.
        timeout_ms: u64,
    },
    /// The workflow id belongs to a run of another function.
    WorkflowConflict {
        /// The id.
        id: String,
        /// The workflow that holds it.
        holder: String,
        /// The workflow that was to be started under it.
        asked: String,
    },
    /// The id is in use and the caller asked for that to be an error.
    WorkflowIdInUse {
        /// The id.
        id: String,
        /// Status of the run that holds it.
        status: String,
    },
    /// An active run of the queue holds the deduplication id.
    Deduplicated {
        /// The queue.
        queue: String,
        /// The deduplication id.
        deduplication_id: String,
    },
    /// The workflow whose result was asked for was cancelled.
    Cancelled {
        /// Its id.
        id: String,
    },
    /// A workflow awaited another one, which was cancelled.
    AwaitedCancelled {
        /// Its id.
        id: String,
    },
    /// The awaited workflow was parked after too many recovery attempts; resuming it lets it go on.
    AwaitedParked {
        /// Its id.
        id: String,
    },
    /// The code asked for another step than the one recorded at this position.
    Nondeterminism {
        /// Position of the step in the workflow, from 0.
        step: i32,
        /// The name on record.
        recorded: String,
        /// The name the code asked for.
        asked: String,
        /// What is on record, as `position name`, up to a little beyond this position.
        #[serde(default)]
        on_record: Vec<String>,
        /// What the code asked for in this execution, as `position name`, in the order of its asking.
        #[serde(default)]
        asked_for: Vec<String>,
    },
    /// The code asked for more than is on record, where it may only repeat that; see
    /// [`testing::replay`](crate::testing::replay).
    NotRecorded {
        /// Position of the call in the workflow, from 0.
        step: i32,
        /// The name the code asked for.
        asked: String,
    },
    /// What a run has on record cannot be read by this program. The run is set aside; resume it with a program
    /// that can.
    Unreadable {
        /// Which part of the record.
        what: String,
        /// What is wrong with it.
        message: String,
    },
    /// A payload is larger than the application allows.
    PayloadTooLarge {
        /// Whose: `input of workflow …`, `output of step …`.
        what: String,
        /// Its size in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The caller does not have the role.
    NotAuthorized {
        /// The role that is required.
        role: String,
        /// The user on whose behalf the workflow runs.
        user: Option<String>,
    },
    /// A durable call was made where it cannot work, such as a sleep inside a step.
    Misuse {
        /// What was done, and what to do instead.
        message: String,
    },
    /// There is no such thing.
    NotFound {
        /// What was looked for: `workflow`, `step`, `version`.
        what: String,
        /// Its id.
        id: String,
    },
    /// No workflow of this name (or no such function) was registered before launch.
    NotRegistered {
        /// The name, or the function's type.
        name: String,
    },
    /// A setting is missing or wrong.
    Config {
        /// The setting.
        setting: String,
        /// What is wrong and how to put it right.
        message: String,
    },
    /// A value could not be written as JSON or read back.
    Serialization {
        /// What was being written or read.
        what: String,
        /// The reason.
        message: String,
    },
    /// The tables are not such that this library may work on them: missing or old where migrating was not asked for or
    /// not allowed, or not its own.
    Schema {
        /// Their version, 0 if there are none; unknown where they make no sense.
        found: Option<i64>,
        /// What is wrong and how to put it right.
        message: String,
    },
    /// The system database refused or could not be reached.
    Database {
        /// What the database said.
        message: String,
    },
    /// The workflow's code panicked. Its row stays `PENDING`: recovery runs it again.
    Panicked {
        /// The workflow's id.
        id: String,
        /// The panic's message.
        message: String,
    },
    /// The application is shutting down.
    ShuttingDown,
}

/// An error of the engine or of the application.
///
/// Every `std::error::Error` converts into it, so `?` works in workflow and step bodies. It does not
/// implement that trait itself but dereferences to it, as other catch-all errors do; a typed error
/// wraps it with `#[error(transparent)] Engine(#[from] segno::Error)`.
///
/// ```
/// #[derive(Debug, thiserror::Error, serde::Serialize, serde::Deserialize)]
/// enum PayError {
///     #[error("card declined")]
///     Declined,
///     #[error(transparent)]
///     Engine(#[from] segno::Error),
/// }
///
/// let error = segno::Error::typed(PayError::Declined);
/// assert_eq!(error.to_string(), "card declined");
/// assert!(matches!(error.decode::<PayError>(), Some(PayError::Declined)));
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    causes: Vec<Error>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

type Encode = fn(&(dyn StdError + 'static)) -> Option<Value>;

/// Error types that have been used as a step's or workflow's typed error: how to write them as JSON.
/// A blanket `From` cannot ask whether a type is `Serialize`; it can ask whether it is known here.
static TYPED: LazyLock<RwLock<HashMap<TypeId, Encode>>> = LazyLock::new(RwLock::default);

/// Makes errors of type `E` keep their fields when they are turned into [`Error`].
pub(crate) fn remember_type<E: StdError + Serialize + 'static>() {
    let id = TypeId::of::<E>();
    let known = TYPED
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .contains_key(&id);
    if !known {
        TYPED
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, |error| {
                error
                    .downcast_ref::<E>()
                    .and_then(|error| serde_json::to_value(error).ok())
            });
    }
}

impl Error {
    /// An error with this kind.
    pub fn new(kind: ErrorKind) -> Self {
        Self(Arc::new(Inner {
            kind,
            causes: Vec::new(),
            source: None,
        }))
    }

    /// An application's error given as text.
    pub fn message(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Portable {
            name: "Error".into(),
            message: message.into(),
            code: None,
            data: None,
        })
    }

    /// An application's typed error; [`Error::decode`] gives it back, also after a replay and in
    /// other processes.
    pub fn typed<E: StdError + Serialize + Send + Sync + 'static>(error: E) -> Self {
        remember_type::<E>();
        Self::from(error)
    }

    /// What went wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// The errors behind this one: every attempt's, oldest first, when retries were exhausted.
    pub fn causes(&self) -> &[Error] {
        &self.0.causes
    }

    /// The application's error of type `E`, rebuilt from what was recorded. Works for errors that
    /// went through [`try_step`](crate::Ctx::try_step), a workflow's typed result or
    /// [`Error::typed`], in this process or another.
    pub fn decode<E: DeserializeOwned>(&self) -> Option<E> {
        match &self.0.kind {
            ErrorKind::Portable {
                data: Some(data), ..
            } => E::deserialize(data).ok(),
            _ => None,
        }
    }

    /// The value this error was made from. It is there only in the execution that raised it;
    /// [`Error::decode`] also works after a replay.
    pub fn downcast_ref<E: StdError + 'static>(&self) -> Option<&E> {
        self.0.source.as_ref()?.downcast_ref()
    }

    /// The database error at the root of this one, if there is one.
    pub(crate) fn database_error(&self) -> Option<&sqlx::Error> {
        let mut next: Option<&(dyn StdError + 'static)> = Some(self.0.source.as_deref()?);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<sqlx::Error>() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }

    pub(crate) fn with_causes(kind: ErrorKind, causes: Vec<Error>) -> Self {
        Self(Arc::new(Inner {
            kind,
            causes,
            source: None,
        }))
    }

    pub(crate) fn config(setting: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config {
            setting: setting.into(),
            message: message.into(),
        })
    }

    pub(crate) fn misuse(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Misuse {
            message: message.into(),
        })
    }

    pub(crate) fn not_found(what: &str, id: &str) -> Self {
        Self::new(ErrorKind::NotFound {
            what: what.into(),
            id: id.into(),
        })
    }

    pub(crate) fn serialization(what: &str, error: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Serialization {
            what: what.into(),
            message: error.to_string(),
        })
    }

    /// A failure of the system database, with the driver's error kept for its code.
    pub(crate) fn database(error: sqlx::Error) -> Self {
        let kind = ErrorKind::Database {
            message: error.to_string(),
        };
        Self(Arc::new(Inner {
            kind,
            causes: Vec::new(),
            source: Some(Box::new(error)),
        }))
    }

    /// The form in which errors are recorded: `name`, `message`, `code`, `data`
    /// (`spec: system database`, portable errors).
    pub(crate) fn to_portable(&self) -> Value {
        match &self.0.kind {
            ErrorKind::Portable {
                name,
                message,
                code,
                data,
            } => {
                json!({ "name": name, "message": message, "code": code, "data": data })
            }
            kind => json!({
                "name": kind_name(kind),
                "message": self.to_string(),
                "code": null,
                "data": { ENGINE_KEY: kind, "causes": self.0.causes },
            }),
        }
    }

    /// Reads a recorded error. Text that is not a portable error becomes the message.
    pub(crate) fn from_portable(value: Value) -> Self {
        let Value::Object(mut fields) = value else {
            return Self::message(match value {
                Value::String(text) => text,
                other => other.to_string(),
            });
        };
        let text = |value: Option<Value>| match value {
            Some(Value::String(text)) => text,
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        };
        if !fields.contains_key("name") && !fields.contains_key("message") {
            return Self::foreign(fields);
        }
        let data = fields.remove("data").filter(|data| !data.is_null());
        if let Some(engine) = data.as_ref().and_then(|data| data.get(ENGINE_KEY))
            && let Ok(kind) = ErrorKind::deserialize(engine)
        {
            let causes = data.as_ref().and_then(|data| data.get("causes"));
            let causes = causes
                .and_then(|causes| Vec::deserialize(causes).ok())
                .unwrap_or_default();
            return Self::with_causes(kind, causes);
        }
        Self::new(ErrorKind::Portable {
            name: text(fields.remove("name")),
            message: text(fields.remove("message")),
            code: fields.remove("code").filter(|code| !code.is_null()),
            data,
        })
    }

    /// The error of a run whose record this program cannot read.
    pub(crate) fn unreadable(what: impl Into<String>, error: &Self) -> Self {
        let message = match error.kind() {
            ErrorKind::Serialization { message, .. } => message.clone(),
            _ => error.to_string(),
        };
        Self::new(ErrorKind::Unreadable {
            what: what.into(),
            message,
        })
    }

    /// Whether a run that met this error is set aside instead of ended: another program may bring it to its
    /// end.
    pub(crate) fn parks(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::Nondeterminism { .. }
                | ErrorKind::NotRecorded { .. }
                | ErrorKind::Unreadable { .. }
        )
    }

    /// An error in a form of its own, such as the official Rust crate's: the variant's name with what it holds.
    fn foreign(fields: serde_json::Map<String, Value>) -> Self {
        let (name, message) = match fields.iter().next() {
            Some((variant, Value::String(text))) if fields.len() == 1 => {
                (variant.clone(), text.clone())
            }
            Some((variant, held)) if fields.len() == 1 => (variant.clone(), held.to_string()),
            _ => (String::new(), Value::Object(fields.clone()).to_string()),
        };
        Self::new(ErrorKind::Portable {
            name,
            message,
            code: None,
            data: Some(Value::Object(fields)),
        })
    }

    /// Whether the error is the engine's own and not the application's.
    pub(crate) fn is_engine(&self) -> bool {
        !matches!(self.0.kind, ErrorKind::Portable { .. })
    }
}

/// The last segment of a type's path, without its generics.
pub(crate) fn short_type_name<T: ?Sized>() -> &'static str {
    let full = std::any::type_name::<T>();
    let path = full.split('<').next().unwrap_or(full);
    path.rsplit("::").next().unwrap_or(path)
}

fn kind_name(kind: &ErrorKind) -> String {
    match serde_json::to_value(kind) {
        Ok(Value::Object(fields)) => fields
            .into_iter()
            .next()
            .map(|(name, _)| name)
            .unwrap_or_default(),
        Ok(Value::String(name)) => name,
        _ => "Error".to_owned(),
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        let encode = TYPED
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&TypeId::of::<E>())
            .copied();
        let kind = ErrorKind::Portable {
            name: short_type_name::<E>().to_owned(),
            message: error.to_string(),
            code: None,
            data: encode.and_then(|encode| encode(&error)),
        };
        Self(Arc::new(Inner {
            kind,
            causes: Vec::new(),
            source: Some(Box::new(error)),
        }))
    }
}

/// So that `?` works in a function that returns `Result<_, Box<dyn Error + Send + Sync>>`.
impl From<Error> for Box<dyn StdError + Send + Sync> {
    fn from(error: Error) -> Self {
        Box::new(error.0)
    }
}

impl Deref for Error {
    type Target = dyn StdError + Send + Sync + 'static;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl AsRef<dyn StdError + Send + Sync + 'static> for Error {
    fn as_ref(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.0
    }
}

impl StdError for Inner {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.source {
            Some(source) => source.source(),
            None => self
                .causes
                .last()
                .map(|cause| &*cause.0 as &(dyn StdError + 'static)),
        }
    }
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ErrorKind::Portable { message, name, .. } if message.is_empty() => f.write_str(name),
            ErrorKind::Portable { message, .. } => f.write_str(message),
            ErrorKind::RetriesExhausted { step, attempts } => {
                write!(f, "step `{step}` failed {attempts} times")?;
                self.causes
                    .last()
                    .map_or(Ok(()), |cause| write!(f, ", last with: {cause}"))
            }
            ErrorKind::StepTimeout { step, timeout_ms } => {
                write!(
                    f,
                    "an attempt of step `{step}` took longer than {timeout_ms} ms"
                )
            }
            ErrorKind::WorkflowConflict { id, holder, asked } => {
                write!(
                    f,
                    "workflow id `{id}` belongs to a run of `{holder}`; use another id for `{asked}`"
                )
            }
            ErrorKind::WorkflowIdInUse { id, status } => {
                write!(f, "workflow id `{id}` is in use; its run is {status}")
            }
            ErrorKind::Deduplicated {
                queue,
                deduplication_id,
            } => {
                write!(
                    f,
                    "an active workflow of queue `{queue}` has deduplication id `{deduplication_id}`"
                )
            }
            ErrorKind::Cancelled { id } => write!(f, "workflow `{id}` was cancelled"),
            ErrorKind::AwaitedCancelled { id } => {
                write!(f, "the awaited workflow `{id}` was cancelled")
            }
            ErrorKind::AwaitedParked { id } => {
                write!(
                    f,
                    "workflow `{id}` was parked after too many recovery attempts; resume it to go on"
                )
            }
            ErrorKind::Nondeterminism {
                step,
                recorded,
                asked,
                on_record,
                asked_for,
            } => {
                write!(
                    f,
                    "the code asked for `{asked}` at position {step}, where `{recorded}` is on record; \
                     code between durable calls must be deterministic"
                )?;
                if asked_for.is_empty() {
                    return Ok(());
                }
                let (on_record, asked_for) = (on_record.join(", "), asked_for.join(", "));
                write!(f, " (on record: {on_record}; asked for: {asked_for})")
            }
            ErrorKind::NotRecorded { step, asked } => write!(
                f,
                "the code asked for `{asked}` at position {step}, where nothing is on record"
            ),
            ErrorKind::Unreadable { what, message } => {
                write!(
                    f,
                    "{what}: {message}; the run is set aside until it is resumed"
                )
            }
            ErrorKind::PayloadTooLarge { what, bytes, limit } => write!(
                f,
                "{what} is {bytes} bytes long and {limit} are allowed; keep large data elsewhere and pass a \
                 reference, or raise the limit with `.max_payload_bytes(..)`"
            ),
            ErrorKind::NotAuthorized { role, user } => match user {
                Some(user) => write!(f, "user `{user}` does not have the role `{role}`"),
                None => write!(
                    f,
                    "the role `{role}` is required, and the run has no authenticated user"
                ),
            },
            ErrorKind::Misuse { message } => f.write_str(message),
            ErrorKind::NotFound { what, id } => write!(f, "there is no {what} `{id}`"),
            ErrorKind::NotRegistered { name } => {
                write!(
                    f,
                    "`{name}` is not registered; add it with `.workflow(..)` before launch"
                )
            }
            ErrorKind::Config { setting, message } => write!(f, "{setting}: {message}"),
            ErrorKind::Serialization { what, message } => write!(f, "{what}: {message}"),
            ErrorKind::Schema { message, .. } => f.write_str(message),
            ErrorKind::Database { message } => write!(f, "system database: {message}"),
            ErrorKind::Panicked { id, message } => write!(
                f,
                "workflow `{id}` panicked: {message}; it stays PENDING and runs again when it is recovered"
            ),
            ErrorKind::ShuttingDown => f.write_str("the application is shutting down"),
        }
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({:?})", self.kind)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for Error {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_portable().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Error {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::from_portable)
    }
}
