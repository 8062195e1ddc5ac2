//! What can be changed of a run that exists: its place in a queue, its attributes; and what it shows.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::app::Segno;
use crate::clock;
use crate::error::{Error, Result};
use crate::system_database::Stored;
use crate::transaction::from_database;

impl Segno {
    /// Lets a delayed run start this long from now, sooner or later than it would have. False if it is not delayed
    /// (any more).
    pub async fn set_delay(&self, id: &str, delay: Duration) -> Result<bool> {
        let runtime = self.runtime();
        let until = runtime
            .clock()
            .now_ms()
            .saturating_add(clock::millis(delay));
        let set = runtime.db.system.set_delay(id, until).await;
        runtime.wake_all();
        set.map_err(from_database)
    }

    /// Gives a run that waits on a queue, or is delayed, another priority: lower numbers first, 0 is first of all.
    /// False if it does not wait (any more).
    pub async fn set_priority(&self, id: &str, priority: i32) -> Result<bool> {
        if priority < 0 {
            return Err(Error::config("priority", "it is 0 (first) or greater"));
        }
        let set = self.runtime().db.system.set_priority(id, priority).await;
        set.map_err(from_database)
    }

    /// Adds to the attributes of a run, in whatever state: those of the same name are replaced, the others stay.
    /// A run that is going on sees those it was started with.
    ///
    /// ```no_run
    /// # async fn example(app: segno::Segno) -> segno::Result<()> {
    /// app.set_attributes("checkout-7", &serde_json::json!({ "reviewed": true })).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if there is no such run,
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the attributes are no JSON object.
    pub async fn set_attributes<T: Serialize + ?Sized>(
        &self,
        id: &str,
        attributes: &T,
    ) -> Result<()> {
        let Ok(Value::Object(added)) = serde_json::to_value(attributes) else {
            return Err(Error::config(
                "attributes",
                "they are a JSON object: a map or a struct",
            ));
        };
        let merged = self.runtime().db.system.merge_attributes(id, added).await;
        merged.map_err(from_database)
    }

    /// The current value of every event of a run, by key.
    pub async fn events(&self, id: &str) -> Result<BTreeMap<String, Value>> {
        let runtime = self.runtime();
        let stored = runtime.db.system.workflow_events(id).await;
        let mut events = BTreeMap::new();
        for (key, Stored { value, .. }) in stored.map_err(from_database)? {
            let text = runtime.payloads().decode(value).await?;
            // What another language wrote in a format of its own is shown as it is.
            let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
            events.insert(key, value);
        }
        Ok(events)
    }
}
