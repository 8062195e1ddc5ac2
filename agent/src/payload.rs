//! What happens to payloads between the application and the database: a limit, and a codec if there is one.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use crate::error::{Error, ErrorKind, Result};
use crate::recorder::{Effect, Work};

/// Largest payload unless set otherwise: 64 MiB.
const LIMIT: usize = 64 << 20;

/// Key under which an encoded payload names its codec.
const CODEC: &str = "segno_codec";

/// Changes payloads on their way to the database and back, to encrypt them for example. Inputs, results,
/// errors, messages, events and stream entries pass through it; ids, names and attributes do not.
///
/// An encoded payload is recorded as a JSON object with the codec's name, so that programs without the codec
/// see what it is, and payloads from before there was one, or from other languages, stay readable.
///
/// ```
/// use base64::Engine as _;
/// use base64::engine::general_purpose::STANDARD as BASE64;
/// use futures_util::future::BoxFuture;
/// use segno::{Codec, Segno};
///
/// struct Base64;
///
/// impl Codec for Base64 {
///     fn name(&self) -> &str { "base64" }
///     fn encode(&self, json: String) -> BoxFuture<'_, segno::Result<String>> {
///         Box::pin(async move { Ok(BASE64.encode(json)) })
///     }
///     fn decode(&self, encoded: String) -> BoxFuture<'_, segno::Result<String>> {
///         Box::pin(async move { Ok(String::from_utf8(BASE64.decode(encoded)?)?) })
///     }
/// }
///
/// let app = Segno::named("shop").codec(Base64);
/// ```
pub trait Codec: Send + Sync + 'static {
    /// The name that is recorded with each payload.
    fn name(&self) -> &str;

    /// Encodes JSON text as any text.
    fn encode(&self, json: String) -> BoxFuture<'_, Result<String>>;

    /// Gives back what [`encode`](Self::encode) was given.
    fn decode(&self, encoded: String) -> BoxFuture<'_, Result<String>>;
}

/// The rules for payloads of an application.
#[derive(Clone)]
pub(crate) struct Payloads {
    pub(crate) codec: Option<Arc<dyn Codec>>,
    pub(crate) limit: usize,
}

impl Default for Payloads {
    fn default() -> Self {
        Self {
            codec: None,
            limit: LIMIT,
        }
    }
}

impl fmt::Debug for Payloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payloads")
            .field(
                "codec",
                &self.codec.as_ref().map(|codec| codec.name().to_owned()),
            )
            .field("limit", &self.limit)
            .finish()
    }
}

impl Payloads {
    /// Checks and encodes all payloads of a write.
    pub(crate) async fn encode_work(&self, work: &mut Work) -> Result<()> {
        match work {
            Work::Start(row) => {
                let what = || format!("input of workflow `{}`", row.name);
                self.check(&row.inputs, what)?;
                self.input(&mut row.inputs).await
            }
            Work::Step(row) => {
                let name = row.name.clone();
                self.result(&mut row.output, &mut row.error, || {
                    format!("output of step `{name}`")
                })
                .await
            }
            Work::Outcome(row) => {
                let id = row.workflow_id.clone();
                self.result(&mut row.output, &mut row.error, || {
                    format!("result of workflow `{id}`")
                })
                .await
            }
            Work::Effect(row) => match &mut row.effect {
                Effect::SetEvent { key, value } => {
                    self.check(value, || format!("event `{key}`"))?;
                    self.value(value).await
                }
                Effect::WriteStream { key, value } => {
                    self.check(value, || format!("entry of stream `{key}`"))?;
                    if crate::system_database::STREAM_CLOSED.contains(&value.as_str()) {
                        return Ok(());
                    }
                    self.value(value).await
                }
                Effect::Send(messages) => self.messages(messages).await,
                Effect::Receive { .. } | Effect::GiveBack(_) => Ok(()),
            },
            Work::Send(messages) => self.messages(messages).await,
        }
    }

    async fn messages(&self, messages: &mut [crate::recorder::MessageRow]) -> Result<()> {
        for message in messages {
            let what = || format!("message to `{}`", message.destination);
            self.check(&message.body, what)?;
            self.value(&mut message.body).await?;
        }
        Ok(())
    }

