//! Which tokens of an issuer are believed.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use reqwest::Method;
use segno_server::config::Secret;
use serde_json::{Value, json};

use crate::executor::until;
use crate::issuer::{
    AUDIENCE, EC_256, EC_384, Issuer, KeyPair, RSA_1, RSA_2, RSA_SHORT, header, sign, sign_with,
};
use crate::server::{ADMIN, Answer, Database, TestServer, send};

async fn whoami(server: &TestServer, token: &str) -> Answer {
    server.get_with(token, "/v2/self").await
}

#[tokio::test]
async fn a_good_token_names_its_person() {
    let issuer = Issuer::start().await;
    let server = issuer.server(Database::sqlite()).await;
    let me = whoami(&server, &issuer.token("ann")).await.expect(200).json;
    assert_eq!(
        (&me["mode"], &me["kind"], &me["id"], &me["display"]),
        (
            &json!("oidc"),
            &json!("user"),
            &json!("ann"),
            &json!("ann@example.com")
        )
    );
    assert_eq!(me["permissions"], json!([]), "not registered");
    assert!(me.get("orgName").is_none(), "{me}");
}

#[tokio::test]
async fn the_console_learns_how_to_log_in() {
    let issuer = Issuer::start().await;
    let server = issuer.server(Database::sqlite()).await;
    let path = "/console/session-config";
    let told = send(server.request(Method::GET, path))
        .await
        .expect(200)
        .json;
    let at = |path: &str| format!("{}{path}", issuer.name());
    assert_eq!(
        told,
        json!({"mode": "oidc", "oidc": {"issuer": issuer.name(), "audience": AUDIENCE, "clientId": "console",
            "scopes": "openid profile email", "authorizationEndpoint": at("/auth"), "tokenEndpoint": at("/token"),
            "endSessionEndpoint": null}})
    );
}

#[tokio::test]
async fn every_listed_algorithm_is_taken_with_its_kind_of_key() {
    let issuer = Issuer::start().await;
    issuer.publish([RSA_1, EC_256, EC_384].map(|key| key.public()).to_vec());
    let server = issuer.server(Database::sqlite()).await;
    let claims = issuer.claims("ann");
    for (algorithm, key) in [
        (Algorithm::RS256, RSA_1),
        (Algorithm::RS384, RSA_1),
        (Algorithm::RS512, RSA_1),
        (Algorithm::PS256, RSA_1),
        (Algorithm::PS384, RSA_1),
        (Algorithm::PS512, RSA_1),
        (Algorithm::ES256, EC_256),
        (Algorithm::ES384, EC_384),
    ] {
        let mut header = header(&key);
        header.alg = algorithm;
        let token = sign_with(header, &key, &claims);
        whoami(&server, &token).await.expect(200);
    }
}

#[tokio::test]
async fn what_may_vary_does() {
    let issuer = Issuer::start().await;
    let server = issuer.server(Database::sqlite()).await;
    let now = jsonwebtoken::get_current_timestamp();
    for (what, member, value) in [
        (
            "a slash after the issuer",
            "iss",
            json!(format!("{}/", issuer.name())),
        ),
        ("several audiences", "aud", json!(["other", AUDIENCE])),
        ("a clock that is a little behind", "exp", json!(now - 30)),
        ("a clock that is a little ahead", "nbf", json!(now + 30)),
        ("no e-mail address", "email", Value::Null),
    ] {
        let mut claims = issuer.claims("ann");
        claims[member] = value;
        let answer = whoami(&server, &sign(&RSA_1, &claims)).await;
        assert_eq!(answer.status, 200, "{what}: {}", answer.text);
    }
    // Access tokens of RFC 9068 say what they are; and some issuers have one key without an id.
    let mut typed = header(&RSA_1);
    typed.typ = Some("at+jwt".to_owned());
    whoami(&server, &sign_with(typed, &RSA_1, &issuer.claims("ann")))
        .await
        .expect(200);
    let mut nameless = header(&RSA_1);
    nameless.kid = None;
    whoami(&server, &sign_with(nameless, &RSA_1, &issuer.claims("ann")))
        .await
        .expect(200);
}

