//! Alerting: evaluates the rules of an application, keeps the history of what they found, and tells
//! the rule's channels (through the outbox) and the receiving application's handler.
//!
//! Handlers page people. So an alert goes to one executor; another is tried only if the first surely
//! did not get it, and an alert that may have been handled counts as delivered.

use std::collections::BTreeMap;
use std::time::Duration;

use segno_protocol::{
    AggregateFilter, Alert, ExecutorInfo, GetWorkflowAggregates, ListWorkflows, WireTime,
    WorkflowAggregates, WorkflowFilter,
};

use super::rules::{Condition, Finding};
use super::{Context, ms};
use crate::hub::{Class, HubError, Target};
use crate::store::StoreError;
use crate::store::alerting::AlertingRuleRow;
use crate::store::alerts::Found;
use crate::store::apps::AppRow;
use crate::store::executors::ExecutorState;
use crate::store::recoveries::{RecoveryFilter, RecoveryRow, RecoveryStatus, reason_text};

const JOB: &str = "alerts";
const LEASE: Duration = Duration::from_secs(300);
/// For one question to an executor.
const DEADLINE: Duration = Duration::from_secs(30);
/// Executors probed; one that answers is enough.
const PROBED: usize = 3;
/// Where there are no aggregates, so many workflows are looked at.
const PAGE: u64 = 1000;
/// A stranded recovery of which nobody can say how much it holds counts as serious after so long.
const UNKNOWN_FOR: i64 = 5 * 60 * 1000;

/// One round: every rule of the application.
pub(super) async fn round(context: &Context, app: &AppRow) -> Result<(), StoreError> {
    let (store, holder) = (&context.store, context.instance.id());
    let connected = connected(context, app).await?;
    let every = ms(context.options.alerts_every);
    let claimed = store
        .claim_round(&app.id, JOB, holder, every, ms(LEASE))
        .await?;
    let Some(round) = claimed else { return Ok(()) };
    let mut done = Ok(());
    for rule in store.alerting_rules(&app.id).await? {
        let evaluated = evaluate(context, app, &rule, connected, round.now).await;
        // One rule's failure is not the others'.
        done = done.and(evaluated);
    }
    store.end_round(&app.id, JOB, holder, None).await?;
    done
}

async fn connected(context: &Context, app: &AppRow) -> Result<usize, StoreError> {
    let executors = context.store.executors(&app.id).await?;
    let healthy = executors
        .iter()
        .filter(|row| row.state == ExecutorState::Healthy);
    Ok(healthy.count())
}

async fn evaluate(
    context: &Context,
    app: &AppRow,
    rule: &AlertingRuleRow,
    connected: usize,
    now: i64,
) -> Result<(), StoreError> {
    let unreadable = StoreError::Unreadable {
        table: "alerting_rules",
        column: "metadata",
    };
    let metadata = serde_json::from_str(&rule.metadata);
    let condition = metadata
        .ok()
        .and_then(|metadata| Condition::parse(&rule.rule_type, &metadata).ok())
        .ok_or(unreadable)?;
    let found = match &condition {
        Condition::WorkflowFailure {
            workflow_name,
            threshold,
            period_secs,
        } => {
            failures(
                context,
                app,
                workflow_name.as_deref(),
                *threshold,
                *period_secs,
                now,
            )
            .await
        }
        Condition::SlowQueue {
            queue_name,
            threshold_secs,
        } => slow_queue(context, app, queue_name.as_deref(), *threshold_secs, now).await,
        Condition::UnresponsiveApplication => Ok(unresponsive(context, app, connected).await),
        Condition::StrandedRecovery { min_workflows } => {
            Ok(stranded(context, app, *min_workflows, now).await?)
        }
    };
    match found {
        Ok(Some(finding)) => {
            let app_is_told = tell(context, app, rule, &condition, &finding).await?;
            match app_is_told && is_due(rule, &condition, now) {
                true => deliver(context, rule, condition.rule_type(), finding).await,
                false => Ok(()),
            }
        }
        Ok(None) => {
            if context.store.alert_over(&rule.id).await? {
                context.channels.nudge();
            }
            Ok(())
        }
        // Nobody to ask: the other rules tell of that. What held still does, as far as anybody knows.
        Err(HubError::NoExecutor) => Ok(()),
        Err(error) => {
            tracing::warn!(app = app.name, rule = rule.id, %error, "an alerting rule could not be evaluated");
            Ok(())
        }
    }
}

