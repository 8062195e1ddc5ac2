//! The userinfo endpoint (OpenID Connect Core, 5.3): for tokens that hold no e-mail address.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use url::Url;

use super::fetch::Fetcher;
use super::token::{Verified, trusted_email};
use crate::auth::Person;

/// How long an answer is kept, also that there is none.
const KEEP: Duration = Duration::from_secs(300);
const CAPACITY: usize = 1000;

#[derive(Deserialize)]
struct UserInfo {
    sub: String,
    email: Option<String>,
    email_verified: Option<Verified>,
}

/// Addresses that were asked for lately, by subject.
#[derive(Default)]
pub(super) struct Emails {
    kept: Mutex<HashMap<String, (Option<String>, Instant)>>,
}

impl Emails {
    pub(super) async fn ask(
        &self,
        fetcher: &Fetcher,
        endpoint: &Url,
        person: &Person,
    ) -> Option<String> {
        let now = Instant::now();
        if let Some((email, until)) = self.kept().get(&person.subject)
            && *until > now
        {
            return email.clone();
        }
        let email = match fetcher.json_with::<UserInfo>(endpoint, &person.token).await {
            // The specification demands this comparison: answers could be mixed up.
            Ok(info) if info.sub == person.subject => {
                trusted_email(info.email, info.email_verified)
            }
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(%error, "the issuer does not tell a person's e-mail address");
                None
            }
        };
        let mut kept = self.kept();
        if kept.len() >= CAPACITY {
            kept.retain(|_, (_, until)| *until > now);
        }
        if kept.len() < CAPACITY {
            kept.insert(person.subject.clone(), (email.clone(), now + KEEP));
        }
        email
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Option<String>, Instant)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
