//! Who a caller is, and what follows from it.

use super::Permissions;
use crate::config::Secret;
use crate::store::orgs::OrgRow;
use crate::store::users::UserRow;

/// The applications a credential covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppScope {
    /// Every application of the organization.
    All,
    /// These application ids; possibly none are left.
    Only(Vec<String>),
}

impl AppScope {
    /// Whether the application of this id is covered.
    pub fn covers(&self, app_id: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(apps) => apps.iter().any(|app| app == app_id),
        }
    }
}

/// Who is calling, as the audit log names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// `user` or `api_key`.
    pub kind: &'static str,
    /// Stable id.
    pub id: String,
    /// E-mail, or name of the key.
    pub display: String,
}

/// A caller who belongs to an organization. Handlers take it as an extractor.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The caller's organization.
    pub org: OrgRow,
    /// Who.
    pub subject: Subject,
    /// What they may do.
    pub permissions: Permissions,
    /// On which applications.
    pub scope: AppScope,
}

/// A person, as a token of the issuer names them.
#[derive(Clone, Debug)]
pub struct Person {
    /// The issuer, without a slash at its end.
    pub issuer: String,
    /// The person's id at the issuer.
    pub subject: String,
    /// Their e-mail address, unless the token holds none or the issuer has not verified it.
    pub email: Option<String>,
    /// The token itself, for questions to the issuer about this person.
    pub token: Secret,
}

/// Whoever holds a valid credential.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Who.
    pub subject: Subject,
    /// The person, if the credential is a token of the issuer.
    pub person: Option<Person>,
    /// That person's account, if they have registered.
    pub user: Option<UserRow>,
    /// What they are in their organization; none before a person has registered.
    pub caller: Option<Caller>,
    /// The address the request came from.
    pub source_ip: String,
}

impl Identity {
    /// What stays the same as long as it is the same caller, also while a person registers.
    pub fn principal(&self) -> String {
        match &self.person {
            Some(person) => format!("{}#{}", person.issuer, person.subject),
            None => self.subject.id.clone(),
        }
    }
}
