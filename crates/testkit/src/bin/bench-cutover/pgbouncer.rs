//! What both rival scripts stand on: PgBouncer in transaction mode in front of blue, and native logical replication to
//! green. Owns the preparation they share; refuses to know how they switch over.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pgteal_testkit::{PortLease, Program, wait_until};
use tokio_postgres::NoTls;

use crate::arena::{Arena, DATABASE};
use crate::contender::Endpoint;

/// How long replication may take to be in step, and PgBouncer to answer.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// A running PgBouncer, and its file to be rewritten.
#[derive(Debug)]
pub(crate) struct PgBouncer {
    _program: Program,
    port: PortLease,
    pub(crate) ini: PathBuf,
}

impl PgBouncer {
    /// Starts one whose only database leads to blue.
    pub(crate) async fn start(arena: &Arena) -> Result<PgBouncer> {
        let port = PortLease::take()?;
        let (ini, users) = (arena.file("pgbouncer.ini"), arena.file("users.txt"));
        std::fs::write(&users, "\"postgres\" \"\"\n")?;
        std::fs::write(
            &ini,
            Self::configuration(port.port(), arena.blue.port(), &users.display().to_string()),
        )?;
        let mut program = Program::file(find()?).dir(&arena.scratch);
        if rustix::process::geteuid().is_root() {
            program = program.args(["-u", "nobody"]);
        }
        let program = program.arg(&ini).spawn()?;
        let bouncer = PgBouncer { _program: program, port, ini };
        let config: tokio_postgres::Config = bouncer.conninfo(DATABASE).parse()?;
        wait_until("PgBouncer takes clients", READY_LIMIT, async || {
            config.connect(NoTls).await.map(|_| ()).map_err(|error| error.to_string())
        })
        .await?;
        Ok(bouncer)
    }

    /// The whole file. Both rivals rewrite it with green's port and RELOAD.
    fn configuration(port: u16, server: u16, users: &str) -> String {
        format!(
            "[databases]\n\
             {DATABASE} = host=127.0.0.1 port={server} dbname={DATABASE}\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = trust\nauth_file = {users}\nadmin_users = postgres\n\
             pool_mode = transaction\nmax_client_conn = 200\ndefault_pool_size = 40\n\
             ignore_startup_parameters = extra_float_digits\n"
        )
    }

    pub(crate) fn conninfo(&self, database: &str) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname={database}", self.port.port())
    }

    /// The console: its database is called `pgbouncer`.
    pub(crate) fn console(&self) -> String {
        self.conninfo("pgbouncer")
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint { host: "127.0.0.1".into(), port: self.port.port() }
    }
}

fn find() -> Result<PathBuf> {
    let places = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"];
    let found = places.iter().map(PathBuf::from).find(|place| place.exists());
    found.with_context(|| format!("PgBouncer is in none of {places:?}"))
}

/// Copies blue to green while nobody writes, then lets green follow.
pub(crate) async fn replicate(arena: &Arena) -> Result<()> {
    let (blue, green) = (&arena.blue, &arena.green);
    blue.sql_in(
        DATABASE,
        "CREATE TABLE marker (id int PRIMARY KEY, n bigint); INSERT INTO marker VALUES (1, 0)",
    )
    .await?;
    let dump = arena.file("bench.sql").display().to_string();
    let tools = green.distribution();
    arena.tool(tools, "pg_dump", &["-f", &dump, "-d", &blue.conninfo(DATABASE)]).await?;
    green.sql(&format!("CREATE DATABASE {DATABASE}")).await?;
    let restore = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", &dump, "-d", &green.conninfo(DATABASE)];
    arena.tool(tools, "psql", &restore).await?;
    std::fs::remove_file(&dump)?;
    green.sql_in(DATABASE, "VACUUM ANALYZE").await?;
    green.sql("CHECKPOINT").await?;

    blue.sql_in(DATABASE, "CREATE PUBLICATION forward FOR ALL TABLES").await?;
    let subscription = format!(
        "CREATE SUBSCRIPTION forward CONNECTION '{}' PUBLICATION forward WITH (copy_data = false)",
        blue.conninfo(DATABASE)
    );
    green.sql_in(DATABASE, &subscription).await?;
    blue.sql_in(DATABASE, "UPDATE marker SET n = -1").await?;
    let arrived = async || {
        let seen = green.sql_in(DATABASE, "SELECT n FROM marker").await.map_err(|error| error.to_string())?;
        if seen.trim() == "-1" { Ok(()) } else { Err(format!("green has {}", seen.trim())) }
    };
    wait_until("green follows blue", READY_LIMIT, arrived).await?;
    let behind =
        green.sql_in(DATABASE, "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'").await?;
    ensure!(behind.trim() == "0", "{} tables of green are not ready", behind.trim());
    Ok(())
}
