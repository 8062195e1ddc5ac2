//! A process that runs nothing itself.

use std::time::Duration;

use segno::{Client, Ctx, ErrorKind, Queue, Status, WorkflowRef};

use super::support::{Place, World, eventually, within};

on_both!(
    a_client_starts_sends_waits_and_manages,
    a_client_without_a_name_sees_every_application,
);

const ORDER: WorkflowRef<u32, u32> = WorkflowRef::new("order");

async fn order(ctx: Ctx<World>, number: u32) -> segno::Result<u32> {
    ctx.set_event("number", &number).await;
    let more: Option<u32> = ctx.recv("more").timeout(Duration::from_secs(3600)).await;
    Ok(number + more.unwrap_or_default())
}

async fn a_client_starts_sends_waits_and_manages(place: &Place) {
    assert!(
        Client::connect(&place.url).await.is_err(),
        "there are no tables yet"
    );
    let app = place.app(&World::new()).workflow("order", order);
    let app = app.queue(Queue::new("orders")).launch().await.unwrap();
    let client = Client::connect(&place.url)
        .await
        .unwrap()
        .application("test-app");

    let run = client
        .start(ORDER, 1)
        .id("run")
        .queue("orders")
        .await
        .unwrap();
    let number = client.get_event::<u32>("run", "number").await.unwrap();
    assert_eq!(number, Some(1));
    client.send("run", "more", &2).await.unwrap();
    assert_eq!(within(run).await.unwrap(), 3);
    let listed = client.workflows().name("order").await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].app_version.as_deref(), Some("v1"));
    assert_eq!(listed[0].executor_id.as_deref(), Some("one"));

    let other = client
        .start(ORDER, 1)
        .id("other")
        .queue("orders")
        .await
        .unwrap();
    eventually("it runs", || async {
        other.status().await.unwrap() == Status::Pending
    })
    .await;
    assert_eq!(client.cancel("other").await.unwrap(), 1);
    let error = within(other).await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Cancelled { .. }),
        "{error}"
    );

    let error = client.start(ORDER, 1).await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::NotRegistered { .. }),
        "{error}"
    );
    let waits = client.start(ORDER, 1).queue("nobody").await.unwrap();
    let waits = tokio::spawn(waits.result());
    client.close().await;
    assert!(within(waits).await.unwrap().is_err());
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn a_client_without_a_name_sees_every_application(place: &Place) {
    let app = place.app(&World::new()).workflow("order", order);
    let app = app.queue(Queue::new("orders")).launch().await.unwrap();
    let client = Client::connect(&place.url).await.unwrap();
    let start = client.start(ORDER, 1).id("run").queue("orders");
    let run = start.application("test-app").await.unwrap();
    client.send("run", "more", &2).await.unwrap();
    assert_eq!(within(run).await.unwrap(), 3);
    assert_eq!(client.workflows().await.unwrap().len(), 1);
    client.close().await;
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}