/// Every wrong claim, and what the refusal must say.
#[tokio::test]
async fn wrong_claims_are_refused() {
    let issuer = Issuer::start().await;
    let server = issuer.server(Database::sqlite()).await;
    let now = jsonwebtoken::get_current_timestamp();
    for (member, value, says) in [
        ("aud", json!("https://other.test"), "audience"),
        ("aud", json!([]), "audience"),
        ("aud", Value::Null, "aud"),
        ("aud", json!({"0": AUDIENCE}), ""),
        ("iss", json!("https://evil.test"), "SEGNO_OIDC_ISSUER"),
        (
            "iss",
            json!(format!("{}x", issuer.name())),
            "SEGNO_OIDC_ISSUER",
        ),
        ("iss", json!([issuer.name()]), ""),
        ("iss", Value::Null, ""),
        ("exp", json!(now - 120), "expired"),
        ("exp", Value::Null, "exp"),
        ("exp", json!("never"), ""),
        ("exp", json!(-1), ""),
        ("nbf", json!(now + 600), "not valid yet"),
        ("nbf", json!("later"), ""),
        ("sub", Value::Null, ""),
        ("sub", json!(""), "subject"),
        ("sub", json!(7), ""),
        ("sub", json!("x".repeat(300)), "subject"),
    ] {
        let mut claims = issuer.claims("ann");
        claims[member] = value.clone();
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(member);
        }
        let token = sign(&RSA_1, &claims);
        let problem = whoami(&server, &token).await.problem(401);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(says), "{member}={value}: {detail}");
        assert!(!problem.to_string().contains(&token));
        // The second time it is answered from memory.
        whoami(&server, &token).await.problem(401);
    }
}

fn part(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

#[tokio::test]
async fn forged_signatures_are_refused() {
    let issuer = Issuer::start().await;
    issuer.publish(vec![RSA_1.public(), RSA_SHORT.public(), EC_256.public()]);
    let server = issuer.server(Database::sqlite()).await;
    let claims = issuer.claims("ann");
    let good = issuer.token("ann");
    whoami(&server, &good).await.expect(200);
    let (body, signature) = good.rsplit_once('.').unwrap();
    let (head, payload) = body.split_once('.').unwrap();

    let mut tokens = vec![
        ("no signature".to_owned(), format!("{body}.")),
        ("two parts".to_owned(), body.to_owned()),
        ("four parts".to_owned(), format!("{good}.x")),
        (
            "a key shorter than 2048 bits".to_owned(),
            sign(&RSA_SHORT, &claims),
        ),
    ];
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let header = json!({"alg": alg, "typ": "JWT", "kid": RSA_1.id});
        tokens.push((
            format!("alg {alg:?}"),
            format!("{}.{payload}.", part(&header)),
        ));
        tokens.push((
            format!("alg {alg:?} with a signature"),
            format!("{}.{payload}.{signature}", part(&header)),
        ));
    }
    // The classic: the public key, which everybody has, as the secret of a symmetric algorithm.
    let jwk = RSA_1.public();
    for secret in [jwk["n"].as_str().unwrap(), &jwk.to_string(), RSA_1.pem] {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let mut header = Header::new(algorithm);
            header.kid = Some(RSA_1.id.to_owned());
            let key = EncodingKey::from_secret(secret.as_bytes());
            let token = encode(&header, &claims, &key).unwrap();
            tokens.push((format!("{algorithm:?} with the public key"), token));
        }
    }
    let mut other = issuer.claims("bob");
    other["email"] = json!("admin@example.com");
    tokens.push((
        "other claims".to_owned(),
        format!("{head}.{}.{signature}", part(&other)),
    ));
    let stranger = KeyPair {
        id: RSA_1.id,
        ..RSA_2
    };
    tokens.push((
        "another key under a known id".to_owned(),
        sign(&stranger, &claims),
    ));
    let confused = KeyPair {
        id: EC_256.id,
        ..RSA_1
    };
    tokens.push((
        "the id of a key of another kind".to_owned(),
        sign(&confused, &claims),
    ));
    for (what, token) in &tokens {
        let answer = whoami(&server, token).await;
        assert_eq!(answer.status, 401, "{what}: {}", answer.text);
        assert!(
            answer.headers["www-authenticate"]
                .to_str()
                .unwrap()
                .starts_with("Bearer")
        );
    }
}

