//! The Segno control plane.
