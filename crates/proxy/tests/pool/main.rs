//! Server connections that are used again: what the next client finds, and who gets none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../world/mod.rs"]
mod world;

mod cancels;
mod late_answers;
mod leaks;
mod lives;
mod logins;
mod switches;

use std::time::Duration;

use pgteal_testkit::wait_until;
use tokio_postgres::{Client, NoTls};
use world::{World, value};

/// Longer than any test takes.
const LASTING: &str = "server_idle_timeout = 600";

/// What lies idle stays.
async fn lasting(schema: &str) -> World {
    World::with(schema, &format!("[pool]\n{LASTING}\n")).await
}

/// A client whose startup packet says what it is called.
async fn named(world: &World, name: &str) -> Client {
    let mut config = world.client_config();
    connect(config.application_name(name)).await
}

async fn connect(config: &tokio_postgres::Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn pid(client: &Client) -> String {
    value(client, "select pg_backend_pid()").await
}

/// Waits until so many connections lie idle, and nobody is inside.
async fn idle(world: &World, count: usize) {
    let what = format!("{count} connections to lie idle");
    wait_until(&what, Duration::from_secs(10), async || {
        let state = world.command("SHOW STATE").await;
        let seen = ["clients", "busy", "free_upstreams"].map(|column| state[column].clone());
        if seen[1] == "0" && seen[2] == count.to_string() { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await
    .unwrap();
}

/// Waits until no session is there, and nothing is under way.
async fn nobody(world: &World) {
    wait_until("everybody to be gone", Duration::from_secs(10), async || {
        let state = world.command("SHOW STATE").await;
        let seen = ["clients", "busy"].map(|column| state[column].clone());
        if seen == ["0", "0"] { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await
    .unwrap();
}
