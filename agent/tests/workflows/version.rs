//! The version that is computed when none is given.

use segno::{Builder, Ctx, NoAppState, Segno};

use super::support::Place;

on_both!(the_version_changes_with_the_code_of_workflows_and_with_nothing_else);

mod original {
    use segno::Ctx;

    #[segno::workflow]
    pub async fn greet(ctx: Ctx, name: String) -> segno::Result<String> {
        ctx.step("greet", || async { Ok(format!("Hello, {name}")) })
            .await
    }
}

mod commented {
    use segno::Ctx;

    /// Says hello.
    #[segno::workflow]
    pub async fn greet(ctx: Ctx, name: String) -> segno::Result<String> {
        // Politely.
        ctx.step("greet", || async { Ok(format!("Hello, {name}")) })
            .await
    }
}

mod changed {
    use segno::Ctx;

    #[segno::workflow(name = "greet")]
    pub async fn salute(ctx: Ctx, name: String) -> segno::Result<String> {
        ctx.step("greet", || async { Ok(format!("Good day, {name}")) })
            .await
    }
}

async fn plain(_: Ctx, name: String) -> segno::Result<String> {
    Ok(name)
}

async fn the_version_changes_with_the_code_of_workflows_and_with_nothing_else(place: &Place) {
    let version = async |builder: Builder<NoAppState>| {
        let app = builder.database_url(&place.url).launch().await.unwrap();
        let version = app.app_version().to_owned();
        app.abort().await;
        version
    };
    let shop = || Segno::named("shop");
    let first = version(shop().workflows(segno::workflows![original::greet])).await;
    let again = version(shop().workflows(segno::workflows![commented::greet])).await;
    assert_eq!(first, again, "a comment is no change");
    assert_eq!(changed::salute::NAME, "greet");
    let changed = version(shop().workflows(segno::workflows![changed::salute])).await;
    assert_ne!(first, changed);
    let other = version(Segno::named("bakery").workflows(segno::workflows![original::greet])).await;
    assert_ne!(first, other, "versions of two applications never collide");
    let more = shop()
        .workflows(segno::workflows![original::greet])
        .workflow("plain", plain);
    assert_ne!(first, version(more).await);
}