/// Whether the handler may be called again.
fn is_due(rule: &AlertingRuleRow, condition: &Condition, now: i64) -> bool {
    let interval = rule
        .min_interval_secs
        .unwrap_or(condition.own_interval_secs());
    let again_at = rule
        .last_fired_at
        .map(|fired| fired.saturating_add(interval.saturating_mul(1000)));
    again_at.is_none_or(|again| again <= now)
}

/// Writes the alert down, with what the rule's channels are to be told. Whether the handler is to be
/// told too: not of an application that does not answer, by that application.
async fn tell(
    context: &Context,
    app: &AppRow,
    rule: &AlertingRuleRow,
    condition: &Condition,
    finding: &Finding,
) -> Result<bool, StoreError> {
    let metadata = serde_json::json!(finding.metadata).to_string();
    let found = Found {
        rule,
        app,
        message: &finding.message,
        metadata: &metadata,
    };
    match context.store.alert_seen(found).await? {
        None => return Ok(false),
        Some((_, true)) => context.channels.nudge(),
        Some((_, false)) => {}
    }
    let of_itself = rule.receiving_app_id == app.id;
    Ok(!(of_itself && *condition == Condition::UnresponsiveApplication))
}

/// Counts workflows, where need be by looking at some of them.
async fn count(context: &Context, app: &AppRow, filter: AggregateFilter) -> Result<i64, HubError> {
    let message = GetWorkflowAggregates {
        body: WorkflowAggregates {
            group_by_status: true,
            select_count: true,
            filter: filter.clone(),
            ..WorkflowAggregates::default()
        },
    };
    let class = Class::Background(DEADLINE);
    let asked = context
        .hub
        .request(app, Target::AnyHealthy, &message, class);
    match asked.await {
        Ok(answer) => return Ok(answer.output.iter().filter_map(|row| row.count).sum()),
        Err(HubError::UnknownMessage { .. }) => {}
        Err(error) => return Err(error),
    }
    let message = ListWorkflows {
        body: WorkflowFilter {
            status: filter.status,
            workflow_name: filter.name,
            queue_name: filter.queue_name,
            application_name: filter.application_name,
            end_time: filter.end_time,
            completed_after: filter.completed_after,
            limit: Some(PAGE),
            load_input: false,
            load_output: false,
            ..WorkflowFilter::default()
        },
    };
    let asked = context
        .hub
        .request(app, Target::AnyHealthy, &message, class);
    Ok(i64::try_from(asked.await?.output.len()).unwrap_or(i64::MAX))
}

