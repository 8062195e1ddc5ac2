//! One way to write a query for both databases.
//!
//! A [`Statement`] is SQL text with its parameters. Two shorthands are expanded for the database at
//! hand: `@name` is the table `name` in the configured schema, and `NOW_MS` the database's clock in
//! epoch milliseconds. Everything else is written in the SQL that Postgres and SQLite share.

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Column as _, Postgres, Row as _, Sqlite, TypeInfo as _};

use super::error::DatabaseError;

/// The database kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// PostgreSQL, or anything that speaks its protocol and SQL.
    Postgres,
    /// SQLite in a file or in memory.
    Sqlite,
}

impl Dialect {
    /// The database's clock as an integer of epoch milliseconds.
    ///
    /// On Postgres it stands still within a transaction. The cast keeps `bigint` indexes usable.
    #[must_use]
    pub fn now_ms(self) -> &'static str {
        match self {
            Self::Postgres => "(EXTRACT(EPOCH FROM now()) * 1000)::BIGINT",
            Self::Sqlite => "(CAST(unixepoch('subsec') * 1000 AS INTEGER))",
        }
    }
}

/// A parameter.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Text(Option<String>),
    Int(Option<i64>),
    Float(Option<f64>),
    Bool(bool),
    /// A list for [`Statement::any_of`]: an array on Postgres, JSON text on SQLite.
    TextList(Vec<String>),
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}
impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(Some(value))
    }
}
impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Self::Text(Some(value.clone()))
    }
}
impl From<Option<String>> for Value {
    fn from(value: Option<String>) -> Self {
        Self::Text(value)
    }
}
impl From<Option<&str>> for Value {
    fn from(value: Option<&str>) -> Self {
        Self::Text(value.map(str::to_owned))
    }
}
impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}
impl From<Option<i64>> for Value {
    fn from(value: Option<i64>) -> Self {
        Self::Int(value)
    }
}
impl From<Option<f64>> for Value {
    fn from(value: Option<f64>) -> Self {
        Self::Float(value)
    }
}
impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(Some(value))
    }
}
impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

/// SQL text under construction, with its parameters in order.
#[derive(Debug, Clone)]
pub(crate) struct Statement {
    pub(super) dialect: Dialect,
    prefix: String,
    now: &'static str,
    text: String,
    values: Vec<Value>,
}

impl Statement {
    /// `prefix` qualifies table names: `"dbos".`, or nothing on SQLite.
    pub(super) fn new(dialect: Dialect, prefix: &str, now: &'static str) -> Self {
        Self {
            dialect,
            prefix: prefix.to_owned(),
            now,
            text: String::new(),
            values: Vec::new(),
        }
    }

    /// Appends SQL text. It must be ours: values go through [`bind`](Self::bind).
    pub(crate) fn push(mut self, sql: &str) -> Self {
        self.append(sql);
        self
    }

