//! Steps in one process: retries, errors, transactions, order, children.

use std::time::Duration;

use segno::{Ctx, ErrorKind, Retry, Status, WorkflowRef};
use serde::{Deserialize, Serialize};

use super::support::{Place, World, recorded, within};

on_both!(
    results_come_back_and_are_recorded_in_order,
    a_step_is_tried_once_unless_told_otherwise,
    retries_stop_when_they_succeed_are_used_up_or_are_declined,
    an_attempt_that_takes_too_long_is_a_failure_like_any_other,
    parallel_steps_take_their_positions_from_the_program,
    a_step_inside_a_step_is_a_plain_call_and_a_sleep_there_an_error,
    a_transaction_commits_with_its_checkpoint_or_not_at_all,
    children_have_ids_of_their_own_and_their_results_are_recorded,
    an_error_with_fields_keeps_them_across_processes,
    one_id_is_one_run_and_belongs_to_one_function,
    values_that_cannot_be_recorded_fail_the_step,
    the_wrong_input_sets_the_run_aside,
);

#[derive(Debug, thiserror::Error, Serialize, Deserialize, PartialEq)]
pub enum PayError {
    #[error("declined: {reason}")]
    Declined { reason: String },
    #[error("unavailable")]
    Unavailable,
    #[error("engine: {0}")]
    Engine(String),
}

impl From<segno::Error> for PayError {
    fn from(error: segno::Error) -> Self {
        Self::Engine(error.to_string())
    }
}

async fn greet(ctx: Ctx<World>, name: String) -> segno::Result<String> {
    let hello = ctx
        .step("hello", || async { Ok(format!("Hello, {name}")) })
        .await?;
    ctx.sleep(Duration::from_millis(1)).await;
    let mark = ctx.step("mark", || async { Ok('!') }).await?;
    Ok(format!("{hello}{mark}"))
}

async fn results_come_back_and_are_recorded_in_order(place: &Place) {
    let app = place
        .app(&World::new())
        .workflow("greet", greet)
        .launch()
        .await
        .unwrap();
    let handle = app.start(greet, "Ada".into()).id("greet-1").await.unwrap();
    assert_eq!(handle.result().await.unwrap(), "Hello, Ada!");
    assert_eq!(handle.status().await.unwrap(), Status::Success);
    assert_eq!(
        recorded(&app, "greet-1").await,
        ["hello", "DBOS.sleep", "mark"]
    );
    // The same through another handle, from the database.
    assert_eq!(
        app.handle::<String>("greet-1")
            .await
            .unwrap()
            .await
            .unwrap(),
        "Hello, Ada!"
    );
    let listed = app
        .workflows()
        .name("greet")
        .status(Status::Success)
        .with_payloads()
        .await
        .unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].output, Some("Hello, Ada!".into()));
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

/// Fails as often as it is told, then succeeds.
async fn flaky(
    ctx: Ctx<World>,
    (failures, attempts): (usize, Option<u32>),
) -> segno::Result<usize> {
    let world = ctx.state();
    let step = ctx.try_step("flaky", || async {
        world.note("attempt");
        let attempt = world.count("attempt");
        if attempt > failures {
            Ok(attempt)
        } else {
            Err(segno::Error::message(format!("failure {attempt}")))
        }
    });
    match attempts {
        Some(max_attempts) => {
            step.retry(Retry {
                max_attempts,
                interval: Duration::from_millis(1),
                ..Retry::default()
            })
            .await
        }
        None => step.await,
    }
}

