//! Undoing what succeeded when a workflow fails.

use std::time::Duration;

use segno::{Ctx, Error};

use super::support::{Place, World, recorded, within};

on_both!(
    what_succeeded_is_undone_in_reverse,
    undoing_goes_on_after_a_crash,
);

/// Books one thing after the other until one is not to be had.
async fn travel(ctx: Ctx<World>, failing: String) -> segno::Result<()> {
    for thing in ["flight", "hotel", "car"] {
        let world = ctx.state().clone();
        ctx.step(format!("book {thing}"), || async {
            if *thing == failing {
                return Err(Error::message(format!("no {thing}")));
            }
            world.note(format!("book {thing}"));
            Ok(())
        })
        .await?;
        ctx.compensate(format!("cancel {thing}"), move || {
            let world = world.clone();
            async move {
                world.note(format!("cancel {thing}"));
                world.pass(&format!("cancel {thing}")).await;
                Ok(())
            }
        });
    }
    Ok(())
}

async fn what_succeeded_is_undone_in_reverse(place: &Place) {
    let world = World::new();
    for thing in ["flight", "hotel", "car"] {
        world.open(&format!("cancel {thing}"));
    }
    let app = place.app(&world).workflow("travel", travel).launch();
    let app = app.await.unwrap();
    within(app.run(travel, "nothing".to_owned())).await.unwrap();
    assert_eq!(world.effects(), ["book flight", "book hotel", "book car"]);

    let run = app.run(travel, "car".to_owned()).id("failed");
    assert_eq!(within(run).await.unwrap_err().to_string(), "no car");
    assert_eq!(
        world.effects()[3..],
        ["book flight", "book hotel", "cancel hotel", "cancel flight"]
    );
    assert_eq!(
        recorded(&app, "failed").await,
        [
            "book flight",
            "book hotel",
            "book car",
            "cancel hotel",
            "cancel flight"
        ]
    );
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}

async fn undoing_goes_on_after_a_crash(place: &Place) {
    let before = World::new();
    before.open("cancel hotel");
    let crashing = place.app(&before).workflow("travel", travel).launch();
    let crashing = crashing.await.unwrap();
    let run = crashing.start(travel, "car".to_owned()).id("run");
    run.await.unwrap();
    before.saw("cancel flight").await;
    crashing.abort().await;

    let after = World::new();
    after.open("cancel flight");
    let app = place.app(&after).workflow("travel", travel).launch();
    let app = app.await.unwrap();
    let run = app.handle::<()>("run").await.unwrap();
    assert_eq!(within(run).await.unwrap_err().to_string(), "no car");
    assert_eq!(after.effects(), ["cancel flight"]);
    app.shutdown(Duration::from_secs(5)).await.unwrap();
}