/// A token may say where its key is. Nobody listens.
#[tokio::test]
async fn keys_that_a_token_brings_along_are_ignored() {
    let issuer = Issuer::start().await;
    let server = issuer.server(Database::sqlite()).await;
    let evil = Issuer::start().await;
    evil.publish(vec![RSA_2.public()]);
    let claims = issuer.claims("ann");
    for id in [RSA_2.id, RSA_1.id] {
        let with = |adapt: &dyn Fn(&mut Header)| {
            let mut header = header(&RSA_2);
            header.kid = Some(id.to_owned());
            adapt(&mut header);
            sign_with(header, &RSA_2, &claims)
        };
        for token in [
            with(&|header| header.jku = Some(format!("{}/keys", evil.name()))),
            with(&|header| header.x5u = Some(format!("{}/keys", evil.name()))),
            with(&|header| header.jwk = Some(serde_json::from_value(RSA_2.public()).unwrap())),
            with(&|header| header.x5c = Some(vec!["MIIB".to_owned()])),
            with(&|header| header.crit = Some(vec!["exp".to_owned()])),
        ] {
            whoami(&server, &token).await.problem(401);
        }
    }
    assert_eq!(evil.questions(), 0);
    // A good token may carry them all the same.
    let mut odd = header(&RSA_1);
    odd.jku = Some(format!("{}/keys", evil.name()));
    whoami(&server, &sign_with(odd, &RSA_1, &claims))
        .await
        .expect(200);
    assert_eq!(evil.questions(), 0);
}

#[tokio::test]
async fn odd_key_ids_and_kinds_are_refused() {
    let issuer = Issuer::start().await;
    let server = issuer.server(Database::sqlite()).await;
    let claims = issuer.claims("ann");
    for id in [
        "../../../../dev/null",
        "/etc/passwd",
        "rsa-1\u{0}",
        "RSA-1",
        "' OR 1=1 --",
        "http://127.0.0.1:1/",
        "",
    ] {
        let mut header = header(&RSA_1);
        header.kid = Some(id.to_owned());
        let answer = whoami(&server, &sign_with(header, &RSA_1, &claims)).await;
        assert_eq!(answer.status, 401, "{id:?}: {}", answer.text);
    }
    for kind in ["logout+jwt", "dpop+jwt", "secevent+jwt", "JWE"] {
        let mut header = header(&RSA_1);
        header.typ = Some(kind.to_owned());
        whoami(&server, &sign_with(header, &RSA_1, &claims))
            .await
            .problem(401);
    }
    let mut unread = header(&RSA_1);
    unread.crit = Some(vec!["b64".to_owned()]);
    whoami(&server, &sign_with(unread, &RSA_1, &claims))
        .await
        .problem(401);
}

#[tokio::test]
async fn tokens_belong_into_one_header_and_have_an_end() {
    let issuer = Issuer::start().await;
    let server = issuer.server(Database::sqlite()).await;
    let good = issuer.token("ann");
    for path in [
        format!("/v2/self?access_token={good}"),
        format!("/v2/self?token={good}"),
    ] {
        send(server.request(Method::GET, &path)).await.problem(401);
    }
    let cookie = server
        .request(Method::GET, "/v2/self")
        .header("cookie", format!("access_token={good}"));
    send(cookie).await.problem(401);
    let twice = server
        .request(Method::GET, "/v2/self")
        .bearer_auth(&good)
        .header("authorization", format!("Bearer {}", issuer.token("bob")));
    send(twice).await.problem(401);
    let mut long = issuer.claims("ann");
    long["padding"] = json!("x".repeat(20_000));
    whoami(&server, &sign(&RSA_1, &long)).await.problem(401);
}

