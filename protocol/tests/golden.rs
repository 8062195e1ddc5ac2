//! Every recorded frame is read without loss, and every request we write is one that the SDKs accepted.
#![allow(clippy::unwrap_used)]

use segno_protocol::*;
use serde_json::Value;
use std::path::{Path, PathBuf};

struct Exchange {
    file: String,
    note: String,
    request: Value,
    response: Value,
}

fn exchanges() -> Vec<Exchange> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut files: Vec<PathBuf> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .flat_map(|folder| {
            std::fs::read_dir(folder)
                .unwrap()
                .map(|file| file.unwrap().path())
        })
        .filter(|path| !path.ends_with("_handshake.json"))
        .collect();
    files.sort();
    assert!(files.len() > 120, "the golden files are missing");
    files.iter().flat_map(|file| exchanges_of(file)).collect()
}

fn exchanges_of(file: &Path) -> Vec<Exchange> {
    let content: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let list = match content {
        Value::Array(list) => list,
        one => vec![one],
    };
    list.into_iter()
        .map(|mut exchange| Exchange {
            file: file
                .components()
                .rev()
                .take(2)
                .fold(String::new(), |tail, part| {
                    format!("{}/{tail}", part.as_os_str().to_string_lossy())
                }),
            note: exchange["note"].as_str().unwrap_or_default().to_owned(),
            request: exchange["request"].take(),
            response: exchange["response"].take(),
        })
        .collect()
}

/// Runs `$body` with `$message` bound to the typed request, for whichever type it is.
macro_rules! with_message {
    ($request:expr, $message:ident => $body:expr; $($variant:ident)+) => {
        match $request {
            $(Request::$variant($message) => $body,)+
            Request::Unknown { .. } => None,
        }
    };
    ($request:expr, $message:ident => $body:expr) => {
        with_message!($request, $message => $body;
            ExecutorInfo Recovery ExistPendingWorkflows Cancel Delete Resume Restart RewindWorkflow
            ForkWorkflow ForkFromFailure ListWorkflows ListQueuedWorkflows GetWorkflow ListSteps
            GetWorkflowEvents GetWorkflowNotifications GetWorkflowStreams GetWorkflowAggregates
            GetStepAggregates GetMetrics Alert Retention ExportWorkflow ImportWorkflow ListSchedules
            GetSchedule PauseSchedule ResumeSchedule TriggerSchedule BackfillSchedule
            ListApplicationVersions SetLatestApplicationVersion ListQueues GetQueue SegnoExplain)
    };
}

fn reencode<M: Message>(id: &str, message: &M) -> Option<String> {
    Some(encode_request(id, message))
}

type Read = Result<(Option<String>, Option<Value>), String>;

fn reread<M: Message>(_: &M, response: &str) -> Option<Read> {
    Some(match decode_response::<M>(response) {
        Ok(reply) => Ok((
            reply.error_message,
            reply.body.map(|body| serde_json::to_value(body).unwrap()),
        )),
        Err(error) => Err(error.to_string()),
    })
}

/// What is in `recorded` and neither null nor in `read`, as paths.
fn lost(recorded: &Value, read: &Value, path: &str, found: &mut Vec<String>) {
    match (recorded, read) {
        (Value::Null, _) => {}
        (Value::Object(from), Value::Object(to)) => {
            for (key, value) in from {
                lost(
                    value,
                    to.get(key).unwrap_or(&Value::Null),
                    &format!("{path}.{key}"),
                    found,
                );
            }
        }
        (Value::Array(from), Value::Array(to)) if from.len() == to.len() => {
            for (index, (from, to)) in from.iter().zip(to).enumerate() {
                lost(from, to, &format!("{path}[{index}]"), found);
            }
        }
        // Empty text and an absent value mean the same, for TypeScript's `ExecutorID` for one.
        (Value::String(text), Value::Null) if text.is_empty() => {}
        (Value::Number(from), Value::Number(to)) if from.as_f64() == to.as_f64() => {}
        (from, to) if from == to => {}
        (from, to) => found.push(format!("{path}: {from} became {to}")),
    }
}

