//! People: registering, and the ways into an organization.

use reqwest::Method;
use serde_json::{Value, json};

use crate::issuer::{Issuer, RSA_1, sign};
use crate::server::{Answer, Database, TestServer, send};

/// A server, its issuer, and people.
pub(crate) struct World {
    pub(crate) issuer: Issuer,
    pub(crate) server: TestServer,
}

impl World {
    pub(crate) async fn on(database: Database) -> Self {
        let issuer = Issuer::start().await;
        let server = issuer.server(database).await;
        Self { issuer, server }
    }

    /// One on each engine.
    pub(crate) async fn each() -> Vec<Self> {
        vec![
            Self::on(Database::sqlite()).await,
            Self::on(Database::postgres().await).await,
        ]
    }

    /// A request of a person.
    pub(crate) async fn call(
        &self,
        person: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        let request = self
            .server
            .request(method, path)
            .bearer_auth(self.issuer.token(person));
        send(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    }

    pub(crate) async fn get(&self, person: &str, path: &str) -> Answer {
        self.call(person, Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, person: &str, path: &str, body: Value) -> Answer {
        self.call(person, Method::POST, path, Some(body)).await
    }

    /// Registers a person as the founder of an organization, which gets this name.
    pub(crate) async fn found(&self, person: &str, org: &str) {
        self.post(person, "/v2/users", json!({"name": person}))
            .await
            .expect(201);
        let me = self.get(person, "/v2/users/me").await.expect(200).json;
        let made = format!("/v2/orgs/{}", me["orgName"].as_str().unwrap());
        self.call(person, Method::PATCH, &made, Some(json!({"newName": org})))
            .await
            .expect(204);
    }

    pub(crate) async fn secret(&self, admin: &str, org: &str) -> String {
        let made = self
            .call(
                admin,
                Method::POST,
                &format!("/v2/orgs/{org}/secrets"),
                None,
            )
            .await
            .expect(201);
        made.json["secret"].as_str().unwrap().to_owned()
    }

    /// Registers a person as a member of an organization.
    pub(crate) async fn invite(&self, admin: &str, org: &str, person: &str) {
        let secret = self.secret(admin, org).await;
        let body = json!({"name": person, "secret": secret});
        self.post(person, "/v2/users", body).await.expect(201);
    }

    pub(crate) async fn role(&self, person: &str) -> Value {
        self.get(person, "/v2/users/me").await.expect(200).json["role"]["name"].clone()
    }

    pub(crate) async fn grant(&self, giver: &str, org: &str, person: &str, role: &str) -> Answer {
        let path = format!("/v2/orgs/{org}/members/{person}/roles/{role}");
        self.call(giver, Method::PUT, &path, None).await
    }

    /// The newest entry of the log: operation, status, target's type and id.
    pub(crate) async fn last_entry(&self, admin: &str, org: &str) -> Value {
        let log = self
            .get(admin, &format!("/v2/orgs/{org}/audit-logs?limit=1"))
            .await;
        log.expect(200).json[0].clone()
    }
}

#[tokio::test]
async fn nobody_has_an_account_before_registering() {
    for world in World::each().await {
        world.get("ann", "/v2/users/me").await.problem(404);
        for path in ["/v2/orgs/local", "/v2/orgs/local/apps", "/v1/metrics"] {
            let problem = world.get("ann", path).await.problem(403);
            assert!(problem["detail"].as_str().unwrap().contains("/v2/users"));
        }
        let body =
            json!({"name": "ann", "givenName": "Ann", "familyName": "Lee", "company": "ACME"});
        let made = world.post("ann", "/v2/users", body).await.expect(201);
        let me = world.get("ann", "/v2/users/me").await.expect(200).json;
        assert_eq!(me["name"], "ann");
        assert_eq!(me["email"], "ann@example.com");
        assert_eq!(me["role"]["name"], "organization_admin");
        assert_eq!(me["role"]["isGlobal"], true);
        assert_eq!(me["role"]["permissions"].as_array().unwrap().len(), 8);
        assert_eq!(me["subscriptionPlan"], "team");
        assert!(me.get("isDbosAdmin").is_none());
        let org = me["orgName"].as_str().unwrap();
        assert_ne!(org, "local");
        let shown = world
            .get("ann", &format!("/v2/orgs/{org}"))
            .await
            .expect(200)
            .json;
        assert_eq!(
            (&shown["id"], &shown["name"]),
            (&me["orgId"], &me["orgName"])
        );
        assert_eq!(shown["auditLogRetentionDays"], 90);
        assert_eq!(shown["defaultRdsInstanceClassType"], "");

        let who = world.get("ann", "/v2/self").await.expect(200).json;
        assert_eq!(who["id"], made.json["id"]);
        assert_eq!(
            (&who["orgName"], &who["name"]),
            (&me["orgName"], &json!("ann"))
        );
        assert_eq!(who["role"], "organization_admin");

        let entry = world.last_entry("ann", org).await;
        assert_eq!(
            (&entry["operation"], &entry["status"], &entry["target"]),
            (
                &json!("user.join"),
                &json!("success"),
                &json!({"type": "user", "id": "ann"})
            )
        );
        assert_eq!(entry["subject"]["display"], "ann@example.com");
    }
}

#[tokio::test]
async fn names_and_people_register_once() {
    for world in World::each().await {
        world.found("ann", "acme").await;
        world
            .post("ann", "/v2/users", json!({"name": "ann2"}))
            .await
            .problem(409);
        world
            .post("bob", "/v2/users", json!({"name": "ann"}))
            .await
            .problem(409);
        world.get("bob", "/v2/users/me").await.problem(404);
        for name in ["ab", "Bob", "b b", "b/b", &"b".repeat(31)] {
            let faults = world.post("bob", "/v2/users", json!({"name": name})).await;
            assert!(faults.faults(422).contains(&"body.name".to_owned()));
        }
        // Two at once: one of them wins.
        let body = json!({"name": "bob"});
        let (one, two) = tokio::join!(
            world.post("bob", "/v2/users", body.clone()),
            world.post("bob", "/v2/users", body)
        );
        let mut statuses = [one.status.as_u16(), two.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409]);
    }
}

#[tokio::test]
async fn a_registration_may_be_repeated_with_its_key() {
    for world in World::each().await {
        let again = || {
            let request = world
                .server
                .request(Method::POST, "/v2/users")
                // Another token each time, as after a refresh.
                .bearer_auth(sign(&RSA_1, &{
                    let mut claims = world.issuer.claims("ann");
                    claims["jti"] = json!(uuid::Uuid::new_v4());
                    claims
                }))
                .header("idempotency-key", "register-ann")
                .json(&json!({"name": "ann"}));
            send(request)
        };
        let first = again().await.expect(201).json;
        assert_eq!(again().await.expect(201).json, first);
    }
}

#[tokio::test]
async fn api_keys_are_not_people() {
    let world = World::on(Database::sqlite()).await;
    world.found("ann", "acme").await;
    let body = json!({"permissions": ["organization.read", "organization.write"]});
    let made = world.post("ann", "/v2/orgs/acme/tokens/ci", body).await;
    let key = made.expect(201).json["token"].as_str().unwrap().to_owned();
    world
        .server
        .get_with(&key, "/v2/users/me")
        .await
        .problem(403);
    for (path, body) in [
        ("/v2/users", json!({"name": "robot"})),
        ("/v2/orgs/acme/join", json!({"secret": "x"})),
    ] {
        let request = world.server.request(Method::POST, path).bearer_auth(&key);
        send(request.json(&body)).await.problem(403);
    }
    world
        .server
        .get_with(&key, "/v2/orgs/acme/members")
        .await
        .expect(200);
}

#[tokio::test]
async fn a_join_secret_lets_one_person_in_once() {
    for world in World::each().await {
        world.found("ann", "acme").await;
        let secret = world.secret("ann", "acme").await;
        let entry = world.last_entry("ann", "acme").await;
        assert_eq!(entry["operation"], "organization.generate_secret");
        assert!(!entry.to_string().contains(&secret));
        let with = |name: &str, secret: &str| json!({"name": name, "secret": secret});
        world
            .post("bob", "/v2/users", with("bob", "join_wrong"))
            .await
            .problem(404);
        // A refused registration does not use it up.
        world
            .post("bob", "/v2/users", with("ann", &secret))
            .await
            .problem(409);
        world
            .post("bob", "/v2/users", with("bob", &secret))
            .await
            .expect(201);
        let bob = world.get("bob", "/v2/users/me").await.expect(200).json;
        assert_eq!(bob["orgName"], "acme");
        assert_eq!(bob["role"]["name"], "organization_member");
        assert_eq!(bob["role"]["permissions"].as_array().unwrap().len(), 7);
        world
            .post("cat", "/v2/users", with("cat", &secret))
            .await
            .problem(404);
        let entry = world.last_entry("ann", "acme").await;
        assert_eq!(
            (&entry["operation"], &entry["target"]["id"]),
            (&json!("user.join"), &json!("bob"))
        );
        // Two people with one secret at once: one gets in.
        let secret = world.secret("ann", "acme").await;
        let (one, two) = tokio::join!(
            world.post("dan", "/v2/users", with("dan", &secret)),
            world.post("eve", "/v2/users", with("eve", &secret))
        );
        let mut statuses = [one.status.as_u16(), two.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 404]);
        // What is wrong with a body is said without showing the secret.
        let body = json!({"name": "fay", "secret": "join_private", "zzz": 1});
        let answer = world.post("fay", "/v2/users", body).await.expect(422);
        assert!(!answer.text.contains("join_private"), "{}", answer.text);
    }
}

