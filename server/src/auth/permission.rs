//! The permission catalogue, exactly the eight names that clients know.

/// One permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Read the organization, its members, roles, domain claims and audit log.
    OrganizationRead,
    /// Change them.
    OrganizationWrite,
    /// Read applications and everything in them.
    ApplicationRead,
    /// Change applications and everything in them.
    ApplicationWrite,
    /// Read metrics.
    MetricRead,
    /// List API keys.
    TokenRead,
    /// Make, rename and revoke API keys. Only an administrator's key holds it.
    TokenWrite,
    /// Connect as an executor.
    WebsocketConnect,
}

impl Permission {
    /// All of them, in the order clients are shown.
    pub const ALL: [Self; 8] = [
        Self::OrganizationRead,
        Self::OrganizationWrite,
        Self::ApplicationRead,
        Self::ApplicationWrite,
        Self::MetricRead,
        Self::TokenRead,
        Self::TokenWrite,
        Self::WebsocketConnect,
    ];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::OrganizationRead => "organization.read",
            Self::OrganizationWrite => "organization.write",
            Self::ApplicationRead => "application.read",
            Self::ApplicationWrite => "application.write",
            Self::MetricRead => "metric.read",
            Self::TokenRead => "token.read",
            Self::TokenWrite => "token.write",
            Self::WebsocketConnect => "websocket.connect",
        }
    }

    /// The permission of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|permission| permission.name() == name)
    }
}

/// A set of permissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions(u8);

impl Permissions {
    /// Every permission.
    pub fn all() -> Self {
        Permission::ALL.into_iter().collect()
    }

    /// Whether `permission` is held.
    pub fn contains(self, permission: Permission) -> bool {
        self.0 & (1 << permission as u8) != 0
    }

    /// Whether all of `other` are held.
    pub fn includes(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// The permissions held, in the catalogue's order.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL
            .into_iter()
            .filter(move |permission| self.contains(*permission))
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        Self(
            permissions
                .into_iter()
                .fold(0, |set, permission| set | 1 << permission as u8),
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set: Permissions = [Permission::TokenRead, Permission::WebsocketConnect]
            .into_iter()
            .collect();
        assert!(set.contains(Permission::TokenRead));
        assert!(!set.contains(Permission::TokenWrite));
        assert_eq!(
            set.iter().map(Permission::name).collect::<Vec<_>>(),
            ["token.read", "websocket.connect"]
        );
    }

    #[test]
    fn names_read_back() {
        for permission in Permission::ALL {
            assert_eq!(Permission::parse(permission.name()).unwrap(), permission);
        }
        assert_eq!(Permission::parse("application.admin"), None);
    }
}
