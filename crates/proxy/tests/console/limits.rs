//! Every bound of the proxy, met by real clients.

use std::time::Duration;

use pgteal_testkit::wait_until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::{Client, Error, NoTls};

use crate::world::{World, value};

const BOUND: Duration = Duration::from_secs(30);

async fn connect(world: &World, user: &str, database: &str) -> Result<Client, Error> {
    let mut config = world.client_config();
    let (client, connection) = config.user(user).dbname(database).connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn refusal(refused: Result<Client, Error>) -> String {
    let error = refused.map(drop).expect_err("let in");
    let db = error.as_db_error().unwrap_or_else(|| panic!("{error:?}"));
    assert_eq!(db.code().code(), "53300", "{db:?}");
    db.message().to_owned()
}

async fn hits(world: &World, limit: &str) -> u64 {
    world.command("SHOW STATS").await[limit].parse().unwrap()
}

async fn met(world: &World, limit: &str) -> u64 {
    let hit = async || match hits(world, limit).await {
        0 => Err("0"),
        count => Ok(count),
    };
    wait_until(&format!("{limit} is met"), BOUND, hit).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_bounded_by_user_database_and_in_all() {
    let world = World::with(
        "create role a login; create role b login; create role c login; create role d login",
        "[limits]\nmax_clients = 5\nmax_user_client_connections = 2\nmax_db_client_connections = 4\n",
    )
    .await;
    let mut clients = Vec::new();
    for (user, database) in [("a", "postgres"), ("a", "postgres"), ("b", "postgres"), ("b", "postgres")] {
        clients.push(connect(&world, user, database).await.unwrap());
    }
    let message = refusal(connect(&world, "a", "template1").await);
    assert!(message.contains("2 clients of user \"a\"") && message.contains("max_user_client"), "{message}");
    let message = refusal(connect(&world, "c", "postgres").await);
    assert!(message.contains("4 clients to database \"postgres\""), "{message}");
    clients.push(connect(&world, "c", "template1").await.unwrap());
    let message = refusal(connect(&world, "d", "template1").await);
    assert!(message.contains("limit of 5 clients is reached"), "{message}");
    for limit in ["max_clients", "max_user_client_connections", "max_db_client_connections"] {
        assert_eq!(hits(&world, limit).await, 1, "{limit}");
    }
    // Who was let in works on, and who goes makes room.
    assert_eq!(value(&clients[0], "select who()").await, "blue");
    clients.remove(0);
    let room = async || connect(&world, "a", "postgres").await.map_err(|error| error.to_string());
    clients.push(wait_until("there is room for another of user a", BOUND, room).await.unwrap());
    refusal(connect(&world, "a", "postgres").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_bounded_by_address() {
    let world = World::with("", "[limits]\nmax_address_client_connections = 2\n").await;
    let clients = [world.client().await, world.client().await];
    let message = refusal(connect(&world, "postgres", "postgres").await);
    assert!(message.contains("2 clients from 127.0.0.1"), "{message}");
    // A Unix socket has no address.
    let mut config = tokio_postgres::Config::new();
    config.host_path(world.dir.path()).port(6432).user("postgres").dbname("postgres");
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(value(&client, "select who()").await, "blue");
    assert_eq!(hits(&world, "max_address_client_connections").await, 1);
    drop(clients);
}

/// More connections that say nothing, or not enough, than the listener has places.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_locks_nobody_out() {
    let world = World::with("", "[limits]\nmax_clients = 10\nmax_unauthenticated = 20\n").await;
    let client = world.client().await;
    let mut silent = Vec::new();
    for number in 0..400 {
        let mut stream = TcpStream::connect(("127.0.0.1", world.port())).await.unwrap();
        if number % 2 == 0 {
            // The beginning of a startup packet.
            stream.write_all(&[0, 0, 1]).await.unwrap();
        }
        silent.push(stream);
    }
    assert_eq!(value(&client, "select who()").await, "blue");
    let late = tokio::time::timeout(BOUND, world.client()).await.expect("locked out");
    assert_eq!(value(&late, "select who()").await, "blue");
    assert!(hits(&world, "max_unauthenticated").await >= 200);
    // The last ones are not too many: they keep the time that a login has.
    let left = async || {
        // A reset is an end as well: what was sent was not read.
        let is_open = |stream: &&TcpStream| {
            stream.try_read(&mut [0; 8]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
        };
        let open = silent.iter().filter(is_open).count();
        if open == 20 { Ok(()) } else { Err(open) }
    };
    wait_until("as many are left as there may be", BOUND, left).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_has_its_time() {
    let world = World::with("", "[limits]\nclient_login_ms = 1000\n").await;
    let mut silent = TcpStream::connect(("127.0.0.1", world.port())).await.unwrap();
    let mut nothing = Vec::new();
    tokio::time::timeout(BOUND, silent.read_to_end(&mut nothing)).await.expect("not closed").unwrap();
    assert_eq!((nothing.len(), met(&world, "client_login_ms").await), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_held_is_bounded_and_so_is_what_waits() {
    const LONG: usize = 400_000;
    let limits = "[limits]\nmax_held_clients = 3\nmax_held_bytes = 50000\n";
    let world = World::with("", limits).await;
    let clients = [world.client().await, world.client().await, world.client().await, world.client().await];
    world.command("HOLD EPOCH 1 LIMIT 60000").await;
    let waits = clients.map(|client| {
        tokio::spawn(async move {
            let sql = format!("select length('{}') || who()", "x".repeat(LONG));
            value(&client, &sql).await
        })
    });
    let all = async || {
        let held = world.rows("SHOW HELD").await;
        if held.len() == 4 { Ok(()) } else { Err(format!("{held:?}")) }
    };
    wait_until("sessions may always wait", BOUND, all).await.unwrap();
    met(&world, "max_held_bytes").await;
    let held = world.rows("SHOW HELD").await;
    let bytes: usize = held.iter().map(|row| row["bytes"].parse::<usize>().unwrap()).sum();
    // Each has read once, and the one that went over the bound.
    assert!((50_000..4 * 16 * 1024 + 50_000).contains(&bytes), "{held:?}");
    let message = refusal(connect(&world, "postgres", "postgres").await);
    assert!(message.contains("limit of 3 held clients"), "{message}");
    assert_eq!(hits(&world, "max_held_clients").await, 1);
    world.command("RELEASE EPOCH 1").await;
    for waits in waits {
        let answer = tokio::time::timeout(BOUND, waits).await.expect("goes on").unwrap();
        assert_eq!(answer, format!("{LONG}blue"));
    }
    connect(&world, "postgres", "postgres").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_has_its_size() {
    let world = World::with("", "[limits]\nmax_packet_size = 10000\n").await;
    let (client, other) = (world.client().await, world.client().await);
    let sql = |length: usize| format!("select length('{}')", "x".repeat(length));
    assert_eq!(value(&client, &sql(9_900)).await, "9900");
    let error = client.simple_query(&sql(10_000)).await.expect_err("over the limit");
    let db = error.as_db_error().unwrap_or_else(|| panic!("{error:?}"));
    assert_eq!(db.code().code(), "08P01");
    assert!(db.message().contains("over the limit of 10000"), "{}", db.message());
    assert_eq!(value(&other, "select who()").await, "blue");
    // What servers say is not bounded by it.
    assert_eq!(value(&other, "select repeat('x', 50000)").await.len(), 50_000);
    assert_eq!(hits(&world, "max_packet_size").await, 1);
}
