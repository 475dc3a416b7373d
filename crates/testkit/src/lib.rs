//! Real clusters as processes, links that fail, and the tests that need them. Owns how tests run servers and
//! programs and how nothing of them stays behind. Refuses to know the product: every crate may use the kit in its
//! tests, and the tests of the whole live under `tests/`.

mod cluster;
mod distribution;
mod link;
mod port;
mod program;
mod scratch;
mod template;
mod unprivileged;
mod wait;

pub use cluster::{Cluster, ClusterBuilder, ClusterError};
pub use distribution::{Distribution, DistributionError, MAJORS, drivers, required_majors};
pub use link::{Counters, Cut, Link};
pub use port::PortLease;
pub use program::{BinaryError, Output, Program, ProgramBuilder, ProgramError, binary};
pub use scratch::Scratch;
pub use wait::{WaitError, wait_until};
