//! Debounced workflows: delayed rows whose deduplication id is the debounce key.

use super::{DatabaseError, Scope, SystemDatabase};

/// A call that is to push a debounced workflow back.
#[derive(Debug, Clone)]
pub(crate) struct Bounce {
    pub(crate) workflow: String,
    pub(crate) queue: String,
    pub(crate) deduplication_id: String,
    pub(crate) period_ms: i64,
    pub(crate) inputs: String,
}

/// What a bounce found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bounced {
    /// This workflow, which now waits longer and has the new input.
    Pushed(String),
    /// None that waits: one may be started.
    Nobody,
    /// One that is just being let into its queue.
    Leaving,
    /// The id is held by something that is not debounced.
    Held,
}

impl SystemDatabase {
    /// Pushes the delayed workflow of a key back, at most to the end of its delays, and replaces its input.
    pub(crate) async fn bounce(
        &self,
        bounce: &Bounce,
        application: &str,
    ) -> Result<Bounced, DatabaseError> {
        let mut transaction = self.begin().await?;
        let until = self.clock().now_ms().saturating_add(bounce.period_ms);
        let push = self
            .sql(
                "UPDATE @workflow_status SET serialization = 'portable_json', updated_at = NOW_MS, \
                 delay_until_epoch_ms = CASE WHEN debounce_deadline_epoch_ms < ",
            )
            .bind(until)
            .push(" THEN debounce_deadline_epoch_ms ELSE ")
            .bind(until)
            .push(" END, application_name = COALESCE(application_name, ")
            .bind(Some(application).filter(|name| !name.is_empty()))
            .push(") WHERE status = 'DELAYED' AND is_debounced = TRUE AND name = ")
            .bind(&bounce.workflow)
            .push(" AND queue_name = ")
            .bind(&bounce.queue)
            .push(" AND deduplication_id = ")
            .bind(&bounce.deduplication_id)
            .and_scope("application_name", &Scope::of(application))
            .push(" RETURNING workflow_uuid");
        let pushed = transaction.fetch(push).await?;
        if let Some(row) = pushed.first() {
            let id = row.required("workflow_uuid")?;
            self.store_input(&mut transaction, &id, &bounce.inputs)
                .await?;
            transaction.commit().await?;
            return Ok(Bounced::Pushed(id));
        }
        let holder = self
            .sql("SELECT name, is_debounced, application_name FROM @workflow_status WHERE queue_name = ")
            .bind(&bounce.queue)
            .push(" AND deduplication_id = ")
            .bind(&bounce.deduplication_id);
        let rows = transaction.fetch(holder).await?;
        let Some(holder) = rows.first() else {
            return Ok(Bounced::Nobody);
        };
        let owner = holder.filled("application_name")?;
        let ours = owner.is_none_or(|owner| owner == application)
            && holder.required("name")? == bounce.workflow
            && holder.bool("is_debounced")?;
        Ok(if ours {
            Bounced::Leaving
        } else {
            Bounced::Held
        })
    }
}