async fn failures(
    context: &Context,
    app: &AppRow,
    name: Option<&str>,
    threshold: i64,
    period_secs: i64,
    now: i64,
) -> Result<Option<Finding>, HubError> {
    let filter = AggregateFilter {
        status: ["ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
            .map(str::to_owned)
            .to_vec(),
        name: name.map(str::to_owned).into_iter().collect(),
        application_name: vec![app.name.clone()],
        completed_after: Some(WireTime(now - period_secs * 1000)),
        ..AggregateFilter::default()
    };
    let failed = count(context, app, filter).await?;
    let name = name.unwrap_or("*");
    let finding = || {
        Finding::new(
            format!(
                "{failed} workflow(s) ({name}) of {} failed within {period_secs} s",
                app.name
            ),
            &[
                ("workflow_name", &name),
                ("failed_workflow_count", &failed),
                ("threshold", &threshold),
                ("period_secs", &period_secs),
            ],
        )
    };
    Ok((failed >= threshold).then(finding))
}

async fn slow_queue(
    context: &Context,
    app: &AppRow,
    queue: Option<&str>,
    threshold_secs: i64,
    now: i64,
) -> Result<Option<Finding>, HubError> {
    let filter = AggregateFilter {
        status: vec!["ENQUEUED".to_owned()],
        queue_name: queue.map(str::to_owned).into_iter().collect(),
        application_name: vec![app.name.clone()],
        end_time: Some(WireTime(now - threshold_secs * 1000)),
        ..AggregateFilter::default()
    };
    let stuck = count(context, app, filter).await?;
    let queue = queue.unwrap_or("*");
    let finding = || {
        Finding::new(
            format!(
                "{stuck} workflow(s) of {} have waited on queue {queue} for more than {threshold_secs} s",
                app.name
            ),
            &[
                ("queue_name", &queue),
                ("stuck_workflow_count", &stuck),
                ("threshold_secs", &threshold_secs),
            ],
        )
    };
    Ok((stuck > 0).then(finding))
}

async fn unresponsive(context: &Context, app: &AppRow, connected: usize) -> Option<Finding> {
    // After a start of the server, executors need a while to come back.
    if app.language.is_none() || context.started.elapsed() < context.options.settle {
        return None;
    }
    let mut sessions = context.hub.everywhere(&app.id).await;
    sessions.sort_by_key(|session| (session.unresponsive_for.is_some(), session.outstanding));
    for session in sessions.into_iter().take(PROBED) {
        let target = Target::Executor {
            id: session.executor_id,
            version: session.version,
        };
        let class = Class::Background(context.options.probe);
        match context
            .hub
            .request(app, target, &ExecutorInfo::default(), class)
            .await
        {
            Err(HubError::NoAnswer { .. } | HubError::NoExecutor) => {}
            // Whatever it says, it answers.
            Ok(_) | Err(_) => return None,
        }
    }
    let name = &app.name;
    let message = match connected {
        0 => format!("no executor of {name} is connected"),
        some => format!("{some} executor(s) of {name} are connected, none answers"),
    };
    Some(Finding::new(
        message,
        &[
            ("application_name", name),
            ("connected_executor_count", &connected),
        ],
    ))
}

async fn stranded(
    context: &Context,
    app: &AppRow,
    min_workflows: i64,
    now: i64,
) -> Result<Option<Finding>, StoreError> {
    let filter = RecoveryFilter {
        status: Some(RecoveryStatus::Stranded),
        limit: 1000,
        ..RecoveryFilter::default()
    };
    let serious = |record: &RecoveryRow| match record.pending_workflows {
        Some(pending) => pending >= min_workflows,
        None => record.dead_at.unwrap_or(record.disconnected_at) <= now - UNKNOWN_FOR,
    };
    let mut records = context.store.recoveries(&app.id, &filter).await?;
    records.retain(serious);
    let others = records.len().saturating_sub(1);
    let worst = records
        .into_iter()
        .max_by_key(|record| record.pending_workflows);
    Ok(worst.map(|record| {
        let pending = record.pending_workflows.map_or("unknown".to_owned(), |count| count.to_string());
        let reason = record.reason.map_or("", reason_text);
        let more = if others > 0 { format!(", and {others} more like it") } else { String::new() };
        let (id, version) = (record.key.executor_id, record.key.version);
        Finding::new(
            format!(
                "workflows of {} are stranded: executor {id} of version {version} is lost and nobody can \
                 take them ({reason}; pending: {pending}){more}",
                app.name
            ),
            &[
                ("application_name", &app.name),
                ("application_version", &version),
                ("executor_id", &id),
                ("pending_workflow_count", &pending),
                ("reason", &reason),
            ],
        )
    }))
}

async fn deliver(
    context: &Context,
    rule: &AlertingRuleRow,
    rule_type: &'static str,
    finding: Finding,
) -> Result<(), StoreError> {
    let Some(receiver) = context.store.app_by_id(&rule.receiving_app_id).await? else {
        return Ok(());
    };
    let metadata: BTreeMap<String, String> = finding.metadata;
    let alert = Alert {
        name: rule_type.to_owned(),
        message: finding.message,
        metadata,
    };
    let class = Class::Mutation { idempotent: false };
    let told = context
        .hub
        .request(&receiver, Target::AnyHealthy, &alert, class)
        .await;
    let (receiver, message) = (&receiver.name, &alert.message);
    let outcome = match &told {
        Ok(answer) if answer.success => "delivered",
        Ok(_) | Err(HubError::Remote { .. }) => "handler_failed",
        Err(HubError::NoAnswer { .. } | HubError::TooLarge { .. }) => "unanswered",
        Err(_) => "no_receiver",
    };
    context.metrics.alert(rule_type, outcome);
    context
        .store
        .alert_handled(&rule.id, receiver, outcome)
        .await?;
    match told {
        Ok(answer) if answer.success => {
            tracing::info!(rule = rule.id, receiver, message, "an alert was delivered");
        }
        Ok(_) => tracing::warn!(
            rule = rule.id,
            receiver,
            message,
            "the handler of an alert failed"
        ),
        Err(error) => {
            tracing::warn!(rule = rule.id, receiver, message, %error, outcome, "an alert had no success");
        }
    }
    if outcome == "no_receiver" {
        // The next round tries again.
        return Ok(());
    }
    context.store.alerting_rule_fired(&rule.id).await
}
