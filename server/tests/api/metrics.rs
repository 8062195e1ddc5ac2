//! Metrics of applications: for scrapers, read back with a parser of the two formats, and stored.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use openmetrics_parser::openmetrics::parse_openmetrics;
use openmetrics_parser::prometheus::parse_prometheus;
use openmetrics_parser::{MetricNumber, OpenMetricsValue, PrometheusValue};
use reqwest::Method;
use segno_server::config::AuthMode;
use segno_server::policies;
use serde_json::{Value, json};

use crate::executor::{FakeExecutor, until};
use crate::server::{ADMIN, Answer, Database, TestServer, execute, send};

const APP: &str = "/v2/orgs/local/apps/shop";
const OPENMETRICS: &str =
    "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
const WEIRD: &str = "we\"ird\\name\nhere";

/// Answers like an application that was busy in the last minute.
fn busy(request: &Value) -> Value {
    let body = &request["body"];
    let row = |status: &str, name: &str, queue: Value, count: i64| {
        json!({"group": {"status": status, "name": name, "queue_name": queue}, "count": count,
            "min_created_at": 1_767_323_045_500_i64, "max_queue_wait_ms": 1500, "max_total_latency_ms": 2500})
    };
    match request["type"].as_str().unwrap() {
        "get_workflow_aggregates" if body["start_time"].is_string() => {
            json!({"output": [row("", "checkout", json!("q"), 60), row("", WEIRD, json!(null), 6)]})
        }
        "get_workflow_aggregates" if body["dequeued_after"].is_string() => {
            json!({"output": [row("", "checkout", json!("q"), 30), row("", "direct", json!(null), 5)]})
        }
        "get_workflow_aggregates" if body["completed_after"].is_string() => json!({"output": [
            row("SUCCESS", "checkout", json!("q"), 120),
            row("ERROR", "checkout", json!("q"), 5),
            row("MAX_RECOVERY_ATTEMPTS_EXCEEDED", "checkout", json!("q"), 1),
            row("CANCELLED", "checkout", json!(null), 3),
        ]}),
        "get_workflow_aggregates" => json!({"output": [
            row("ENQUEUED", "checkout", json!("q"), 7),
            row("PENDING", "checkout", json!("q"), 2),
            row("PENDING", "checkout", json!(null), 1),
        ]}),
        "get_step_aggregates" => json!({"output": [
            {"group": {"function_name": "charge", "status": "SUCCESS"}, "count": 12, "max_duration_ms": 250},
            {"group": {"function_name": "charge", "status": "ERROR"}, "count": 6, "max_duration_ms": 9000},
        ]}),
        "get_metrics" => json!({"metrics": [
            {"metric_type": "workflow_count", "metric_name": "checkout", "value": 3.0},
            {"metric_type": "step_count", "metric_name": "charge", "value": 4},
        ]}),
        _ => json!({"success": true, "exist": false}),
    }
}

/// A series: its family without the common beginning, its labels, its value, its time in seconds.
type Series = BTreeMap<(String, BTreeMap<String, String>), (f64, Option<f64>)>;

fn parsed(text: &str, is_openmetrics: bool) -> Series {
    let mut series = Series::new();
    let number = |number: &MetricNumber| number.as_f64();
    let mut put = |name: &str, labels: BTreeMap<String, String>, value: f64, at: Option<f64>| {
        let name = name
            .strip_prefix("dbos_conductor_v1_")
            .unwrap_or(name)
            .to_owned();
        let before = series.insert((name, labels), (value, at));
        assert!(before.is_none(), "twice: {text}");
    };
    let owned = |(label, value): (&String, &String)| (label.clone(), value.clone());
    if is_openmetrics {
        let families = parse_openmetrics(text)
            .unwrap_or_else(|error| panic!("{error:?} in {text}"))
            .families;
        for (name, family) in &families {
            for sample in family.iter_samples() {
                let labels = sample.get_labelset().unwrap().iter().map(owned).collect();
                let OpenMetricsValue::Gauge(value) = &sample.value else {
                    panic!("{name} is no gauge")
                };
                put(name, labels, number(value), sample.timestamp);
            }
        }
    } else {
        let families = parse_prometheus(text)
            .unwrap_or_else(|error| panic!("{error:?} in {text}"))
            .families;
        for (name, family) in &families {
            for sample in family.iter_samples() {
                let labels = sample.get_labelset().unwrap().iter().map(owned).collect();
                let PrometheusValue::Gauge(value) = &sample.value else {
                    panic!("{name} is no gauge")
                };
                // Milliseconds in this format.
                put(
                    name,
                    labels,
                    number(value),
                    sample.timestamp.map(|at| at / 1000.0),
                );
            }
        }
    }
    series
}

