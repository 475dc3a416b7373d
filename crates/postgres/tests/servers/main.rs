//! Operations on real servers, every installed major release. One cluster per release serves all tests, each with
//! databases of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cluster;
mod contents;
mod fence;
mod fence_proof;
mod seal;
mod sequences;
mod sessions;
mod streams;
mod tls;
