//! The test kit, through its public interface.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

mod crash;
mod replay;
mod time;
