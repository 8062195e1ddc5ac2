//! What happens to payloads: codecs, limits, and records that a program cannot read.
#![allow(clippy::unwrap_used)]

mod database_support;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::future::BoxFuture;
use segno::{Client, Codec, Ctx, Db, Error, ErrorKind, Segno, Status, WorkflowRef, testing};

crate::on_both_test_databases!(
    a_codec_encodes_every_payload_and_a_recovered_run_reads_them,
    a_run_that_a_program_cannot_decode_waits_for_one_that_can,
    an_input_of_another_shape_sets_the_run_aside,
    what_is_too_large_is_refused_by_name,
    a_role_is_required_of_the_user,
    a_workflow_debounces,
);

/// Stands for a cipher.
struct Base64;

impl Codec for Base64 {
    fn name(&self) -> &str {
        "base64"
    }

    fn encode(&self, json: String) -> BoxFuture<'_, segno::Result<String>> {
        Box::pin(async move { Ok(BASE64.encode(json)) })
    }

    fn decode(&self, encoded: String) -> BoxFuture<'_, segno::Result<String>> {
        Box::pin(async move { Ok(String::from_utf8(BASE64.decode(encoded)?)?) })
    }
}

const SECRET: &str = "swordfish";

async fn keeps_secrets(ctx: Ctx, secret: String) -> segno::Result<String> {
    let stepped = ctx.step("step", || async { Ok(secret.clone()) }).await?;
    ctx.set_event("event", &secret).await;
    ctx.write_stream("stream", &secret).await;
    ctx.send(ctx.workflow_id(), "topic", &secret).await?;
    let received = ctx.recv::<String>("topic").await;
    let failed = ctx
        .step("fails", || async { Err::<(), _>(Error::message(&secret)) })
        .await;
    assert_eq!(received.as_deref(), Some(&*stepped));
    assert_eq!(failed.unwrap_err().to_string(), secret);
    ctx.sleep(Duration::from_secs(3600)).await;
    Ok(stepped)
}

/// All text in the database that could hold a payload.
async fn everything(db: &Db) -> String {
    let mut all = String::new();
    for query in [
        "SELECT COALESCE(inputs, '') FROM workflow_input",
        "SELECT COALESCE(output, '') || COALESCE(error, '') FROM workflow_output",
        "SELECT COALESCE(output, '') || COALESCE(error, '') FROM operation_outputs",
        "SELECT message FROM notifications",
        "SELECT value FROM workflow_events",
        "SELECT value FROM workflow_events_history",
        "SELECT value FROM streams",
    ] {
        let rows = db.transaction(|tx| {
            Box::pin(async move { Ok(tx.query(query).fetch_all::<(String,)>().await?) })
        });
        for (text,) in rows.await.unwrap() {
            all.push_str(&text);
            all.push('\n');
        }
    }
    all
}

fn application(db: &Db) -> segno::Builder<segno::NoAppState> {
    Segno::named("vault")
        .database(db)
        .workflow("keeps secrets", keeps_secrets)
}

async fn a_codec_encodes_every_payload_and_a_recovered_run_reads_them(db: Db) {
    let app = testing::launch(application(&db).codec(Base64))
        .await
        .unwrap();
    let run = app
        .start(keeps_secrets, SECRET.into())
        .id("run")
        .await
        .unwrap();
    app.idle().await;
    app.crash().await.unwrap();
    app.advance(Duration::from_secs(3600)).await.unwrap();
    assert_eq!(run.result().await.unwrap(), SECRET);
    let event: Option<String> = app.get_event("run", "event").await.unwrap();
    assert_eq!(event.as_deref(), Some(SECRET));
    assert_eq!(run.steps().await.unwrap()[0].output, Some(SECRET.into()));

    let stored = everything(&db).await;
    assert!(!stored.contains(SECRET), "{stored}");
    assert!(
        stored.matches("\"segno_codec\":\"base64\"").count() >= 7,
        "{stored}"
    );

    // Who has the codec can read it, who has not is told what is missing.
    let with = Client::on(&db).await.unwrap().codec(Base64);
    assert_eq!(
        with.handle::<String>("run").await.unwrap().await.unwrap(),
        SECRET
    );
    let without = Client::on(&db).await.unwrap();
    let error = without
        .handle::<String>("run")
        .await
        .unwrap()
        .await
        .unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Serialization { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("codec `base64`"), "{error}");
}

async fn a_run_that_a_program_cannot_decode_waits_for_one_that_can(db: Db) {
    let app = testing::launch(application(&db).codec(Base64))
        .await
        .unwrap();
    app.start(keeps_secrets, SECRET.into())
        .id("run")
        .await
        .unwrap();
    app.idle().await;
    drop(app);

    let app = testing::launch(application(&db)).await.unwrap();
    let error = app
        .handle::<String>("run")
        .await
        .unwrap()
        .await
        .unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Unreadable { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("codec `base64`"), "{error}");
    drop(app);

    let app = testing::launch(application(&db).codec(Base64))
        .await
        .unwrap();
    app.resume("run").await.unwrap();
    app.advance(Duration::from_secs(3600)).await.unwrap();
    assert_eq!(
        app.handle::<String>("run").await.unwrap().await.unwrap(),
        SECRET
    );
}