async fn a_step_is_tried_once_unless_told_otherwise(place: &Place) {
    let world = World::new();
    let app = place
        .app(&world)
        .workflow("flaky", flaky)
        .launch()
        .await
        .unwrap();
    let error = app.run(flaky, (1, None)).await.unwrap_err();
    assert_eq!(error.to_string(), "failure 1");
    assert_eq!(world.count("attempt"), 1);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn picky(ctx: Ctx<World>, error: u32) -> segno::Result<String> {
    let world = ctx.state();
    let paid: Result<(), PayError> = ctx
        .try_step("pay", || async {
            world.note("attempt");
            match error {
                0 => Err(PayError::Declined {
                    reason: "no cover".into(),
                }),
                _ => Err(PayError::Unavailable),
            }
        })
        .max_attempts(3)
        .interval(Duration::from_millis(1))
        .retry_if(|error| *error == PayError::Unavailable)
        .await;
    Ok(format!("{:?}", paid.unwrap_err()))
}

async fn retries_stop_when_they_succeed_are_used_up_or_are_declined(place: &Place) {
    let world = World::new();
    let app = place
        .app(&world)
        .workflow("flaky", flaky)
        .launch()
        .await
        .unwrap();
    assert_eq!(app.run(flaky, (2, Some(3))).await.unwrap(), 3);
    app.shutdown(Duration::from_secs(5)).await.unwrap();

    let world = World::new();
    let app = place
        .app(&world)
        .workflow("flaky", flaky)
        .launch()
        .await
        .unwrap();
    let error = app
        .run(flaky, (9, Some(3)))
        .id("used-up")
        .await
        .unwrap_err();
    assert_eq!(
        *error.kind(),
        ErrorKind::RetriesExhausted {
            step: "flaky".into(),
            attempts: 3
        }
    );
    let causes: Vec<_> = error.causes().iter().map(ToString::to_string).collect();
    assert_eq!(causes, ["failure 1", "failure 2", "failure 3"]);
    // All of that is on record, too.
    let step = app.steps("used-up").await.unwrap().remove(0);
    assert_eq!(step.error.unwrap().causes().len(), 3);
    app.shutdown(Duration::from_secs(5)).await.unwrap();

    let world = World::new();
    let app = place
        .app(&world)
        .workflow("picky", picky)
        .launch()
        .await
        .unwrap();
    assert_eq!(
        app.run(picky, 0).await.unwrap(),
        r#"Declined { reason: "no cover" }"#
    );
    assert_eq!(world.count("attempt"), 1);
    let exhausted = app.run(picky, 1).await.unwrap();
    assert_eq!(
        exhausted,
        r#"Engine("step `pay` failed 3 times, last with: unavailable")"#
    );
    assert_eq!(world.count("attempt"), 4);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn slow(ctx: Ctx<World>, (): ()) -> segno::Result<u32> {
    let world = ctx.state();
    ctx.step("slow", || async {
        world.note("attempt");
        if world.count("attempt") == 1 {
            std::future::pending::<()>().await;
        }
        Ok(7)
    })
    .timeout(Duration::from_millis(50))
    .interval(Duration::from_millis(1))
    .max_attempts(2)
    .await
}

async fn an_attempt_that_takes_too_long_is_a_failure_like_any_other(place: &Place) {
    let world = World::new();
    let app = place
        .app(&world)
        .workflow("slow", slow)
        .launch()
        .await
        .unwrap();
    assert_eq!(within(app.run(slow, ())).await.unwrap(), 7);
    assert_eq!(world.count("attempt"), 2);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn parallel(ctx: Ctx<World>, (): ()) -> segno::Result<Vec<u32>> {
    let world = ctx.state();
    let (a, b, c) = tokio::try_join!(
        ctx.step("first", || async {
            world.pass("second done").await;
            Ok(1)
        }),
        ctx.step("second", || async {
            world.pass("third done").await;
            world.open("second done");
            Ok(2)
        }),
        ctx.step("third", || async {
            world.open("third done");
            Ok(3)
        }),
    )?;
    Ok(vec![a, b, c])
}

async fn parallel_steps_take_their_positions_from_the_program(place: &Place) {
    let app = place
        .app(&World::new())
        .workflow("parallel", parallel)
        .launch()
        .await
        .unwrap();
    assert_eq!(
        within(app.run(parallel, ()).id("p")).await.unwrap(),
        [1, 2, 3]
    );
    assert_eq!(recorded(&app, "p").await, ["first", "second", "third"]);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn nested(ctx: Ctx<World>, sleep: bool) -> segno::Result<u32> {
    let inner = &ctx;
    ctx.step("outer", || async move {
        if sleep {
            inner.sleep(Duration::from_millis(1)).await;
        }
        inner.step("inner", || async { Ok(5) }).await
    })
    .await
}

async fn a_step_inside_a_step_is_a_plain_call_and_a_sleep_there_an_error(place: &Place) {
    let app = place
        .app(&World::new())
        .workflow("nested", nested)
        .launch()
        .await
        .unwrap();
    assert_eq!(app.run(nested, false).id("plain").await.unwrap(), 5);
    assert_eq!(recorded(&app, "plain").await, ["outer"]);
    let error = within(app.run(nested, true).id("sleeps"))
        .await
        .unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Misuse { .. }),
        "{error:?}"
    );
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn order(ctx: Ctx<World>, fails: bool) -> segno::Result<i64> {
    ctx.transaction(ctx.state().db(), "insert order", |tx| {
        Box::pin(async move {
            let (id,): (i64,) = tx
                .query("INSERT INTO orders (id) VALUES ($1) RETURNING id")
                .bind(1_i64)
                .fetch_one()
                .await?;
            if fails {
                return Err(PayError::Declined {
                    reason: "after the insert".into(),
                }
                .into());
            }
            Ok(id)
        })
    })
    .await
}

async fn a_transaction_commits_with_its_checkpoint_or_not_at_all(place: &Place) {
    place
        .execute("CREATE TABLE orders (id BIGINT PRIMARY KEY)")
        .await;
    let world = World::with_db(&place.db);
    let app = place
        .app(&world)
        .database(&place.db)
        .workflow("order", order)
        .launch()
        .await
        .unwrap();

    let error = app.run(order, true).id("fails").await.unwrap_err();
    assert_eq!(error.to_string(), "declined: after the insert");
    assert_eq!(place.number("SELECT COUNT(*) FROM orders").await, 0);

    assert_eq!(app.run(order, false).id("works").await.unwrap(), 1);
    assert_eq!(place.number("SELECT COUNT(*) FROM orders").await, 1);
    assert_eq!(recorded(&app, "works").await, ["insert order"]);

    // The table refuses a second row of that id; neither it nor a success is recorded.
    let error = app.run(order, false).id("twice").await.unwrap_err();
    assert!(
        error.to_string().to_lowercase().contains("unique"),
        "{error}"
    );
    assert!(app.steps("twice").await.unwrap()[0].error.is_some());
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn double(_: Ctx, number: u32) -> Result<u32, PayError> {
    if number == 13 {
        return Err(PayError::Declined {
            reason: "superstition".into(),
        });
    }
    Ok(number * 2)
}

async fn family(ctx: Ctx<World>, number: u32) -> segno::Result<u32> {
    let handle = ctx.start(double, number).await?;
    let named = ctx
        .start(double, number + 1)
        .id(format!("{}-named", ctx.workflow_id()))
        .await?;
    let third = ctx.run(double, number + 2).await?;
    Ok(handle.await? + named.await? + third)
}

async fn children_have_ids_of_their_own_and_their_results_are_recorded(place: &Place) {
    let builder = place
        .app(&World::new())
        .workflow("double", double)
        .workflow("family", family);
    let app = builder.launch().await.unwrap();
    assert_eq!(within(app.run(family, 1).id("f")).await.unwrap(), 12);
    assert_eq!(
        recorded(&app, "f").await,
        [
            "double",
            "double",
            "double",
            "DBOS.getResult",
            "DBOS.getResult",
            "DBOS.getResult"
        ]
    );
    let children: Vec<_> = app
        .steps("f")
        .await
        .unwrap()
        .into_iter()
        .filter_map(|step| step.child_id)
        .collect();
    assert_eq!(children, ["f-0", "f-named", "f-2", "f-2", "f-0", "f-named"]);
    let listed = app.workflows().parent("f").await.unwrap();
    assert_eq!(listed.len(), 3);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn an_error_with_fields_keeps_them_across_processes(place: &Place) {
    let declined = PayError::Declined {
        reason: "superstition".into(),
    };
    let app = place
        .app(&World::new())
        .workflow("double", double)
        .workflow("family", family)
        .launch()
        .await
        .unwrap();
    let error = app.run(double, 13).id("d").await.unwrap_err();
    assert_eq!(error.decode::<PayError>(), Some(declined));
    app.shutdown(Duration::from_secs(5)).await.unwrap();

    let app = place
        .app(&World::new())
        .executor_id("two")
        .launch()
        .await
        .unwrap();
    let error = app.handle::<u32>("d").await.unwrap().await.unwrap_err();
    let ErrorKind::Portable { name, message, .. } = error.kind() else {
        panic!("{error:?}")
    };
    assert_eq!(
        (name.as_str(), message.as_str()),
        ("PayError", "declined: superstition")
    );
    assert_eq!(
        error.decode::<PayError>(),
        Some(PayError::Declined {
            reason: "superstition".into()
        })
    );
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn once(ctx: Ctx<World>, label: String) -> segno::Result<String> {
    let world = ctx.state();
    ctx.step("effect", || async {
        world.note("effect");
        Ok(())
    })
    .await?;
    Ok(label)
}

async fn one_id_is_one_run_and_belongs_to_one_function(place: &Place) {
    let world = World::new();
    let app = place
        .app(&world)
        .workflow("once", once)
        .workflow("greet", greet)
        .launch()
        .await
        .unwrap();
    let starts = (0..20).map(|number| {
        app.run(once, format!("call {number}"))
            .id("same")
            .into_future()
    });
    let results = futures_util::future::join_all(starts).await;
    let first = results[0].as_ref().unwrap();
    assert!(
        results
            .iter()
            .all(|result| result.as_ref().unwrap() == first),
        "{results:?}"
    );
    assert_eq!(world.count("effect"), 1);

    let error = app.run(greet, "Ada".into()).id("same").await.unwrap_err();
    let expected = ErrorKind::WorkflowConflict {
        id: "same".into(),
        holder: "once".into(),
        asked: "greet".into(),
    };
    assert_eq!(*error.kind(), expected);
    let error = app
        .run(WorkflowRef::<u32, u32>::new("nobody"), 1)
        .await
        .unwrap_err();
    assert_eq!(
        *error.kind(),
        ErrorKind::NotRegistered {
            name: "nobody".into()
        }
    );
    let error = app.run(double, 1).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NotRegistered { .. }));
    let error = app.run(once, "x".into()).id(" ").await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Config { .. }));
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

/// Keys of JSON objects are text.
async fn unwritable(ctx: Ctx<World>, (): ()) -> segno::Result<usize> {
    let step = ctx.step("unwritable", || async {
        Ok(std::collections::HashMap::from([((1, 2), 3)]))
    });
    Ok(step.await.map(|map| map.len()).unwrap_or(99))
}

async fn values_that_cannot_be_recorded_fail_the_step(place: &Place) {
    let app = place
        .app(&World::new())
        .workflow("unwritable", unwritable)
        .launch()
        .await
        .unwrap();
    assert_eq!(app.run(unwritable, ()).id("u").await.unwrap(), 99);
    let error = app.steps("u").await.unwrap().remove(0).error.unwrap();
    assert!(
        matches!(error.kind(), ErrorKind::Serialization { .. }),
        "{error:?}"
    );
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn the_wrong_input_sets_the_run_aside(place: &Place) {
    let app = place
        .app(&World::new())
        .workflow("greet", greet)
        .launch()
        .await
        .unwrap();
    let error = within(app.run(WorkflowRef::<u32, String>::new("greet"), 5))
        .await
        .unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Unreadable { what, .. } if what == "the workflow's input"),
        "{error:?}"
    );
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}