#[tokio::test]
async fn joining_moves_a_person() {
    for world in World::each().await {
        world.found("ann", "acme").await;
        world.found("bob", "bank").await;
        let join = |person: &'static str, org: &'static str, secret: &str| {
            let body = json!({"secret": secret});
            let world = &world;
            async move {
                let path = format!("/v2/orgs/{org}/join");
                world.post(person, &path, body).await
            }
        };
        let secret = world.secret("ann", "acme").await;
        join("bob", "nowhere", &secret).await.problem(404);
        join("bob", "local", &secret).await.problem(404);
        join("bob", "acme", "join_wrong").await.problem(404);
        join("ann", "acme", &secret).await.problem(409);
        join("stranger", "acme", &secret).await.problem(403);
        join("bob", "acme", &secret).await.expect(204);
        let bob = world.get("bob", "/v2/users/me").await.expect(200).json;
        assert_eq!(bob["orgName"], "acme");
        assert_eq!(world.role("bob").await, "organization_member");
        world.get("bob", "/v2/orgs/bank").await.problem(404);
        join("bob", "acme", &secret).await.problem(409);

        // The last administrator cannot leave the others behind.
        world.found("cat", "cave").await;
        let secret = world.secret("cat", "cave").await;
        let problem = join("ann", "cave", &secret).await.problem(409);
        assert!(problem["detail"].as_str().unwrap().contains("last"));
        world
            .grant("ann", "acme", "bob", "organization_admin")
            .await
            .expect(204);
        join("ann", "cave", &secret).await.expect(204);
        assert_eq!(world.role("ann").await, "organization_member");
        // Both organizations have it in their logs.
        for (admin, org) in [("bob", "acme"), ("cat", "cave")] {
            let entry = world.last_entry(admin, org).await;
            assert_eq!(entry["operation"], "user.join", "{org}: {entry}");
            assert_eq!(entry["target"]["id"], "ann");
        }
    }
}

