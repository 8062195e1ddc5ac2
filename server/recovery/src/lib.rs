//! What Segno decides about lost executors, and nothing else: no clock, no socket, no row. A crate of
//! its own so that nothing else can slip in, and so that it is optimized where it is checked
//! exhaustively.
//!
//! - [`machine`] decides what becomes of one executor.
//! - [`books`] says what the rows about executors and instances become, and whose claim stands.
//! - [`liveness`] judges whether a connected executor answers.
//! - [`invariants`] says what must hold at every step; debug builds check it as they run.
//!
//! `tests/` drives these functions through every order of events within bounds, through random
//! orders, and through long simulated days with seeds.

pub mod books;
pub mod invariants;
pub mod liveness;
pub mod machine;