#[test]
fn every_recorded_request_is_read_and_written_back_the_same() {
    for exchange in exchanges() {
        let Exchange {
            file,
            note,
            request,
            ..
        } = exchange;
        let frame = match decode_request(&request.to_string()) {
            Ok(frame) => frame,
            Err(error) => {
                assert!(note.contains("does not parse"), "{file} ({note}): {error}");
                assert_eq!(error.r#type.as_deref(), request["type"].as_str());
                assert_eq!(error.request_id.as_deref(), request["request_id"].as_str());
                continue;
            }
        };
        assert_eq!(Some(frame.request.message_type()), request["type"].as_str());
        let Some(text) =
            with_message!(&frame.request, message => reencode(&frame.request_id, message))
        else {
            assert!(
                file.contains("unknown_type"),
                "{file}: not in the catalogue"
            );
            continue;
        };
        let prefix = format!(
            r#"{{"type":"{}","request_id":"{}""#,
            frame.request.message_type(),
            frame.request_id
        );
        assert!(
            text.starts_with(&prefix),
            "{file}: {text} does not begin with {prefix}"
        );
        let written: Value = serde_json::from_str(&text).unwrap();
        let (mut gone, mut new) = (Vec::new(), Vec::new());
        lost(&request, &written, "", &mut gone);
        lost(&written, &request, "", &mut new);
        // Both listings share their filter; an unknown member is ignored by every SDK.
        new.retain(|path| !(file.contains("list_queued") && path.starts_with(".body.queues_only")));
        assert!(
            gone.is_empty() && new.is_empty(),
            "{file} ({note}): lost {gone:?}, added {new:?}"
        );
    }
}

#[test]
fn every_recorded_response_is_read_without_loss() {
    for exchange in exchanges() {
        let Exchange {
            file,
            note,
            request,
            response,
        } = exchange;
        let Ok(frame) = decode_request(&request.to_string()) else {
            continue; // malformed on purpose; its answer is an error, read below where types are known
        };
        let text = response.to_string();
        let Some(read) = with_message!(&frame.request, message => reread(message, &text)) else {
            let envelope = decode_envelope(&text).unwrap();
            assert_eq!(
                envelope.error_message.as_deref(),
                Some(UNKNOWN_TYPE),
                "{file}"
            );
            continue;
        };
        let (error, body) = read.unwrap_or_else(|error| panic!("{file} ({note}): {error}"));
        assert_eq!(
            error.as_deref(),
            response["error_message"]
                .as_str()
                .filter(|text| !text.is_empty()),
            "{file}"
        );
        let Some(body) = body else {
            assert!(error.is_some(), "{file}: neither error nor data");
            continue;
        };
        let mut data = response.clone();
        for key in ["type", "request_id", "error_message"] {
            data.as_object_mut().unwrap().remove(key);
        }
        let mut gone = Vec::new();
        lost(&data, &body, "", &mut gone);
        assert!(gone.is_empty(), "{file} ({note}): {gone:?}");
    }
}

fn responses(file: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(file);
    exchanges_of(&path)
        .iter()
        .map(|exchange| exchange.response.to_string())
        .collect()
}

#[test]
fn records_of_all_languages_mean_the_same() {
    let first = |file: &str| {
        let reply = decode_response::<ListWorkflows>(&responses(file)[0]).unwrap();
        reply.body.unwrap().output.remove(0)
    };
    let go = first("go-1.2.0/list_workflows.json");
    assert_eq!(
        (go.status.as_deref(), go.queue_name),
        (Some("PENDING"), None)
    );
    assert_eq!(
        (go.created_at, go.priority),
        (Some(1_795_372_084_478), Some(0))
    );

    let java = first("java-1.0.0/list_workflows.json");
    assert!(!java.was_forked_from);
    assert_eq!(java.completed_at, Some(1_795_372_084_999));
    assert_eq!(java.input.as_deref(), Some(r#"[42,"x"]"#));

    let python = first("python-3.2.0/list_workflows.json");
    assert_eq!(python.workflow_uuid, "orphan-1");
    assert_eq!(
        python.executor_id.as_deref(),
        Some("6ccf7296-5a84-403d-bdd6-7ced790fb1bf")
    );
    assert_eq!(python.application_name.as_deref(), Some("frames"));
}

#[test]
fn an_error_next_to_empty_looking_data_is_an_error() {
    let reply = decode_response::<ExistPendingWorkflows>(
        &responses("go-1.2.0/exist_pending_workflows.json")[0],
    )
    .unwrap();
    assert_eq!(
        reply.error_message.as_deref(),
        Some("failed to check: timeout")
    );

    let failed = decode_response::<Cancel>(&responses("java-1.0.0/cancel.json")[0]).unwrap();
    assert_eq!(
        (failed.error_message, failed.body),
        (None, Some(Success::NO))
    );
}

#[test]
fn null_lists_are_empty() {
    let streams =
        decode_response::<GetWorkflowStreams>(&responses("go-1.2.0/get_workflow_streams.json")[0])
            .unwrap();
    assert_eq!(streams.body.unwrap().streams, []);
    let metrics =
        decode_response::<GetMetrics>(&responses("go-1.2.0/get_metrics.json")[0]).unwrap();
    assert_eq!(metrics.body.unwrap().metrics, []);
}

#[test]
fn python_and_typescript_say_who_they_are() {
    for (folder, language, version) in [
        ("python-2.31.1", "python", "2.31.1"),
        ("python-3.2.0", "python", "3.2.0"),
        ("typescript-4.27.6", "typescript", "4.27.6"),
        ("typescript-5.2.11", "typescript", "5.2.11"),
    ] {
        let text = &responses(&format!("{folder}/executor_info.json"))[0];
        let info = decode_response::<ExecutorInfo>(text).unwrap().body.unwrap();
        assert_eq!(info.language.as_deref(), Some(language));
        assert_eq!(info.dbos_version.as_deref(), Some(version));
        assert_eq!(info.application_version.as_deref(), Some("1.0.0"));
        assert!(info.executor_id.is_some());
    }
}
