//! The two roles that every organization has. Their names are those that clients know.

use super::{Permission, Permissions};

/// Whoever holds it runs the organization; each organization with members keeps at least one.
pub const ADMIN: &str = "organization_admin";
/// What people are when they join.
pub const MEMBER: &str = "organization_member";

/// The permissions of a built-in role; `None` if there is none of that name.
pub fn built_in(name: &str) -> Option<Permissions> {
    match name {
        ADMIN => Some(Permissions::all()),
        MEMBER => Some(
            Permission::ALL
                .into_iter()
                .filter(|permission| *permission != Permission::OrganizationWrite)
                .collect(),
        ),
        _ => None,
    }
}