    /// A result or an error.
    pub(crate) async fn result(
        &self,
        output: &mut Option<String>,
        error: &mut Option<String>,
        what: impl Fn() -> String,
    ) -> Result<()> {
        if let Some(output) = output {
            self.check(output, &what)?;
            self.value(output).await?;
        }
        if let Some(error) = error {
            self.check(error, what)?;
            self.error(error).await?;
        }
        Ok(())
    }

    fn check(&self, text: &str, what: impl FnOnce() -> String) -> Result<()> {
        if text.len() <= self.limit {
            return Ok(());
        }
        Err(Error::new(ErrorKind::PayloadTooLarge {
            what: what(),
            bytes: text.len(),
            limit: self.limit,
        }))
    }

    async fn value(&self, text: &mut String) -> Result<()> {
        if let Some(codec) = &self.codec {
            *text = envelope(&**codec, std::mem::take(text)).await?.to_string();
        }
        Ok(())
    }

    /// A checked and encoded input.
    pub(crate) async fn encode_input(&self, mut text: String) -> Result<String> {
        self.check(&text, || "input of a workflow".to_owned())?;
        self.input(&mut text).await?;
        Ok(text)
    }

    /// An input is one positional argument; that is what is encoded.
    async fn input(&self, text: &mut String) -> Result<()> {
        if let Some(codec) = &self.codec {
            let argument = crate::workflow::argument_text(text)?;
            let encoded = envelope(&**codec, argument).await?;
            *text = json!({ "positionalArgs": [encoded], "namedArgs": {} }).to_string();
        }
        Ok(())
    }

    /// An error stays one that other programs can show.
    async fn error(&self, text: &mut String) -> Result<()> {
        if let Some(codec) = &self.codec {
            let message = format!("encoded by `{}`", codec.name());
            let data = envelope(&**codec, std::mem::take(text)).await?;
            *text = json!({ "name": "Encoded", "message": message, "code": null, "data": data })
                .to_string();
        }
        Ok(())
    }

    /// Reads a payload of any kind: encoded by the codec, or as it is.
    pub(crate) async fn decode(&self, text: String) -> Result<String> {
        if !text.contains(CODEC) {
            return Ok(text);
        }
        let Ok(value) = serde_json::from_str::<Value>(&text) else {
            return Ok(text);
        };
        if let Some(payload) = self.open(&value).await? {
            return Ok(payload);
        }
        if let Some(data) = value.get("data")
            && let Some(error) = self.open(data).await?
        {
            return Ok(error);
        }
        if let Some(argument) = value.pointer("/positionalArgs/0")
            && let Some(argument) = self.open(argument).await?
        {
            return Ok(format!(
                r#"{{"positionalArgs":[{argument}],"namedArgs":{{}}}}"#
            ));
        }
        Ok(text)
    }

    /// As [`decode`](Self::decode), of what may be absent.
    pub(crate) async fn decode_some(&self, text: Option<String>) -> Result<Option<String>> {
        match text {
            Some(text) => self.decode(text).await.map(Some),
            None => Ok(None),
        }
    }

    /// What is in an envelope, if this is one.
    async fn open(&self, value: &Value) -> Result<Option<String>> {
        let member = |name| value.get(name).and_then(Value::as_str);
        let (Some(name), Some(payload)) = (member(CODEC), member("payload")) else {
            return Ok(None);
        };
        let unreadable = |message: String| Error::serialization("payload", message);
        match &self.codec {
            Some(codec) if codec.name() == name => {
                let decoded = codec.decode(payload.to_owned()).await;
                decoded
                    .map(Some)
                    .map_err(|error| unreadable(format!("codec `{name}`: {error}")))
            }
            _ => Err(unreadable(format!(
                "it was encoded by codec `{name}`, which this program does not have; give it with `.codec(..)`"
            ))),
        }
    }
}

async fn envelope(codec: &dyn Codec, text: String) -> Result<Value> {
    let payload = codec.encode(text).await?;
    Ok(json!({ CODEC: codec.name(), "payload": payload }))
}
