//! Attribute macros of the `segno` crate.
