//! Executors against the server: connections, bad input, and recovery from end to end. The executors
//! are fakes that speak the protocol over real sockets and share a fake application database.
#![allow(clippy::unwrap_used)]

mod books;
mod busy;
mod chaos;
mod cluster;
mod deployments;
mod explain;
mod fake;
mod frames;
mod fuzz;
mod handshake;
mod honest;
mod identity;
mod logs;
mod operations;
mod outage;
mod process;
mod recovery;
mod restart;
mod server;
mod stranded;
mod stream;
mod transport;