async fn scrape(server: &TestServer, query: &str, accept: &str) -> Answer {
    let request = server.admin(Method::GET, &format!("/v1/metrics{query}"));
    send(request.header("accept", accept)).await.expect(200)
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(label, value): &(&str, &str)| ((*label).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

async fn server_with(apps: &[&str]) -> TestServer {
    let server = TestServer::start(Database::sqlite(), AuthMode::None).await;
    for app in apps {
        server
            .put(&format!("/v2/orgs/local/apps/{app}"), json!({}))
            .await
            .expect(204);
    }
    server
}

#[tokio::test]
async fn every_family_is_served_in_both_formats() {
    let server = server_with(&["shop"]).await;
    let executor = FakeExecutor::connect(&server, "shop", "any", "v1", busy).await;
    let open = scrape(&server, "", OPENMETRICS).await;
    assert!(open.text.ends_with("# EOF\n"), "{}", open.text);
    assert!(
        open.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("application/openmetrics-text; version=1.0.0")
    );
    let asked = executor.of_type("get_workflow_aggregates")[0]["body"].clone();
    let plain = scrape(&server, "", "text/plain").await;
    assert!(
        plain.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
    assert!(!plain.text.contains("# EOF"));

    // The window of the first answer: a whole minute whose end is exclusive.
    let time =
        |name: &str| chrono::DateTime::parse_from_rfc3339(asked[name].as_str().unwrap()).unwrap();
    let (start, end) = (
        time("start_time").timestamp_millis(),
        time("end_time").timestamp_millis() + 1,
    );
    assert_eq!((end - start, end % 60_000), (60_000, 0));
    let at = Some(end as f64 / 1000.0);
    assert_eq!(asked["application_name"], json!(["shop"]));

    let queued = labels(&[
        ("application", "shop"),
        ("workflow_name", "checkout"),
        ("queue_name", "q"),
    ]);
    let unqueued = labels(&[
        ("application", "shop"),
        ("workflow_name", "checkout"),
        ("queue_name", ""),
    ]);
    let weird = labels(&[
        ("application", "shop"),
        ("workflow_name", WEIRD),
        ("queue_name", ""),
    ]);
    let workflow = labels(&[("application", "shop"), ("workflow_name", "checkout")]);
    let step = labels(&[("application", "shop"), ("step_name", "charge")]);
    let executors = labels(&[
        ("application", "shop"),
        ("status", "HEALTHY"),
        ("application_version", "v1"),
    ]);
    let expected: Series = [
        ("workflow_started_rate", &queued, 1.0, at),
        ("workflow_started_rate", &weird, 0.1, at),
        ("workflow_dequeued_rate", &queued, 0.5, at),
        ("workflow_success_rate", &queued, 2.0, at),
        ("workflow_failed_rate", &queued, 0.1, at),
        ("workflow_cancelled_rate", &unqueued, 0.05, at),
        ("workflow_enqueued_count", &queued, 7.0, None),
        ("workflow_pending_count", &workflow, 3.0, None),
        (
            "workflow_oldest_enqueued_timestamp_seconds",
            &queued,
            1_767_323_045.5,
            None,
        ),
        (
            "workflow_oldest_pending_timestamp_seconds",
            &workflow,
            1_767_323_045.5,
            None,
        ),
        ("workflow_max_queue_wait_seconds", &queued, 1.5, at),
        ("workflow_max_total_latency_seconds", &queued, 2.5, at),
        ("step_success_rate", &step, 0.2, at),
        ("step_failed_rate", &step, 0.1, at),
        ("step_max_duration_seconds", &step, 0.25, at),
        ("executor_count", &executors, 1.0, None),
    ]
    .into_iter()
    .map(|(name, labels, value, at)| ((name.to_owned(), labels.clone()), (value, at)))
    .collect();
    assert_eq!(parsed(&open.text, true), expected);
    // A minute may have ended in between: then only the times differ.
    let without_times = |series: Series| {
        let values: Vec<_> = series
            .into_iter()
            .map(|(key, (value, at))| (key, value, at.is_some()))
            .collect();
        values
    };
    assert_eq!(
        without_times(parsed(&plain.text, false)),
        without_times(expected)
    );
}

#[tokio::test]
async fn one_executor_is_asked_once_a_minute() {
    let server = server_with(&["shop"]).await;
    let one = FakeExecutor::connect(&server, "shop", "any", "v1", busy).await;
    let two = FakeExecutor::connect(&server, "shop", "any", "v1", busy).await;
    let asked = || {
        let of = |executor: &FakeExecutor| {
            ["get_workflow_aggregates", "get_step_aggregates"]
                .map(|kind| executor.of_type(kind).len())
        };
        (of(&one), of(&two))
    };
    assert_eq!(asked(), ([0, 0], [0, 0]), "nobody scraped yet");
    let answers = loop {
        let before = asked();
        let scrapes = (0..3).map(|_| scrape(&server, "", OPENMETRICS));
        let answers = futures_util::future::join_all(scrapes).await;
        let later = scrape(&server, "", OPENMETRICS).await;
        let is_one_minute = answers.iter().all(|answer| answer.text == later.text);
        if is_one_minute {
            let counts = asked();
            let new = [counts.0[0] - before.0[0], counts.1[0] - before.1[0]];
            assert!(new == [4, 0] || new == [0, 4], "{new:?}");
            break answers;
        }
    };
    assert_eq!(parsed(&answers[0].text, true).len(), 16);
}

#[tokio::test]
async fn filters_choose_applications_workflows_and_families() {
    let server = server_with(&["shop", "bank"]).await;
    let shop = FakeExecutor::connect(&server, "shop", "any", "v1", busy).await;
    let _bank = FakeExecutor::connect(&server, "bank", "any", "v1", busy).await;
    let series = async |query: &str| parsed(&scrape(&server, query, OPENMETRICS).await.text, true);

    let counted = series("?metrics=dbos_conductor_v1_executor_count").await;
    assert_eq!(counted.len(), 2);
    assert!(
        shop.of_type("get_workflow_aggregates").is_empty(),
        "nobody needs to be asked for it"
    );
    let of_bank = series("?applications=bank&applications=nope").await;
    assert_eq!(of_bank.len(), 16);
    assert!(
        of_bank
            .keys()
            .all(|(_, labels)| labels["application"] == "bank")
    );
    assert!(shop.of_type("get_workflow_aggregates").is_empty());
    let of_checkout = series(
        "?applications=shop&workflow_names=checkout&metrics=dbos_conductor_v1_workflow_started_rate\
        &metrics=dbos_conductor_v1_step_failed_rate",
    )
    .await;
    let names: Vec<&str> = of_checkout.keys().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["step_failed_rate", "workflow_started_rate"]);
}

#[tokio::test]
async fn an_application_that_cannot_answer_spoils_nothing() {
    let server = server_with(&["shop", "broken", "gone", "never"]).await;
    let _shop = FakeExecutor::connect(&server, "shop", "any", "v1", busy).await;
    let _broken = FakeExecutor::connect(
        &server,
        "broken",
        "any",
        "v1",
        |_| json!({"output": [], "error_message": "the database is away"}),
    )
    .await;
    let gone = FakeExecutor::connect(&server, "gone", "any", "v1", busy).await;
    drop(gone);
    until("the loss is written down", async || {
        let rows = server
            .get("/v2/orgs/local/apps/gone/executors")
            .await
            .expect(200)
            .json;
        rows[0]["status"] == "DISCONNECTED"
    })
    .await;
    let series = parsed(&scrape(&server, "", OPENMETRICS).await.text, true);
    let of = |app: &str| -> Vec<&str> {
        let its = series
            .keys()
            .filter(|(_, labels)| labels["application"] == app);
        its.map(|(name, _)| name.as_str()).collect()
    };
    assert_eq!(of("shop").len(), 16);
    assert_eq!(of("broken"), ["executor_count"]);
    assert_eq!(of("gone"), ["executor_count"]);
    assert_eq!(of("never"), Vec::<&str>::new());
}

#[tokio::test]
async fn a_key_sees_the_metrics_of_its_applications() {
    for server in TestServer::each(AuthMode::Keys).await {
        for app in ["shop", "bank"] {
            server
                .put(&format!("/v2/orgs/local/apps/{app}"), json!({}))
                .await
                .expect(204);
        }
        let _shop = FakeExecutor::connect(&server, "shop", ADMIN, "v1", busy).await;
        let _bank = FakeExecutor::connect(&server, "bank", ADMIN, "v1", busy).await;
        let reader = server.key("reader", &["application.read"], &[]).await;
        server.get_with(&reader, "/v1/metrics").await.problem(403);
        send(server.request(Method::GET, "/v1/metrics"))
            .await
            .problem(401);
        let scraper = server.key("scraper", &["metric.read"], &["shop"]).await;
        let seen = parsed(
            &server
                .get_with(&scraper, "/v1/metrics")
                .await
                .expect(200)
                .text,
            false,
        );
        assert_eq!(seen.len(), 16);
        assert!(
            seen.keys()
                .all(|(_, labels)| labels["application"] == "shop")
        );
    }
}

#[tokio::test]
async fn counts_are_collected_and_listed() {
    for database in [Database::sqlite(), Database::postgres().await] {
        let server = TestServer::start_with(database, AuthMode::None, |config| {
            config.policies = policies::Options {
                tick: Duration::from_millis(50),
                metrics_every: Duration::from_secs(1),
                ..policies::Options::default()
            };
        })
        .await;
        server.put(APP, json!({})).await.expect(204);
        let failures = Arc::new(AtomicUsize::new(1));
        let executor = FakeExecutor::connect(&server, "shop", "any", "v1", move |request| {
            let fails = request["type"] == "get_metrics"
                && failures
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                        left.checked_sub(1)
                    })
                    .is_ok();
            if fails {
                json!({"error_message": "not now"})
            } else {
                busy(request)
            }
        })
        .await;
        let list = async || {
            let query = "startTime=2020-01-01T00:00:00Z&endTime=2100-01-01T00:00:00%2B02:00";
            server
                .get(&format!("{APP}/metrics?{query}"))
                .await
                .expect(200)
                .json
        };
        until("two intervals are listed", async || {
            list().await.as_array().unwrap().len() >= 6
        })
        .await;
        let rows = list().await;
        let now = chrono::Utc::now();
        let time =
            |value: &Value| chrono::DateTime::parse_from_rfc3339(value.as_str().unwrap()).unwrap();
        assert!(
            rows.as_array()
                .unwrap()
                .iter()
                .all(|row| time(&row["timeBucket"]) <= now),
            "{rows}"
        );
        let shown = rows.as_array().unwrap().iter().take(3).map(|row| {
            let member = |name: &str| row[name].clone();
            (member("metricType"), member("metricName"), member("value"))
        });
        assert_eq!(
            shown.collect::<Vec<_>>(),
            [
                (json!("queue_depth"), json!("q"), json!(7)),
                (json!("step_count"), json!("charge"), json!(4)),
                (json!("workflow_count"), json!("checkout"), json!(3)),
            ]
        );
        // What was asked for adjoins, and the interval that failed is part of the next.
        let asked = executor.of_type("get_metrics");
        assert_eq!(asked[0]["metric_class"], "workflow_step_count");
        assert_eq!(asked[0]["application_name"], json!(["shop"]));
        assert_eq!(time(&rows[0]["timeBucket"]), time(&asked[1]["start_time"]));
        assert!(time(&asked[1]["start_time"]) <= time(&asked[0]["end_time"]));
        assert_eq!(asked[2]["start_time"], asked[1]["end_time"]);
        let seconds = (time(&asked[1]["end_time"]) - time(&asked[1]["start_time"])).num_seconds();
        assert_eq!(rows[0]["granularity"], seconds);

        let faults = server.get(&format!("{APP}/metrics")).await.faults(422);
        assert_eq!(faults, ["query.startTime", "query.endTime"]);
        let backwards = "startTime=2026-01-02T00:00:00Z&endTime=2026-01-01T00:00:00Z";
        server
            .get(&format!("{APP}/metrics?{backwards}"))
            .await
            .problem(400);
    }
}

