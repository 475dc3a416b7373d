//! Owns how many descriptors the process may have open. Refuses to open any.
//!
//! A process begins with a soft limit for the sake of programs that cannot do with many (`select(2)`), often 1024, and may raise
//! it up to the hard one itself.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Files, timers, the console, those that are refused with a reason.
const OTHERS: usize = 200;

/// Raises the limit as far as this process may. A limit that is too low for what the configuration allows is warned of and
/// keeps nobody from starting: bounds are made for days that do not come, and where descriptors run out new
/// connections wait in the kernel's queue until some are closed.
pub fn raise(config: &Config) {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let most = if raised.is_ok() { limit.maximum } else { limit.current };
    if let Some(warning) = too_low(config, most) {
        tracing::warn!("{warning}");
    }
}

/// What is wrong with so many descriptors; `None`: not bounded.
fn too_low(config: &Config, most: Option<u64>) -> Option<String> {
    let most = most?;
    let limits = &config.limits;
    // Each client's, its server's, and in a switchover that of the other server.
    let clients = limits.max_clients.saturating_mul(3);
    let needed = clients
        .saturating_add(limits.max_unauthenticated)
        .saturating_add(config.pool.max_idle_connections)
        .saturating_add(OTHERS);
    let fit = usize::try_from(most).unwrap_or(usize::MAX);
    (fit < needed).then(|| {
        format!(
            "this process may have {most} files open, and limits.max_clients = {} may need {needed}: raise the hard limit \
             (LimitNOFILE={needed} in a systemd unit, or ulimit -Hn {needed}), or lower max_clients",
            limits.max_clients
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_limit_that_is_too_low_is_named_with_what_is_needed() {
        let text = "listen = [\"127.0.0.1:0\"]\nstate_file = \"s\"\n[blue]\nhost = \"/tmp\"\n\
                    [limits]\nmax_clients = 1000\nmax_unauthenticated = 100\n[pool]\nmax_idle_connections = 50\n";
        let config: Config = toml::from_str(text).unwrap();
        for fits in [None, Some(3350), Some(u64::MAX)] {
            assert_eq!(too_low(&config, fits), None);
        }
        let warning = too_low(&config, Some(3349)).unwrap();
        for said in ["may have 3349 files", "max_clients = 1000", "LimitNOFILE=3350"] {
            assert!(warning.contains(said), "{warning}");
        }
    }

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let text = "listen = [\"127.0.0.1:0\"]\nstate_file = \"s\"\n[blue]\nhost = \"/tmp\"\n";
        raise(&toml::from_str(text).unwrap());
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