#[tokio::test]
async fn a_claimed_domain_brings_its_people() {
    for world in World::each().await {
        world.found("ann", "acme").await;
        let claims = "/v2/orgs/acme/domain-claims";
        let claim = world
            .post("ann", claims, json!({"domain": "Corp.Example"}))
            .await
            .expect(201)
            .json;
        assert_eq!(
            (&claim["domain"], &claim["status"], &claim["requestedBy"]),
            (
                &json!("corp.example"),
                &json!("approved"),
                &json!("ann@example.com")
            )
        );
        for member in ["decidedAt", "decidedBy", "requestedAt", "id", "orgName"] {
            assert!(claim[member].is_string(), "{member}: {claim}");
        }
        let entry = world.last_entry("ann", "acme").await;
        assert_eq!(
            entry["target"],
            json!({"type": "domain_claim", "id": "corp.example"})
        );
        world
            .post("ann", claims, json!({"domain": "no domain"}))
            .await
            .problem(400);
        world.found("bob", "bank").await;
        world
            .post(
                "bob",
                "/v2/orgs/bank/domain-claims",
                json!({"domain": "corp.example"}),
            )
            .await
            .problem(409);

        let register = |person: &'static str, email: &'static str, verified: Value| {
            let world = &world;
            async move {
                let mut claims = world.issuer.claims(person);
                claims["email"] = json!(email);
                claims["email_verified"] = verified;
                let token = sign(&RSA_1, &claims);
                let request = world
                    .server
                    .request(Method::POST, "/v2/users")
                    .bearer_auth(&token)
                    .json(&json!({"name": person}));
                send(request).await.expect(201);
                let me = world.server.get_with(&token, "/v2/users/me").await;
                me.expect(200).json["orgName"].clone()
            }
        };
        assert_eq!(
            register("cat", "cat@CORP.example", json!(true)).await,
            "acme"
        );
        assert_eq!(world.role("cat").await, "organization_member");
        assert_eq!(
            register("dan", "dan@corp.example", Value::Null).await,
            "acme"
        );
        for (person, email, verified) in [
            ("eve", "eve@corp.example", json!(false)),
            ("fay", "fay@corp.example", json!("false")),
            ("gus", "gus@sub.corp.example", json!(true)),
            ("hal", "hal@corp.example.evil.test", json!(true)),
            ("ida", "ida@evil.test@xcorp.example", json!(true)),
        ] {
            assert_ne!(register(person, email, verified).await, "acme", "{email}");
        }

        // Whoever was removed does not come back by the same way.
        world
            .call("ann", Method::DELETE, "/v2/orgs/acme/members/dan", None)
            .await
            .expect(200);
        assert_ne!(
            register("dan", "dan@corp.example", json!(true)).await,
            "acme"
        );

        // Giving the domain up removes nobody.
        world
            .call(
                "bob",
                Method::DELETE,
                "/v2/orgs/bank/domain-claims/corp.example",
                None,
            )
            .await
            .problem(404);
        let path = format!("{claims}/CORP.example");
        world
            .call("ann", Method::DELETE, &path, None)
            .await
            .expect(204);
        world
            .call("ann", Method::DELETE, &path, None)
            .await
            .problem(404);
        let left = world.get("ann", claims).await.expect(200).json;
        assert_eq!(left["claims"], json!([]));
        assert_eq!(
            world.get("cat", "/v2/users/me").await.json["orgName"],
            "acme"
        );
        assert_ne!(
            register("joe", "joe@corp.example", json!(true)).await,
            "acme"
        );
    }
}