#[tokio::test]
async fn recoveries_are_counted_by_version() {
    for database in [Database::sqlite(), Database::postgres().await] {
        let server = TestServer::start_with(database, AuthMode::None, |config| {
            config.policies = policies::Options {
                tick: Duration::from_millis(50),
                metrics_every: Duration::from_secs(1),
                ..policies::Options::default()
            };
        })
        .await;
        server.put(APP, json!({})).await.expect(204);
        let id = server.get(APP).await.json["id"].clone();
        let id = id.as_str().unwrap();
        let ended = chrono::Utc::now().timestamp_millis();
        for (name, version, status) in [
            ("a", "v1", "RECOVERED"),
            ("b", "v1", "RECOVERED"),
            ("c", "v2", "RECOVERED"),
            ("d", "v2", "NOTHING_PENDING"),
        ] {
            let insert = format!(
                "INSERT INTO recoveries (id, app_id, executor_id, app_version, status, disconnected_at, completed_at) \
                 VALUES ('{name}', '{id}', '{name}', '{version}', '{status}', {ended}, {ended})"
            );
            execute(&server.database.url, insert).await;
        }
        // The release knows no counts of its own; the server's are kept all the same.
        let _executor = FakeExecutor::connect(
            &server,
            "shop",
            "any",
            "v1",
            |request| match request["type"].as_str().unwrap() {
                "get_metrics" => json!({"error_message": "Unknown message type"}),
                _ => busy(request),
            },
        )
        .await;
        let query = "startTime=2020-01-01T00:00:00Z&endTime=2100-01-01T00:00:00Z";
        let list = async || {
            let rows = server.get(&format!("{APP}/metrics?{query}")).await;
            let mut rows = rows.expect(200).json.as_array().unwrap().clone();
            rows.retain(|row| row["metricType"] == "recovery_count");
            rows
        };
        until("both versions are counted", async || {
            list().await.len() >= 2
        })
        .await;
        let mut shown: Vec<(Value, Value, Value)> = list()
            .await
            .iter()
            .map(|row| {
                let member = |name: &str| row[name].clone();
                (member("metricType"), member("metricName"), member("value"))
            })
            .collect();
        shown.sort_by_key(|row| row.1.to_string());
        let row =
            |version: &str, count: i64| (json!("recovery_count"), json!(version), json!(count));
        assert_eq!(shown, [row("v1", 2), row("v2", 1)]);
    }
}
