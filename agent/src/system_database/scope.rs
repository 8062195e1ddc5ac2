//! Which applications' rows a statement may touch.
//!
//! Several applications may share one system database. Rows carry their owner's name, or none; a row
//! without owner belongs to everybody's view.

use super::statement::Statement;

/// The applications whose rows an operation sees. Rows without owner always match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Scope {
    /// Every application of the database.
    #[default]
    All,
    /// These applications.
    Applications(Vec<String>),
}

impl Scope {
    /// The scope of one application; of all for one without a name.
    #[must_use]
    pub fn of(application: &str) -> Self {
        if application.is_empty() {
            return Self::All;
        }
        Self::Applications(vec![application.to_owned()])
    }
}

impl Statement {
    /// Appends `AND` and the condition that `column` names an application in `scope`, or nobody.
    pub(crate) fn and_scope(self, column: &str, scope: &Scope) -> Self {
        match scope {
            Scope::Applications(names) if !names.is_empty() => self
                .push(" AND (")
                .any_of(column, names)
                .push(" OR ")
                .push(column)
                .push(" IS NULL)"),
            _ => self,
        }
    }
}
