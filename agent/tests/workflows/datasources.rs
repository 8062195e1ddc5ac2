//! Transactions in another database than the system database.

use std::time::Duration;

use segno::{Ctx, Datasource, Db, Error, Result, TransactionKey, TransactionRecord, Tx};

use super::support::{Place, World, recorded, within};

on_both!(
    a_transaction_elsewhere_happens_exactly_once,
    of_two_executors_one_transaction_counts,
    a_transaction_that_fails_leaves_its_error_and_nothing_else,
    what_is_no_datasource_is_refused_and_says_why,
    old_records_are_forgotten,
);

/// A datasource of one's own: another database behind the engine's, whose workflows a world watches.
struct Watched {
    db: Db,
    world: World,
}

impl Datasource for Watched {
    type Tx = Tx<'static>;

    async fn begin(&self) -> Result<Tx<'static>> {
        self.world.note("begin");
        self.world.pass("begin").await;
        self.db.begin().await
    }

    async fn commit(&self, tx: Tx<'static>) -> Result<()> {
        self.db.commit(tx).await?;
        self.world.note("committed");
        self.world.pass("committed").await;
        Ok(())
    }

    async fn rollback(&self, tx: Tx<'static>) {
        self.db.rollback(tx).await;
    }

    async fn find(&self, key: &TransactionKey) -> Result<Option<TransactionRecord>> {
        self.db.find(key).await
    }

    async fn insert(
        &self,
        tx: &mut Tx<'static>,
        key: &TransactionKey,
        record: &TransactionRecord,
    ) -> Result<bool> {
        self.db.insert(tx, key, record).await
    }

    fn is_transient(&self, error: &Error) -> bool {
        self.db.is_transient(error)
    }
}

/// Another database of the same kind, with a table of the application.
async fn elsewhere(place: &Place) -> Place {
    let other = if place.db.is_sqlite() {
        Place::sqlite().await
    } else {
        Place::postgres().await
    };
    other
        .execute("CREATE TABLE orders (id BIGINT NOT NULL)")
        .await;
    other
}

async fn order(ctx: Ctx<World>, id: i64) -> segno::Result<i64> {
    let source = Watched {
        db: ctx.state().db().clone(),
        world: ctx.state().clone(),
    };
    ctx.transaction_in(&source, "order", |tx| {
        Box::pin(async move {
            let insert = tx.query("INSERT INTO orders (id) VALUES ($1)").bind(id);
            insert.execute().await?;
            if id < 0 {
                return Err(Error::message("there is no such article"));
            }
            Ok(id * 2)
        })
    })
    .await
}

const COUNT: &str = "SELECT COUNT(*) FROM orders";

async fn a_transaction_elsewhere_happens_exactly_once(place: &Place) {
    let other = elsewhere(place).await;
    let db = Db::connect_datasource(&other.url).await.unwrap();
    let before = World::with_db(&db);
    before.open("begin");
    let crashing = place.app(&before).workflow("order", order).launch();
    let crashing = crashing.await.unwrap();
    crashing.start(order, 21).id("run").await.unwrap();
    // The transaction is committed, its checkpoint is not.
    before.saw("committed").await;
    crashing.abort().await;
    assert_eq!(other.number(COUNT).await, 1);

    let after = World::with_db(&db);
    let app = place.app(&after).workflow("order", order).launch();
    let app = app.await.unwrap();
    let run = app.handle::<i64>("run").await.unwrap();
    assert_eq!(within(run).await.unwrap(), 42);
    assert_eq!(after.effects(), Vec::<String>::new());
    assert_eq!(other.number(COUNT).await, 1);
    assert_eq!(recorded(&app, "run").await, ["order"]);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
    other.drop().await;
}

/// An executor that was taken for dead comes to the transaction together with its successor.
async fn of_two_executors_one_transaction_counts(place: &Place) {
    let other = elsewhere(place).await;
    let db = Db::connect_datasource(&other.url).await.unwrap();
    let world = World::with_db(&db);
    let app = place.app(&world).workflow("order", order).launch();
    let app = app.await.unwrap();
    let run = app.start(order, 21).id("run").await.unwrap();
    world.saw("begin").await;
    let key = TransactionKey {
        workflow_id: "run".to_owned(),
        step: 0,
    };
    let theirs = TransactionRecord {
        output: Some("99".to_owned()),
        error: None,
        serialization: Some("portable_json".to_owned()),
    };
    let mut tx = db.begin().await.unwrap();
    assert!(db.insert(&mut tx, &key, &theirs).await.unwrap());
    db.commit(tx).await.unwrap();
    world.open("begin");
    assert_eq!(within(run).await.unwrap(), 99);
    assert_eq!(other.number(COUNT).await, 0);
    assert_eq!(world.count("committed"), 0);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
    other.drop().await;
}

async fn a_transaction_that_fails_leaves_its_error_and_nothing_else(place: &Place) {
    let other = elsewhere(place).await;
    let db = Db::connect_datasource(&other.url).await.unwrap();
    let world = World::with_db(&db);
    world.open("begin");
    let app = place.app(&world).workflow("order", order).launch();
    let app = app.await.unwrap();
    app.start(order, -1).id("run").await.unwrap();
    world.saw("committed").await;
    app.abort().await;

    let after = World::with_db(&db);
    let app = place.app(&after).workflow("order", order).launch();
    let app = app.await.unwrap();
    let run = app.handle::<i64>("run").await.unwrap();
    let error = within(run).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no such article");
    assert_eq!(after.effects(), Vec::<String>::new());
    assert_eq!(other.number(COUNT).await, 0);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
    other.drop().await;
}

async fn what_is_no_datasource_is_refused_and_says_why(place: &Place) {
    let other = elsewhere(place).await;
    let world = World::with_db(&other.db);
    world.open("begin");
    world.open("committed");
    let app = place.app(&world).workflow("order", order).launch();
    let app = app.await.unwrap();
    let error = within(app.run(order, 1)).await.unwrap_err().to_string();
    assert!(error.contains("connect_datasource"), "{error}");
    app.shutdown(Duration::from_secs(5)).await.unwrap();
    other.drop().await;
}

async fn old_records_are_forgotten(place: &Place) {
    let other = elsewhere(place).await;
    let db = Db::connect_datasource(&other.url).await.unwrap();
    let world = World::with_db(&db);
    world.open("begin");
    world.open("committed");
    let app = place.app(&world).workflow("order", order).launch();
    let app = app.await.unwrap();
    assert_eq!(within(app.run(order, 1)).await.unwrap(), 2);
    let hour = Duration::from_secs(3600);
    assert_eq!(db.forget_transactions(hour).await.unwrap(), 0);
    let table = if db.is_sqlite() { "" } else { "dbos." };
    let age = format!("UPDATE {table}datasource_outputs SET created_at = created_at - 7200000");
    other.execute(&age).await;
    assert_eq!(db.forget_transactions(hour).await.unwrap(), 1);
    // A second connection finds the table made already.
    Db::connect_datasource(&other.url).await.unwrap();
    app.shutdown(Duration::from_secs(5)).await.unwrap();
    other.drop().await;
}
