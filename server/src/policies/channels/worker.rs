//! Empties the outbox: claims what is due, tells the channels, tries again.

use std::time::Duration;

use rand::Rng;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Channels;
use super::notice::Notice;
use super::send::{Answer, Channel, Verdict};
use crate::cluster::millis;
use crate::store::StoreError;
use crate::store::outbox::{AttemptRow, DeliveryRow, Next};

/// Channels that are told something at a time.
const AT_ONCE: usize = 16;
/// A channel that has no turn is looked at again after so long, milliseconds.
const CROWDED: i64 = 1000;

/// Works until `shutdown`; what is under way then is finished.
pub(super) async fn run(channels: Channels, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(channels.inner.options.tick);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut deliveries: JoinSet<()> = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            _ = ticks.tick() => {}
            () = channels.inner.nudge.notified() => {}
            Some(ended) = deliveries.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a delivery failed; it is tried again when its claim is over");
                }
            }
        }
        let room = AT_ONCE.saturating_sub(deliveries.len());
        if room == 0 {
            continue;
        }
        match claim(&channels, room).await {
            Ok(claimed) => {
                for delivery in claimed {
                    let channels = channels.clone();
                    deliveries.spawn(async move { settle(&channels, delivery).await });
                }
            }
            Err(error) => tracing::debug!(%error, "the outbox of alerts could not be read"),
        }
    }
    while deliveries.join_next().await.is_some() {}
}

async fn claim(channels: &Channels, room: usize) -> Result<Vec<DeliveryRow>, StoreError> {
    let inner = &channels.inner;
    // Mostly there is nothing; a look takes no lock.
    let waiting = inner.store.pending_deliveries().await?;
    inner.metrics.alert_outbox(waiting);
    if waiting == 0 {
        return Ok(Vec::new());
    }
    let lease = millis(inner.options.timeout) * 3 + 10_000;
    let room = i64::try_from(room).unwrap_or(1);
    inner
        .store
        .claim_deliveries(inner.instance.id(), lease, room)
        .await
}

async fn settle(channels: &Channels, delivery: DeliveryRow) {
    let id = delivery.id.clone();
    if let Err(error) = deliver(channels, delivery).await {
        tracing::warn!(delivery = id, %error, "a delivery could not be written down; its claim will end");
    }
}

async fn deliver(channels: &Channels, delivery: DeliveryRow) -> Result<(), StoreError> {
    let inner = &channels.inner;
    let (store, holder) = (&inner.store, inner.instance.id());
    let Some(row) = store.channel_by_id(&delivery.channel_id).await? else {
        return Ok(());
    };
    let ready: Result<(Channel, Notice), String> = channels
        .open(&row)
        .map_err(|error| error.to_string())
        .and_then(|channel| {
            let notice = serde_json::from_str(&delivery.notice);
            Ok((channel, notice.map_err(|_| "it cannot be read")?))
        });
    let (channel, notice) = match ready {
        Ok(ready) => ready,
        Err(error) => {
            tracing::warn!(channel = row.name, error, "an alert cannot be delivered");
            let next = Next::Failed;
            return store
                .delivery_tried(&delivery.id, holder, next, Some(&error))
                .await;
        }
    };
    if !channel.wants(notice.event) {
        let next = Next::Delivered;
        return store
            .delivery_tried(
                &delivery.id,
                holder,
                next,
                Some("the channel does not want it"),
            )
            .await;
    }
    if !store
        .take_channel_turn(&row.id, channel.settings.per_minute)
        .await?
    {
        return store.postpone_delivery(&delivery.id, holder, CROWDED).await;
    }
    let now = inner.instance.now() / 1000;
    let answer = inner
        .sender
        .send(&channel, &delivery.id, &notice, now)
        .await;
    let next = next(channels, &delivery, &answer);
    note(channels, &row.name, &channel, &delivery, &answer, next).await?;
    store
        .delivery_tried(&delivery.id, holder, next, answer.error.as_deref())
        .await
}

/// Tries again with growing pauses, until the notice is too old to be news.
fn next(channels: &Channels, delivery: &DeliveryRow, answer: &Answer) -> Next {
    let options = &channels.inner.options;
    let asked = match answer.verdict {
        Verdict::Delivered => return Next::Delivered,
        Verdict::Refused => return Next::Failed,
        Verdict::Later(asked) => asked.unwrap_or(Duration::ZERO),
    };
    let doublings = u32::try_from(delivery.attempts).unwrap_or(u32::MAX).min(20);
    let pause = options
        .retry
        .0
        .saturating_mul(1 << doublings)
        .min(options.retry.1);
    let pause = pause.mul_f64(0.75 + 0.5 * rand::rng().random::<f64>());
    let pause = millis(pause.max(asked));
    match delivery.age.saturating_add(pause) > millis(options.give_up_after) {
        true => Next::Failed,
        false => Next::Again(pause),
    }
}

async fn note(
    channels: &Channels,
    name: &str,
    channel: &Channel,
    delivery: &DeliveryRow,
    answer: &Answer,
    next: Next,
) -> Result<(), StoreError> {
    let inner = &channels.inner;
    let outcome = match next {
        Next::Delivered => "delivered",
        Next::Failed => "failed",
        Next::Again(_) => "retried",
    };
    inner
        .metrics
        .alert_delivery(channel.kind.name(), outcome, answer.latency);
    let (event, status) = (&delivery.event, answer.status);
    if next == Next::Delivered {
        tracing::info!(
            channel = name,
            event,
            status,
            "a channel was told of an alert"
        );
    } else {
        let error = answer.error.as_deref().unwrap_or_default();
        tracing::warn!(
            channel = name,
            event,
            status,
            error,
            outcome,
            "a channel was not told of an alert"
        );
    }
    let attempt = attempt(&delivery.id, Some(&delivery.alert_id), event, answer);
    inner.store.insert_attempt(&channel.id, &attempt).await
}

/// For the log of the channel.
pub(super) fn attempt(
    delivery_id: &str,
    alert_id: Option<&str>,
    event: &str,
    answer: &Answer,
) -> AttemptRow {
    AttemptRow {
        id: String::new(),
        delivery_id: delivery_id.to_owned(),
        alert_id: alert_id.map(str::to_owned),
        event: event.to_owned(),
        at: 0,
        delivered: answer.verdict == Verdict::Delivered,
        status: answer.status.map(i64::from),
        latency_ms: millis(answer.latency),
        error: answer.error.clone(),
    }
}

/// Starts the worker; it ends some time after `shutdown`.
pub(super) fn start(
    channels: Channels,
    shutdown: CancellationToken,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(run(channels, shutdown))
}
