//! Input that a program cannot work with: what cannot be read, is not known, or is too large. On both databases.

use segno::{Ctx, Db, Error, ErrorKind, Segno, Status, WorkflowRef, testing};

use super::{both, change};

async fn doubles(_: Ctx, n: u32) -> segno::Result<u32> {
    Ok(n * 2)
}

async fn triples(_: Ctx, n: u32) -> segno::Result<u32> {
    Ok(n * 3)
}

async fn counts(ctx: Ctx, _: ()) -> segno::Result<u32> {
    let counted = ctx.step("count", || async { Ok(1) }).await?;
    let more = ctx.recv::<u32>("more").await.unwrap_or(0);
    Ok(counted + more)
}

async fn makes(ctx: Ctx, bytes: usize) -> segno::Result<usize> {
    let made = ctx.step("make", || async { Ok("x".repeat(bytes)) }).await?;
    ctx.set_event("made", &made.len()).await;
    Ok(made.len())
}

fn application(db: &Db) -> segno::Builder {
    Segno::named("t")
        .database(db)
        .workflow("doubles", doubles)
        .workflow("counts", counts)
        .workflow("makes", makes)
}

/// Runs a statement in which `@` stands for the schema.
async fn execute(db: &Db, sql: &str) {
    let sql = sql.replace('@', db.system_database().prefix());
    assert_eq!(change(db, sql.clone()).await, 1, "{sql}");
}

#[tokio::test]
async fn an_input_that_cannot_be_read_is_set_aside_and_kept() {
    for db in both().await {
        let app = testing::launch(application(&db)).await.unwrap();
        let wrong = WorkflowRef::<String, u32>::new("doubles");
        let run = app.start(wrong, "seven".into()).id("run").await.unwrap();
        let error = run.result().await.unwrap_err();
        let ErrorKind::Unreadable { what, message } = error.kind() else {
            panic!("{error}");
        };
        assert_eq!(what, "the workflow's input");
        assert!(message.contains("u32"), "{message}");
        let aside = Status::MaxRecoveryAttemptsExceeded;
        assert_eq!(run.status().await.unwrap(), aside);

        // Somebody puts it right, and it is resumed.
        let right =
            "UPDATE @workflow_input SET inputs = '{\"positionalArgs\":[7],\"namedArgs\":{}}'";
        execute(&db, right).await;
        app.resume("run").await.unwrap();
        let run = app.handle::<u32>("run").await.unwrap();
        assert_eq!(run.await.unwrap(), 14);
        drop(app);
        testing::drop_schema(&db).await.unwrap();
    }
}

#[tokio::test]
async fn a_step_that_cannot_be_read_is_not_done_again() {
    for db in both().await {
        let app = testing::launch(application(&db)).await.unwrap();
        let run = app.start(counts, ()).id("run").await.unwrap();
        app.idle().await;
        let garbled = "UPDATE @operation_outputs SET output = '{garbled' WHERE function_id = 0";
        execute(&db, garbled).await;
        app.crash().await.unwrap();
        let error = run.result().await.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::Unreadable { what, .. } if what == "step `count` at position 0"),
            "{error:?}"
        );
        let steps = app.steps("run").await.unwrap();
        assert_eq!(steps[0].name, "count", "what is on record stays");

        execute(
            &db,
            "UPDATE @operation_outputs SET output = '5' WHERE function_id = 0",
        )
        .await;
        app.resume("run").await.unwrap();
        app.send("run", "more", &1_u32).await.unwrap();
        let run = app.handle::<u32>("run").await.unwrap();
        assert_eq!(
            run.await.unwrap(),
            6,
            "the step's result is the one on record"
        );
        drop(app);
        testing::drop_schema(&db).await.unwrap();
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_read_is_named() {
    for db in both().await {
        let app = testing::launch(application(&db)).await.unwrap();
        let run = app.start(counts, ()).id("run").await.unwrap();
        app.send("run", "more", "not a number").await.unwrap();
        let error = run.result().await.unwrap_err();
        assert!(error.to_string().contains("message on `more`"), "{error}");
        drop(app);
        testing::drop_schema(&db).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_unknown_here_is_an_error_where_it_is_asked_for_and_left_where_it_is_found() {
    for db in both().await {
        let app = testing::launch(application(&db)).await.unwrap();
        let unknown = WorkflowRef::<u32, u32>::new("unknown");
        let error = app.start(unknown, 1).await.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::NotRegistered { name } if name == "unknown"),
            "{error:?}"
        );
        // For others: they may know it.
        let unknown = WorkflowRef::<u32, u32>::new("unknown");
        let queued = app
            .start(unknown, 1)
            .queue("_dbos_internal_queue")
            .await
            .unwrap();
        let known = app
            .start(doubles, 2)
            .queue("_dbos_internal_queue")
            .await
            .unwrap();
        assert_eq!(known.await.unwrap(), 4);
        assert_eq!(queued.status().await.unwrap(), Status::Enqueued);
        let error = app.handle::<u32>("nobody").await.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::NotFound { .. }),
            "{error:?}"
        );
        drop(app);
        testing::drop_schema(&db).await.unwrap();
    }
}