/// An access token need not hold the address; the userinfo endpoint tells it then.
#[tokio::test]
async fn the_address_comes_from_the_userinfo_endpoint_too() {
    let world = World::on(Database::sqlite()).await;
    for (person, told, email) in [
        (
            "ann",
            json!({"sub": "ann", "email": "ann@corp.example"}),
            "ann@corp.example",
        ),
        (
            "bob",
            json!({"sub": "bob", "email": "bob@corp.example", "email_verified": false}),
            "",
        ),
        (
            "cat",
            json!({"sub": "other", "email": "other@corp.example"}),
            "",
        ),
        ("dan", json!("nonsense"), ""),
    ] {
        world.issuer.tell(told);
        let mut claims = world.issuer.claims(person);
        claims.as_object_mut().unwrap().remove("email");
        let token = sign(&RSA_1, &claims);
        let request = world.server.request(Method::POST, "/v2/users");
        send(request.bearer_auth(&token).json(&json!({"name": person})))
            .await
            .expect(201);
        let me = world.server.get_with(&token, "/v2/users/me").await;
        assert_eq!(me.expect(200).json["email"], email, "{person}");
    }
}

/// People marry and companies change their names.
#[tokio::test]
async fn a_new_address_is_taken_over_unless_it_is_unverified() {
    let world = World::on(Database::sqlite()).await;
    world.found("ann", "acme").await;
    let seen = async |email: &str, verified: bool| {
        let mut claims = world.issuer.claims("ann");
        claims["email"] = json!(email);
        claims["email_verified"] = json!(verified);
        let token = sign(&RSA_1, &claims);
        let me = world.server.get_with(&token, "/v2/users/me").await;
        me.expect(200).json["email"].clone()
    };
    assert_eq!(seen("ann@new.example", true).await, "ann@new.example");
    assert_eq!(seen("boss@new.example", false).await, "ann@new.example");
    let who = world
        .server
        .get_with(&world.issuer.token("ann"), "/v2/self")
        .await;
    assert_eq!(who.json["display"], "ann@example.com");
}
