//! Organizations, their members and roles.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::Database;
use crate::users::World;

#[tokio::test]
async fn members_are_listed_and_removed() {
    for world in World::each().await {
        world.found("ann", "acme").await;
        world.invite("ann", "acme", "bob").await;
        let list = world
            .get("bob", "/v2/orgs/acme/members")
            .await
            .expect(200)
            .json;
        assert_eq!(list["orgName"], "acme");
        let users = list["users"].as_object().unwrap();
        assert_eq!(users.keys().collect::<Vec<_>>(), ["ann", "bob"]);
        assert_eq!(users["ann"]["name"], "organization_admin");

        let bob = "/v2/orgs/acme/members/bob";
        world
            .call("bob", Method::DELETE, bob, None)
            .await
            .problem(403);
        let denied = world.last_entry("ann", "acme").await;
        assert_eq!(
            (
                &denied["operation"],
                &denied["status"],
                &denied["subject"]["display"]
            ),
            (
                &json!("user.remove"),
                &json!("failure"),
                &json!("bob@example.com")
            )
        );
        let removed = world
            .call("ann", Method::DELETE, bob, None)
            .await
            .expect(200);
        assert_eq!(removed.json["name"], "bob");
        assert_eq!(removed.json["email"], "bob@example.com");
        assert_eq!(removed.json["givenName"], "");
        world
            .call("ann", Method::DELETE, bob, None)
            .await
            .problem(404);
        world.get("bob", "/v2/users/me").await.problem(404);
        world.get("bob", "/v2/orgs/acme/apps").await.problem(403);
        world
            .call("ann", Method::DELETE, "/v2/orgs/acme/members/ann", None)
            .await
            .problem(409);
    }
}

#[tokio::test]
async fn an_organization_can_be_renamed() {
    for world in World::each().await {
        world.found("ann", "acme").await;
        world.found("bob", "bank").await;
        let patch = |body: Value| world.call("ann", Method::PATCH, "/v2/orgs/acme", Some(body));
        assert_eq!(
            patch(json!({"auditLogRetentionDays": 6, "newName": "A"}))
                .await
                .faults(422)
                .len(),
            3
        );
        patch(json!({"newName": "bank"})).await.problem(409);
        patch(json!({"newName": "local"})).await.problem(409);
        patch(json!({})).await.expect(204);
        let key = world
            .post(
                "ann",
                "/v2/orgs/acme/tokens/ci",
                json!({"permissions": ["application.read"]}),
            )
            .await
            .expect(201);
        patch(json!({"newName": "apex", "auditLogRetentionDays": 7}))
            .await
            .expect(204);
        world.get("ann", "/v2/orgs/acme").await.problem(404);
        let org = world.get("ann", "/v2/orgs/apex").await.expect(200).json;
        assert_eq!(org["auditLogRetentionDays"], 7);
        let key = key.json["token"].as_str().unwrap();
        world
            .server
            .get_with(key, "/v2/orgs/apex/apps")
            .await
            .expect(200);
        world
            .server
            .get_with(key, "/v2/orgs/acme/apps")
            .await
            .problem(404);
        let entry = world.last_entry("ann", "apex").await;
        assert_eq!(
            (&entry["operation"], &entry["details"]),
            (
                &json!("organization.update"),
                &json!({"new_name": "apex", "audit_log_retention_days": 7})
            )
        );
        assert_eq!(entry["target"]["type"], "organization");
    }
}