#[tokio::test]
async fn keys_rotate_without_a_restart() {
    let issuer = Issuer::start().await;
    let server = issuer.server(Database::sqlite()).await;
    whoami(&server, &issuer.token("ann")).await.expect(200);
    let claims = issuer.claims("ann");
    whoami(&server, &sign(&RSA_2, &claims)).await.problem(401);
    issuer.publish(vec![RSA_2.public()]);
    whoami(&server, &sign(&RSA_2, &claims)).await.expect(200);
    // The withdrawn key went with the old set.
    whoami(&server, &issuer.token("bob")).await.problem(401);
}

/// Many at once with unknown keys cause few questions, and tokens of other issuers none.
#[tokio::test]
async fn junk_does_not_make_the_server_pester_the_issuer() {
    let issuer = Issuer::start().await;
    let server = issuer.server(Database::sqlite()).await;
    whoami(&server, &issuer.token("ann")).await.expect(200);
    let before = issuer.questions();
    let mut foreign = issuer.claims("ann");
    foreign["iss"] = json!("https://evil.test");
    for n in 0..20 {
        let key = KeyPair {
            id: RSA_2.id,
            ..RSA_2
        };
        foreign["n"] = json!(n);
        whoami(&server, &sign(&key, &foreign)).await.problem(401);
    }
    assert_eq!(issuer.questions(), before);
    let junk = (0..60).map(|n| {
        let mut header = header(&RSA_2);
        header.kid = Some(format!("unknown-{n}"));
        let token = sign_with(header, &RSA_2, &issuer.claims("ann"));
        let server = &server;
        async move { whoami(server, &token).await.status.as_u16() }
    });
    for status in futures_util::future::join_all(junk).await {
        assert_eq!(status, 401);
    }
    let asked = issuer.questions() - before;
    assert!(asked <= 10, "{asked} questions");
    whoami(&server, &issuer.token("ann")).await.expect(200);
}

#[tokio::test]
async fn an_issuer_that_is_down_at_the_start_may_come_later() {
    let issuer = Issuer::start().await;
    issuer.set_down(true);
    let server = issuer
        .server_with(Database::sqlite(), |config| {
            config.admin_key = Some(Secret::new(ADMIN));
        })
        .await;
    // Keys work meanwhile, and nobody is told that a token is wrong which cannot be checked.
    server.get("/v2/self").await.expect(200);
    let answer = whoami(&server, &issuer.token("ann")).await;
    assert!(answer.headers.contains_key("retry-after"));
    answer.problem(503);
    let told = send(server.request(Method::GET, "/console/session-config")).await;
    assert_eq!(told.expect(200).json["oidc"]["tokenEndpoint"], Value::Null);
    issuer.set_down(false);
    until("the issuer is asked again", async || {
        whoami(&server, &issuer.token("ann")).await.status == 200
    })
    .await;
    // An outage later on hurts nobody whose key is known.
    issuer.set_down(true);
    whoami(&server, &issuer.token("bob")).await.expect(200);
}

/// Whoever sends wrong tokens is slowed down, and nobody beside them whose token was right before.
#[tokio::test]
async fn wrong_tokens_cost_an_address_its_allowance() {
    let issuer = Issuer::start().await;
    let server = issuer
        .server_with(Database::sqlite(), |config| {
            config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
        })
        .await;
    let from = |address: &str, token: &str| {
        let request = server
            .request(Method::GET, "/v2/self")
            .header("x-forwarded-for", address)
            .bearer_auth(token);
        send(request)
    };
    let good = issuer.token("ann");
    from("192.0.2.1", &good).await.expect(200);
    let (body, _) = good.rsplit_once('.').unwrap();
    let mut slowed = false;
    for n in 0..400 {
        let forged = format!("{body}.{}", URL_SAFE_NO_PAD.encode([n as u8; 256]));
        slowed = from("192.0.2.1", &format!("{forged}{n:04}")).await.status == 429;
        if slowed {
            break;
        }
    }
    assert!(slowed);
    from("192.0.2.1", &good).await.expect(200);
    from("192.0.2.1", &issuer.token("bob")).await.problem(429);
    from("192.0.2.2", &issuer.token("bob")).await.expect(200);
}
