//! Wire messages between the Segno control plane and its executors.