async fn doubles(_: Ctx, n: u32) -> segno::Result<u32> {
    Ok(n * 2)
}

async fn an_input_of_another_shape_sets_the_run_aside(db: Db) {
    let app = Segno::named("t").database(&db).workflow("doubles", doubles);
    let app = testing::launch(app).await.unwrap();
    let wrong = WorkflowRef::<String, u32>::new("doubles");
    let run = app.start(wrong, "seven".into()).await.unwrap();
    let error = run.result().await.unwrap_err();
    let ErrorKind::Unreadable { what, message } = error.kind() else {
        panic!("{error}");
    };
    assert_eq!(what, "the workflow's input");
    assert!(message.contains("u32"), "{message}");
    assert_eq!(
        run.status().await.unwrap(),
        Status::MaxRecoveryAttemptsExceeded
    );
    let row = &app.workflows().with_payloads().await.unwrap()[0];
    assert!(
        row.input.as_ref().unwrap().to_string().contains("seven"),
        "it is still there"
    );
}

async fn makes(ctx: Ctx, bytes: usize) -> segno::Result<String> {
    let text = ctx.step("make", || async { Ok("x".repeat(bytes)) }).await?;
    Ok(text.repeat(2))
}

async fn what_is_too_large_is_refused_by_name(db: Db) {
    let app = Segno::named("t")
        .database(&db)
        .workflow("makes", makes)
        .workflow("doubles", doubles)
        .max_payload_bytes(1000);
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

    let error = app.run(makes, 1200).await.unwrap_err();
    assert_eq!(
        too_large(&error),
        ("output of step `make`".to_owned(), 1202)
    );
    let error = app.run(makes, 600).id("result").await.unwrap_err();
    assert_eq!(
        too_large(&error),
        ("result of workflow `result`".to_owned(), 1202)
    );
    assert_eq!(app.run(makes, 100).await.unwrap().len(), 200);
    let error = app
        .send("result", "topic", &"x".repeat(2000))
        .await
        .unwrap_err();
    assert_eq!(too_large(&error).0, "message to `result`");
}

async fn refund(ctx: Ctx, _: ()) -> segno::Result<String> {
    ctx.require_role("support")?;
    Ok(ctx.authenticated_user().unwrap_or_default().to_owned())
}

async fn a_role_is_required_of_the_user(db: Db) {
    let app = testing::launch(Segno::named("t").database(&db).workflow("refund", refund))
        .await
        .unwrap();
    let by = |user: &str, roles: &[&str]| {
        app.start(refund, ())
            .authenticated_as(user, roles.iter().copied())
    };
    assert_eq!(by("ada", &["support"]).await.unwrap().await.unwrap(), "ada");
    let expected = |user: Option<&str>| ErrorKind::NotAuthorized {
        role: "support".into(),
        user: user.map(Into::into),
    };
    let error = by("bob", &["sales"]).await.unwrap().await.unwrap_err();
    assert_eq!(*error.kind(), expected(Some("bob")));
    let error = app.run(refund, ()).await.unwrap_err();
    assert_eq!(*error.kind(), expected(None));
}

async fn indexes(ctx: Ctx, text: String) -> segno::Result<String> {
    Ok(format!("{}: {text}", ctx.workflow_id().len() > 1))
}

async fn edits(ctx: Ctx, texts: Vec<String>) -> segno::Result<String> {
    let indexing = ctx.debouncer(indexes);
    let mut last = None;
    for text in texts {
        last = Some(
            indexing
                .debounce("document", Duration::from_secs(60), text)
                .await?,
        );
    }
    last.unwrap().result().await
}

fn editor() -> segno::Builder<segno::NoAppState> {
    let app = Segno::named("t").workflow("indexes", indexes);
    app.workflow("edits", edits)
}

fn texts() -> Vec<String> {
    ["a", "ab", "abc"].map(str::to_owned).into()
}

async fn a_workflow_debounces(db: Db) {
    let app = testing::launch(editor().database(&db)).await.unwrap();
    let run = app.start(edits, texts()).await.unwrap();
    app.advance(Duration::from_secs(3600)).await.unwrap();
    assert_eq!(run.result().await.unwrap(), "true: abc");
    assert_eq!(app.workflows().name("indexes").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_workflow_that_debounces_survives_any_crash() {
    let last = testing::crash_everywhere(editor, edits, texts());
    assert_eq!(last.await.unwrap(), "true: abc");
}