#[tokio::test]
async fn a_payload_over_the_limit_is_refused_by_name() {
    for db in both().await {
        let app = application(&db).max_payload_bytes(1000);
        let app = testing::launch(app).await.unwrap();
        let too_large = |error: &Error| match error.kind() {
            ErrorKind::PayloadTooLarge {
                what,
                bytes,
                limit: 1000,
            } => (what.clone(), *bytes),
            _ => panic!("{error:?}"),
        };
        let long = WorkflowRef::<String, u32>::new("doubles");
        let error = app.start(long, "x".repeat(2000)).await.unwrap_err();
        assert_eq!(too_large(&error).0, "input of workflow `doubles`");
        assert!(
            app.workflows().await.unwrap().is_empty(),
            "nothing was started"
        );
        let error = app.run(makes, 1200).id("long").await.unwrap_err();
        assert_eq!(
            too_large(&error),
            ("output of step `make`".to_owned(), 1202)
        );
        let recorded = app.steps("long").await.unwrap();
        assert!(
            recorded[0].error.is_some(),
            "the step is on record as failed: {recorded:?}"
        );
        assert_eq!(app.run(makes, 900).await.unwrap(), 900);
        drop(app);
        testing::drop_schema(&db).await.unwrap();
    }
}

async fn names(ctx: Ctx, name: String) -> segno::Result<u32> {
    ctx.step(name, || async { Ok(1) }).await
}

/// Postgres cannot store a zero in a text, SQLite can: of those that write at the same time, one is refused.
#[tokio::test]
async fn text_that_the_database_cannot_store_fails_only_whoever_wrote_it() {
    for db in both().await {
        let app = application(&db).workflow("names", names);
        let app = testing::launch(app).await.unwrap();
        let run = |name: &str| app.run(names, name.to_owned()).into_future();
        let (before, zero, after) = tokio::join!(run("before"), run("ze\0ro"), run("after"));
        assert_eq!((before.unwrap(), after.unwrap()), (1, 1));
        let started = app.start(names, "named".into()).id("ze\0ro").await;
        if db.is_sqlite() {
            assert_eq!((zero.unwrap(), started.is_ok()), (1, true));
        } else {
            for error in [zero.unwrap_err(), started.unwrap_err()] {
                let ErrorKind::Database { message } = error.kind() else {
                    panic!("{error:?}");
                };
                assert!(message.contains("0x00"), "{message}");
            }
        }
        drop(app);
        testing::drop_schema(&db).await.unwrap();
    }
}

/// A run that somebody else wrote, in some format.
async fn written_elsewhere(db: &Db, id: &str, status: &str, name: &str, format: &str, input: &str) {
    let run = format!(
        "INSERT INTO @workflow_status (workflow_uuid, status, name, queue_name, executor_id, application_version, \
         application_name, serialization) \
         VALUES ('{id}', '{status}', '{name}', '_dbos_internal_queue', 'test', 'test', 't', '{format}')"
    );
    execute(db, &run).await;
    let input = format!(
        "INSERT INTO @workflow_input (workflow_uuid, inputs, retention_timestamp) VALUES ('{id}', '{input}', 0)"
    );
    execute(db, &input).await;
}

#[tokio::test]
async fn a_format_of_another_language_is_named() {
    for db in both().await {
        let app = testing::launch(application(&db)).await.unwrap();
        written_elsewhere(
            &db,
            "pickled",
            "ENQUEUED",
            "doubles",
            "py_pickle",
            "gASVBwAA",
        )
        .await;
        app.wake();
        let error = app
            .handle::<u32>("pickled")
            .await
            .unwrap()
            .await
            .unwrap_err();
        let ErrorKind::Unreadable { what, message } = error.kind() else {
            panic!("{error:?}");
        };
        assert_eq!(what, "the workflow's input");
        assert!(message.contains("py_pickle"), "{message}");
        assert_eq!(app.run(doubles, 4).await.unwrap(), 8);
        drop(app);
        testing::drop_schema(&db).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_pending_and_not_known_here_is_left_for_a_program_that_knows_it() {
    for db in both().await {
        let app = testing::launch(application(&db)).await.unwrap();
        let input = "{\"positionalArgs\":[7],\"namedArgs\":{}}";
        written_elsewhere(&db, "left", "PENDING", "unknown", "portable_json", input).await;
        app.crash().await.unwrap();
        assert_eq!(app.run(doubles, 4).await.unwrap(), 8);
        app.idle().await;
        let left = app.handle::<u32>("left").await.unwrap();
        assert!(left.status().await.unwrap().is_active());
        drop(app);
        let knows = application(&db).workflow("unknown", triples);
        let knows = testing::launch(knows).await.unwrap();
        assert_eq!(
            knows.handle::<u32>("left").await.unwrap().await.unwrap(),
            21
        );
        drop(knows);
        testing::drop_schema(&db).await.unwrap();
    }
}