    /// Appends a parameter.
    pub(crate) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.append_value(value.into());
        self
    }

    /// Appends a JSON text parameter for a JSON column.
    pub(crate) fn bind_json(self, value: Option<String>) -> Self {
        match self.dialect {
            Dialect::Postgres => self.push("CAST(").bind(value).push(" AS JSONB)"),
            Dialect::Sqlite => self.bind(value),
        }
    }

    /// Appends a parameter that is an array (Postgres).
    pub(crate) fn bind_list(self, values: &[String]) -> Self {
        self.bind_value(Value::TextList(values.to_vec()))
    }

    /// The database this is for.
    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Appends the condition that `column` is one of `values`.
    pub(crate) fn any_of(self, column: &str, values: &[String]) -> Self {
        let list = Value::TextList(values.to_vec());
        match self.dialect {
            Dialect::Postgres => self.push(column).push(" = ANY(").bind_value(list).push(")"),
            Dialect::Sqlite => self
                .push(column)
                .push(" IN (SELECT value FROM json_each(")
                .bind_value(list)
                .push("))"),
        }
    }

    /// Appends text only for one database.
    pub(crate) fn push_for(self, dialect: Dialect, sql: &str) -> Self {
        if self.dialect == dialect {
            self.push(sql)
        } else {
            self
        }
    }

    fn bind_value(mut self, value: Value) -> Self {
        self.append_value(value);
        self
    }

    fn append_value(&mut self, value: Value) {
        self.values.push(value);
        let n = self.values.len();
        self.text.push_str(&format!("${n}"));
    }

    fn append(&mut self, sql: &str) {
        let sql = sql.replace("NOW_MS", self.now);
        let mut rest = sql.as_str();
        while let Some(at) = rest.find('@') {
            let (before, after) = (&rest[..at], &rest[at + 1..]);
            self.text.push_str(before);
            if after.starts_with(|c: char| c.is_ascii_lowercase()) {
                self.text.push_str(&self.prefix);
            } else {
                self.text.push('@'); // the containment operator
            }
            rest = after;
        }
        self.text.push_str(rest);
    }

    fn into_postgres<'q>(self) -> sqlx::query::Query<'q, Postgres, sqlx::postgres::PgArguments> {
        let mut query = sqlx::query::<Postgres>(AssertSqlSafe(self.text));
        for value in self.values {
            query = match value {
                Value::Text(v) => query.bind(v),
                Value::Int(v) => query.bind(v),
                Value::Float(v) => query.bind(v),
                Value::Bool(v) => query.bind(v),
                Value::TextList(v) => query.bind(v),
            };
        }
        query
    }

    fn into_sqlite<'q>(self) -> sqlx::query::Query<'q, Sqlite, sqlx::sqlite::SqliteArguments> {
        let mut query = sqlx::query::<Sqlite>(AssertSqlSafe(self.text));
        for value in self.values {
            query = match value {
                Value::Text(v) => query.bind(v),
                Value::Int(v) => query.bind(v),
                Value::Float(v) => query.bind(v),
                Value::Bool(v) => query.bind(v),
                Value::TextList(v) => query.bind(serde_json::Value::from(v).to_string()),
            };
        }
        query
    }

    pub(super) async fn fetch_postgres<'c, E>(self, on: E) -> Result<Vec<Row>, DatabaseError>
    where
        E: sqlx::Executor<'c, Database = Postgres>,
    {
        Ok(self
            .into_postgres()
            .fetch_all(on)
            .await?
            .into_iter()
            .map(Row::Postgres)
            .collect())
    }

    pub(super) async fn fetch_sqlite<'c, E>(self, on: E) -> Result<Vec<Row>, DatabaseError>
    where
        E: sqlx::Executor<'c, Database = Sqlite>,
    {
        Ok(self
            .into_sqlite()
            .fetch_all(on)
            .await?
            .into_iter()
            .map(Row::Sqlite)
            .collect())
    }

    pub(super) async fn execute_postgres<'c, E>(self, on: E) -> Result<u64, DatabaseError>
    where
        E: sqlx::Executor<'c, Database = Postgres>,
    {
        Ok(self.into_postgres().execute(on).await?.rows_affected())
    }

    pub(super) async fn execute_sqlite<'c, E>(self, on: E) -> Result<u64, DatabaseError>
    where
        E: sqlx::Executor<'c, Database = Sqlite>,
    {
        Ok(self.into_sqlite().execute(on).await?.rows_affected())
    }
}

/// A row of either database, read by column name.
pub(crate) enum Row {
    Postgres(PgRow),
    Sqlite(SqliteRow),
}

impl Row {
    /// A text column; JSON columns must be cast to text in the query.
    pub(crate) fn text(&self, column: &str) -> Result<Option<String>, DatabaseError> {
        Ok(match self {
            Self::Postgres(row) => row.try_get(column)?,
            Self::Sqlite(row) => row.try_get_unchecked(column)?,
        })
    }

    /// A text column where an empty string means "none".
    pub(crate) fn filled(&self, column: &str) -> Result<Option<String>, DatabaseError> {
        Ok(self.text(column)?.filter(|text| !text.is_empty()))
    }

    /// A text column that is never null.
    pub(crate) fn required(&self, column: &str) -> Result<String, DatabaseError> {
        Ok(self.text(column)?.unwrap_or_default())
    }

    /// An integer column of any width.
    pub(crate) fn int(&self, column: &str) -> Result<Option<i64>, DatabaseError> {
        Ok(match self {
            Self::Postgres(row) => match row.try_column(column)?.type_info().name() {
                "INT4" => row.try_get::<Option<i32>, _>(column)?.map(i64::from),
                _ => row.try_get(column)?,
            },
            Self::Sqlite(row) => row.try_get_unchecked(column)?,
        })
    }

    /// A floating point column.
    pub(crate) fn float(&self, column: &str) -> Result<Option<f64>, DatabaseError> {
        Ok(match self {
            Self::Postgres(row) => row.try_get(column)?,
            Self::Sqlite(row) => row.try_get_unchecked(column)?,
        })
    }

    /// A boolean column; null reads as false.
    pub(crate) fn bool(&self, column: &str) -> Result<bool, DatabaseError> {
        Ok(match self {
            Self::Postgres(row) => row.try_get::<Option<bool>, _>(column)?,
            Self::Sqlite(row) => row.try_get_unchecked::<Option<bool>, _>(column)?,
        }
        .unwrap_or(false))
    }
}
