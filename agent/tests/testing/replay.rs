//! Replays of exported runs.

use std::time::Duration;

use segno::{Ctx, Db, ErrorKind, Segno, testing};

async fn order(ctx: Ctx, n: u32) -> segno::Result<u32> {
    let n = ctx.step("price", || async { Ok(n * 100) }).await?;
    ctx.sleep(Duration::from_secs(3600)).await;
    ctx.step("charge", || async { Ok(n + 1) }).await
}

async fn export_of(done: bool) -> String {
    export_from(&testing::database().await.unwrap(), done).await
}

async fn export_from(db: &Db, done: bool) -> String {
    let app = Segno::named("shop").database(db).workflow("order", order);
    let app = testing::launch(app).await.unwrap();
    let run = app.start(order, 7).id("order-7").await.unwrap();
    app.idle().await;
    if done {
        app.advance(Duration::from_secs(3600)).await.unwrap();
        run.await.unwrap();
    }
    app.export("order-7", true).await.unwrap()
}

macro_rules! changed {
    ($name:ident, |$ctx:ident, $n:ident| $body:expr) => {
        async fn $name($ctx: Ctx, $n: u32) -> segno::Result<u32> {
            $body
        }
    };
}

async fn effect() -> segno::Result<u32> {
    panic!("a replay does nothing again")
}

changed!(same, |ctx, _n| {
    let n = ctx.step("price", effect).await?;
    ctx.sleep(Duration::from_secs(60)).await;
    let charged = ctx.step("charge", effect).await?;
    assert_eq!(charged, n + 1);
    Ok(charged)
});
changed!(renamed, |ctx, _n| {
    ctx.step("price", effect).await?;
    ctx.sleep(Duration::from_secs(60)).await;
    ctx.step("charge card", effect).await
});
changed!(more, |ctx, _n| {
    ctx.step("price", effect).await?;
    ctx.sleep(Duration::from_secs(60)).await;
    ctx.step("charge", effect).await?;
    ctx.step("thank", effect).await
});
changed!(fewer, |ctx, _n| ctx.step("price", effect).await);
changed!(other_end, |ctx, _n| {
    ctx.step("price", effect).await?;
    ctx.sleep(Duration::from_secs(60)).await;
    Ok(ctx.step("charge", effect).await? + 1)
});

macro_rules! replay {
    ($export:expr, $function:ident) => {
        testing::replay(Segno::named("shop").workflow("order", $function), $export).await
    };
}

#[tokio::test]
async fn unchanged_code_repeats_a_run_without_doing_anything() {
    let export = export_of(true).await;
    let replayed = replay!(&export, same).unwrap();
    assert_eq!(replayed.len(), 1);
    assert_eq!(
        (
            replayed[0].id.as_str(),
            replayed[0].steps,
            replayed[0].ended
        ),
        ("order-7", 3, true)
    );
}

#[tokio::test]
async fn changed_code_is_told_where_it_differs() {
    let postgres = std::env::var("SEGNO_TEST_POSTGRES_URL").unwrap();
    let db = testing::postgres(&postgres).await.unwrap();
    told_where_it_differs(&export_from(&db, true).await).await;
    testing::drop_schema(&db).await.unwrap();
    let sqlite = testing::database().await.unwrap();
    told_where_it_differs(&export_from(&sqlite, true).await).await;
}

async fn told_where_it_differs(export: &str) {
    let error = replay!(export, renamed).unwrap_err();
    let ErrorKind::Nondeterminism {
        step,
        recorded,
        asked,
        on_record,
        asked_for,
    } = error.kind()
    else {
        panic!("{error}");
    };
    assert_eq!(
        (*step, recorded.as_str(), asked.as_str()),
        (2, "charge", "charge card")
    );
    assert_eq!(on_record, &["0 price", "1 DBOS.sleep", "2 charge"]);
    assert_eq!(asked_for, &["0 price", "1 DBOS.sleep", "2 charge card"]);

    let error = replay!(export, more).unwrap_err();
    let expected = ErrorKind::NotRecorded {
        step: 3,
        asked: "thank".into(),
    };
    assert_eq!(*error.kind(), expected);
    let error = replay!(export, fewer).unwrap_err().to_string();
    assert!(error.contains("the end of the workflow"), "{error}");
    let error = replay!(export, other_end).unwrap_err().to_string();
    assert!(error.contains("702"), "{error}");
}

#[tokio::test]
async fn a_run_that_has_not_ended_is_repeated_as_far_as_it_went() {
    let export = export_of(false).await;
    let replayed = replay!(&export, same).unwrap();
    assert_eq!((replayed[0].steps, replayed[0].ended), (2, false));
    assert!(replay!(&export, more).is_ok());
}