#[tokio::test]
async fn roles_are_made_granted_and_deleted() {
    for world in World::each().await {
        world.found("ann", "acme").await;
        world.invite("ann", "acme", "bob").await;
        let roles = "/v2/orgs/acme/roles";
        let listed = world.get("bob", roles).await.expect(200).json;
        let names: Vec<&str> = listed
            .as_array()
            .unwrap()
            .iter()
            .map(|role| role["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["organization_admin", "organization_member"]);

        let viewer = json!({"name": "Viewer", "permissions": ["application.read"]});
        world.post("bob", roles, viewer.clone()).await.problem(403);
        let made = world.post("ann", roles, viewer.clone()).await.expect(201);
        assert_eq!(made.headers["location"], "/v2/orgs/acme/roles/Viewer");
        assert_eq!(made.json["permissions"], json!(["application.read"]));
        let entry = world.last_entry("ann", "acme").await;
        assert_eq!(
            (&entry["operation"], &entry["target"], &entry["details"]),
            (
                &json!("role.create"),
                &json!({"type": "role", "id": "Viewer"}),
                &json!({"permissions": ["application.read"]})
            )
        );
        world.post("ann", roles, viewer).await.problem(409);
        let built_in = json!({"name": "organization_admin", "permissions": []});
        world.post("ann", roles, built_in).await.problem(409);
        let unknown = json!({"name": "odd", "permissions": ["application.admin"]});
        world.post("ann", roles, unknown).await.problem(400);
        let empty = json!({"name": "nothing", "permissions": null});
        world.post("ann", roles, empty).await.expect(201);

        world
            .grant("ann", "acme", "bob", "Viewer")
            .await
            .expect(204);
        let entry = world.last_entry("ann", "acme").await;
        assert_eq!(
            (
                &entry["operation"],
                &entry["target"]["id"],
                &entry["details"]
            ),
            (
                &json!("role.grant"),
                &json!("bob"),
                &json!({"role_name": "Viewer"})
            )
        );
        let bob = world.get("bob", "/v2/users/me").await.expect(200).json;
        assert_eq!(
            bob["role"],
            json!({"isGlobal": false, "name": "Viewer", "permissions": ["application.read"]})
        );
        world.get("bob", "/v2/orgs/acme/apps").await.expect(200);
        world.get("bob", roles).await.problem(403);
        let app = "/v2/orgs/acme/apps/shop";
        world
            .call("bob", Method::PUT, app, Some(json!({})))
            .await
            .problem(403);

        let delete = |role: &str| {
            let path = format!("{roles}/{role}");
            let world = &world;
            async move { world.call("ann", Method::DELETE, &path, None).await }
        };
        delete("Viewer").await.problem(409);
        delete("organization_member").await.problem(403);
        delete("nobody").await.problem(404);
        delete("nothing").await.expect(204);
        world
            .grant("ann", "acme", "bob", "organization_member")
            .await
            .expect(204);
        delete("Viewer").await.expect(204);
        world
            .grant("ann", "acme", "bob", "Viewer")
            .await
            .problem(404);
        world
            .grant("ann", "acme", "nobody", "organization_member")
            .await
            .problem(404);
    }
}

/// Whoever may change the organization cannot give away what they lack.
#[tokio::test]
async fn nobody_gives_what_they_lack() {
    let world = World::on(Database::sqlite()).await;
    world.found("ann", "acme").await;
    world.invite("ann", "acme", "bob").await;
    world.invite("ann", "acme", "cat").await;
    let roles = "/v2/orgs/acme/roles";
    let clerk =
        json!({"name": "clerk", "permissions": ["organization.read", "organization.write"]});
    world.post("ann", roles, clerk).await.expect(201);
    world.grant("ann", "acme", "bob", "clerk").await.expect(204);
    let wider = json!({"name": "wider", "permissions": ["organization.read", "application.write"]});
    world.post("bob", roles, wider).await.problem(403);
    for role in ["organization_admin", "organization_member"] {
        world.grant("bob", "acme", "bob", role).await.problem(403);
        world.grant("bob", "acme", "cat", role).await.problem(403);
    }
    let narrower = json!({"name": "narrower", "permissions": ["organization.read"]});
    world.post("bob", roles, narrower).await.expect(201);
    world
        .grant("bob", "acme", "cat", "narrower")
        .await
        .expect(204);
    // A key has no role to give either.
    world.get("cat", "/v2/orgs/acme/tokens").await.problem(403);
}

#[tokio::test]
async fn an_organization_keeps_an_administrator() {
    for world in World::each().await {
        world.found("ann", "acme").await;
        world
            .grant("ann", "acme", "ann", "organization_member")
            .await
            .problem(409);
        world
            .grant("ann", "acme", "ann", "organization_admin")
            .await
            .expect(204);
        // Two administrators who remove each other at once, and two who both step down.
        for round in 0..4 {
            let other = format!("other{round}");
            world.invite("ann", "acme", &other).await;
            world
                .grant("ann", "acme", &other, "organization_admin")
                .await
                .expect(204);
            if round % 2 == 0 {
                let (one, two) = tokio::join!(
                    world.grant("ann", "acme", &other, "organization_member"),
                    world.grant(&other, "acme", "ann", "organization_member")
                );
                let won = [one, two]
                    .iter()
                    .filter(|answer| answer.status == 204)
                    .count();
                assert_eq!(won, 1);
            } else {
                let (one, two) = tokio::join!(
                    world.grant("ann", "acme", "ann", "organization_member"),
                    world.grant(&other, "acme", &other, "organization_member")
                );
                let won = [one, two]
                    .iter()
                    .filter(|answer| answer.status == 204)
                    .count();
                assert_eq!(won, 1);
            }
            // Whoever is left makes ann an administrator again.
            if world.role("ann").await != "organization_admin" {
                world
                    .grant(&other, "acme", "ann", "organization_admin")
                    .await
                    .expect(204);
            }
            let path = format!("/v2/orgs/acme/members/{other}");
            world
                .call("ann", Method::DELETE, &path, None)
                .await
                .expect(200);
        }
        world.invite("ann", "acme", "zoe").await;
        world
            .grant("ann", "acme", "zoe", "organization_admin")
            .await
            .expect(204);
        let (one, two) = tokio::join!(
            world.call("ann", Method::DELETE, "/v2/orgs/acme/members/zoe", None),
            world.call("zoe", Method::DELETE, "/v2/orgs/acme/members/ann", None)
        );
        let won = [one, two]
            .iter()
            .filter(|answer| answer.status == 200)
            .count();
        assert_eq!(won, 1);
    }
}
