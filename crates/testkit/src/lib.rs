//! Real clusters as processes, links that fail, and the tests that need them. Owns how tests run servers and
//! programs and how nothing of them stays behind. Refuses to know the product: every crate may use the kit in its
//! tests, and the tests of the whole live under `tests/`.

mod cluster;
mod distribution;
mod port;
mod scratch;
mod template;
mod unprivileged;
mod wait;

pub use cluster::{Builder, Cluster, ClusterError};
pub use distribution::{Distribution, DistributionError, MAJORS, required_majors};
pub use port::PortLease;
pub use scratch::Scratch;
pub use wait::{WaitError, wait_until};
