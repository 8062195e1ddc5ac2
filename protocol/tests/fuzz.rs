//! Arbitrary frames, fed to the readers of both ends. They must not panic, not take long, and what they
//! accept must survive being written and read again.
//!
//! A run is short; for a long one, say how many frames (a failure is cut down and kept as a seed in
//! `fuzz.proptest-regressions`, which every later run begins with):
//!
//!     PROPTEST_CASES=20000000 cargo test --release -p segno-protocol --test fuzz
#![allow(clippy::unwrap_used)]

mod mutation;

use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use segno_protocol::*;
use serde_json::Value;

use mutation::{mutants, recorded};

/// No frame here is larger than a few MiB; on a busy machine that takes a while.
const LONG: Duration = Duration::from_secs(10);

static RESPONSES: LazyLock<Vec<Value>> = LazyLock::new(|| golden("response"));
static REQUESTS: LazyLock<Vec<Value>> = LazyLock::new(|| golden("request"));

fn golden(member: &str) -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    recorded(&folder, member)
}

fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    ProptestConfig {
        cases: if asked { default.cases } else { 400 },
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource(
            "proptest-regressions",
        ))),
        ..default
    }
}

/// Reads a response as the one to a request of type `M`, and again what was understood of it.
fn read<M: Message>(text: &str) {
    let Ok(reply) = decode_response::<M>(text) else {
        return;
    };
    let Some(body) = reply.body else {
        assert!(reply.error_message.is_some(), "neither data nor an error");
        return;
    };
    let written = encode_response::<M>("1", &body);
    let again = decode_response::<M>(&written)
        .unwrap_or_else(|error| panic!("{}: {error}: {written}", M::TYPE));
    let again = encode_response::<M>("1", &again.body.unwrap());
    assert_eq!(written, again, "{} changes with every reading", M::TYPE);
}

/// Reads a response as any type: an executor may answer with anything.
fn read_as_any(text: &str) {
    macro_rules! each {
        ($($message:ident)+) => { $(read::<$message>(text);)+ };
    }
    each!(ExecutorInfo Recovery ExistPendingWorkflows ForkWorkflow ForkFromFailure ListWorkflows GetWorkflow
        ListSteps GetWorkflowEvents GetWorkflowNotifications GetWorkflowStreams GetWorkflowAggregates
        GetStepAggregates GetMetrics ExportWorkflow ListSchedules GetSchedule TriggerSchedule BackfillSchedule
        ListApplicationVersions ListQueues GetQueue SegnoExplain);
}

proptest! {
    #![proptest_config(config())]

    /// What the server does with whatever an executor sends.
    #[test]
    fn any_response_can_be_read_or_refused(mutant in mutants()) {
        let bytes = mutant.bytes(&RESPONSES, None);
        let text = String::from_utf8_lossy(&bytes);
        let began = Instant::now();
        match decode_envelope(&text) {
            Ok(envelope) => {
                prop_assert!(envelope.error_message.is_none_or(|message| !message.is_empty()));
            }
            Err(error) => prop_assert!(error.to_string().len() < 2_000),
        }
        read_as_any(&text);
        prop_assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
    }

    /// What an agent does with whatever a server sends.
    #[test]
    fn any_request_can_be_read_or_answered(mutant in mutants()) {
        let bytes = mutant.bytes(&REQUESTS, None);
        let text = String::from_utf8_lossy(&bytes);
        let began = Instant::now();
        match decode_request(&text) {
            Ok(frame) => {
                prop_assert!(!frame.request.message_type().is_empty() || text.contains("\"\""));
            }
            Err(error) => {
                // It goes into an answer and a log, one line each.
                prop_assert!(!error.reason.contains('\n'), "{:?}", error.reason);
                prop_assert!(error.reason.len() < 2_000, "{} bytes", error.reason.len());
            }
        }
        prop_assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
    }
}

/// The frames themselves are understood: nothing above passes for want of frames that mean something.
#[test]
fn the_seeds_are_good_frames() {
    for response in RESPONSES.iter() {
        decode_envelope(&response.to_string()).unwrap();
    }
    let understood = REQUESTS
        .iter()
        .filter(|request| decode_request(&request.to_string()).is_ok());
    assert!(understood.count() * 10 > REQUESTS.len() * 9);
}
