//! Everybody who must get in, over every pair of transports, on every major version.

use pgteal_proxy::config::AuthMethod;
use pgteal_testkit::required_majors;

use crate::front::Front;
use crate::servers::{Certs, Leg, PASSWORD, server, server_config};

const LEGS: [Leg; 3] = [Leg::Unix, Leg::Plain, Leg::Tls];

async fn every_login(major: u16) {
    let certs = Certs::new();
    let cluster = server(major, &certs).await;
    for upstream_leg in LEGS {
        let config = server_config(&cluster, upstream_leg, &certs);
        for (method, users) in [
            (AuthMethod::Verifier, &["scram_user", "md5_user"][..]),
            (AuthMethod::Cleartext, &["clear_user", "scram_user", "md5_user"]),
            (AuthMethod::Trust, &["trust_user"]),
        ] {
            let front = Front::start(method, &config, &certs).await;
            for client_leg in LEGS {
                if method == AuthMethod::Cleartext && client_leg == Leg::Plain {
                    continue;
                }
                for user in users {
                    let what = format!("{major} {method:?} {user} {client_leg:?} to {upstream_leg:?}");
                    // A driver that insists on channel binding shows that SCRAM-SHA-256-PLUS was used.
                    let bound = method == AuthMethod::Verifier && *user == "scram_user";
                    let client = front.connect(client_leg, bound, user, PASSWORD).await;
                    let client = client.unwrap_or_else(|error| panic!("{what}: {error:?}"));
                    let row = client
                        .query_one(
                            "SELECT session_user::text, current_setting('application_name'),
                             COALESCE((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false)",
                            &[],
                        )
                        .await
                        .unwrap();
                    let encrypted = upstream_leg == Leg::Tls;
                    assert_eq!((row.get(0), row.get(1), row.get(2)), (*user, "matrix", encrypted), "{what}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_login_on_every_major() {
    for major in required_majors() {
        every_login(major).await;
    }
}
