//! A deployment driven by the product's own binaries: real blue and green, `pgteal proxy` as a process, `pgteal` run once
//! per command, killed where a test wants. Shared by the tests whose names begin with `crash_`.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::Duration;

use pgteal_ledger::{Oracle, Record, Verdict, Workload, WorkloadConfig};
use pgteal_testkit::{Cluster, Output, PortLease, Program, Scratch, wait_until};

/// The longest a single command may take.
const BOUND: Duration = Duration::from_secs(120);
/// SIGABRT: how `PGTEAL_CRASH` ends the process.
const ABORTED: i32 = 6;

/// Verifiers of the passwords `tool` and `app`: with salts of their own, two portraits would never be equal.
const TOOL: &str = "SCRAM-SHA-256$4096:IiKEjdOXMYkP20siXZXEXg==$F2BRIsY++U+wSAX+LeylNjV1tQpVJp3KPCYS1HAfvXI=:kzp1bePOfEJ4/gmbwLtSYH5O4+zMBuqhPvVpCUwdhyE=";
const APP: &str = "SCRAM-SHA-256$4096:H5z4sAuK7vjWcRfP10UaCA==$PK/mmiG/6UEnthYMTvN45LPj68r9VnkMtn1vJQM7NVg=:J+EA5Kf3ZvKrGUh2bVpPEF3dHj6YniCd9mcDfu7Pufs=";

/// What the application has that fires on replicated rows and on DDL: it is kept quiet where rows arrive, and must be as it
/// was in the end.
const WATCHERS: &str =
    "CREATE FUNCTION public.look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
    CREATE TRIGGER look AFTER INSERT ON shop.notes FOR EACH ROW EXECUTE FUNCTION public.look();
    ALTER TABLE shop.notes ENABLE ALWAYS TRIGGER look;
    CREATE FUNCTION public.look_at_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$;
    CREATE EVENT TRIGGER look_at_ddl ON ddl_command_end EXECUTE FUNCTION public.look_at_ddl()";

pub struct Rig {
    pub blue: Cluster,
    pub green: Cluster,
    pub proxy: Program,
    pub port: PortLease,
    pub dir: Arc<Scratch>,
    /// The tool's password on blue, and on green.
    pub passwords: [&'static str; 2],
}

/// The tool's password on a side where a test does not care.
const SAME: &str = "tool";

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// At the crash point.
    Crashed,
    /// By itself, with this code.
    Code(i32),
}

impl Rig {
    pub async fn new(from: u16, to: u16, rows: u64) -> Self {
        Self::with_proxy(from, to, rows, "").await
    }

    /// [`Rig::new`] with more in `[proxy]`.
    pub async fn with_proxy(from: u16, to: u16, rows: u64, proxy: &str) -> Self {
        Self::with_passwords(from, to, rows, proxy, [SAME; 2]).await
    }

    /// [`Rig::with_proxy`] where the tool has these passwords on blue and on green, and is asked for them unless they are one.
    pub async fn with_passwords(
        from: u16,
        to: u16,
        rows: u64,
        proxy: &str,
        passwords: [&'static str; 2],
    ) -> Self {
        let builder = |major, name: &str| {
            let builder = Cluster::builder(major)
                .name(name)
                .set("wal_retrieve_retry_interval", "100ms")
                .hba("host all app 127.0.0.1/32 scram-sha-256");
            match passwords {
                [SAME, SAME] => builder,
                _ => builder.hba("host all pgteal 127.0.0.1/32 scram-sha-256"),
            }
        };
        let (blue, green) = tokio::join!(builder(from, "blue").start(), builder(to, "green").start());
        let (blue, green) = (blue.unwrap(), green.unwrap());
        for (cluster, password) in [(&blue, passwords[0]), (&green, passwords[1])] {
            let password = if password == SAME { TOOL } else { password };
            let sql = format!("CREATE ROLE pgteal SUPERUSER LOGIN PASSWORD '{password}'");
            cluster.sql(&sql).await.unwrap();
        }
        blue.sql(&format!("CREATE ROLE app LOGIN PASSWORD '{APP}'")).await.unwrap();
        for name in ["shop", "billing"] {
            blue.sql(&format!("CREATE DATABASE {name} OWNER app")).await.unwrap();
        }
        let owner = async |db: &str| {
            let mut config = blue.config(db);
            let login = config.user("app").password("app").connect(tokio_postgres::NoTls);
            let (client, connection) = login.await.unwrap();
            tokio::spawn(connection);
            client
        };
        pgteal_ledger::create_shop(&owner("shop").await, rows).await.unwrap();
        pgteal_ledger::create_billing(&owner("billing").await, rows).await.unwrap();
        blue.sql_in("shop", WATCHERS).await.unwrap();
        let (port, dir) = (PortLease::take().unwrap(), Arc::new(Scratch::new().unwrap()));
        let config = format!(
            "[deployment]\nname = \"crash\"\n[blue]\nconninfo = \"host=127.0.0.1 port={} user=pgteal dbname=postgres\"\n\
             [green]\nprovider = \"existing\"\nconninfo = \"host=127.0.0.1 port={} user=pgteal dbname=postgres\"\n\
             bindir = \"{}\"\n[proxy]\nlisten = [\"127.0.0.1:{port}\"]\nunix_port = {port}\n\
             {proxy}\n[checks]\n",
            blue.port(),
            green.port(),
            green.distribution().bin().display(),
            port = port.port(),
        );
        std::fs::write(dir.path().join("pgteal.toml"), config).unwrap();
        let proxy = Self::program(&dir, passwords).arg("proxy").spawn().unwrap();
        let rig = Self { blue, green, proxy, port, dir, passwords };
        rig.proxy_listens().await;
        rig
    }

    async fn proxy_listens(&self) {
        wait_until("the proxy to take clients", Duration::from_secs(20), async || {
            match tokio::net::TcpStream::connect(("127.0.0.1", self.port.port())).await {
                Ok(_) => Ok(Some(())),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
        .unwrap();
    }

    /// The proxy ends, and another one begins in its place, with the passwords as they are now.
    pub async fn restart_proxy(&mut self) {
        self.proxy.terminate().unwrap();
        self.proxy.wait(BOUND).await.unwrap();
        self.proxy = self.start(&["proxy"]);
        self.proxy_listens().await;
    }

    fn program(dir: &Arc<Scratch>, [blue, green]: [&str; 2]) -> pgteal_testkit::ProgramBuilder {
        let program = Program::product("pgteal").unwrap().dir(dir);
        program.env("PGTEAL_BLUE_PASSWORD", blue).env("PGTEAL_GREEN_PASSWORD", green)
    }

    fn command(&self) -> pgteal_testkit::ProgramBuilder {
        Self::program(&self.dir, self.passwords)
    }

    /// Runs a command to its end.
    pub async fn run(&self, args: &[&str]) -> Output {
        self.command().args(args).run(BOUND).await.unwrap()
    }

    /// Starts a command that is not waited for.
    pub fn start(&self, args: &[&str]) -> Program {
        self.command().args(args).spawn().unwrap()
    }

    /// Runs a command that must succeed.
    pub async fn must(&self, args: &[&str]) -> Output {
        let output = self.run(args).await;
        assert!(
            output.status.success(),
            "pgteal {args:?}: {:?}\n{}{}",
            output.status,
            output.stdout,
            output.stderr
        );
        output
    }

    /// Runs a command that is to be killed at `point`.
    pub async fn crash(&self, args: &[&str], point: &str) -> (End, Output) {
        let output = self.command().args(args).env("PGTEAL_CRASH", point).run(BOUND).await.unwrap();
        let end = match (output.status.signal(), output.status.code()) {
            (Some(ABORTED), _) => End::Crashed,
            (None, Some(code)) => End::Code(code),
            other => {
                panic!("pgteal {args:?} at {point} ended by {other:?}\n{}{}", output.stdout, output.stderr)
            }
        };
        (end, output)
    }

    /// Whether the application's watchers are on again, as they were made.
    pub async fn watchers(&self, cluster: &Cluster) -> String {
        let sql = "SELECT string_agg(on_, ' ' ORDER BY on_) FROM (SELECT tgname || ':' || tgenabled::text AS on_ FROM pg_trigger
            WHERE tgname = 'look' UNION ALL SELECT evtname || ':' || evtenabled::text FROM pg_event_trigger) x";
        cluster.sql_in("shop", sql).await.unwrap()
    }

    pub async fn workload(&self, rate: f64) -> Workload {
        let to = |db| format!("host=127.0.0.1 port={} user=app password=app dbname={db}", self.port.port());
        let mut config = WorkloadConfig::new(&to("shop")).unwrap().with_billing(&to("billing"), 1).unwrap();
        config.sessions = 4;
        config.rate = Some(rate);
        Workload::start(config).await.unwrap()
    }

    pub async fn judge(&self, record: &Record, cluster: &Cluster) -> Verdict {
        let shop = cluster.connect("shop").await.unwrap();
        let billing = cluster.connect("billing").await.unwrap();
        Oracle::new(record).check(&shop, Some(&billing)).await.unwrap()
    }

    /// Everything of a cluster that a deployment could change, as text, without what differs from run to run: the
    /// deployment's id, OIDs, positions.
    pub async fn portrait(&self, cluster: &Cluster) -> String {
        let mut text = cluster.sql(CLUSTER).await.unwrap();
        let names = "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1";
        for db in cluster.sql(names).await.unwrap().lines() {
            text.push_str(&format!("\n== {db}\n{}", cluster.sql_in(db, DATABASE).await.unwrap()));
        }
        hide_ids(&text)
    }
}

/// `pgteal_abcd2345_` and `deployment abcd2345` name one deployment of many.
fn hide_ids(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = ["pgteal_", "pgteal deployment "]
        .iter()
        .filter_map(|mark| rest.find(mark).map(|at| at + mark.len()))
        .min()
    {
        shown.push_str(&rest[..at]);
        rest = &rest[at..];
        let is_id = rest.len() >= 8
            && rest.bytes().take(8).all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            && !rest.as_bytes().get(8).is_some_and(u8::is_ascii_alphanumeric);
        if is_id {
            shown.push_str("<id>");
            rest = &rest[8..];
        }
    }
    shown + rest
}

const CLUSTER: &str = "SELECT string_agg(line, chr(10) ORDER BY line) FROM (
    SELECT 'role ' || concat_ws('|', rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication,
      rolbypassrls, rolconnlimit, rolpassword, rolvaliduntil) AS line FROM pg_authid WHERE oid >= 16384 OR rolname = 'postgres'
    UNION ALL SELECT 'member ' || roleid::regrole || ' ' || member::regrole || ' ' || admin_option FROM pg_auth_members
      WHERE roleid >= 16384 OR member >= 16384
    UNION ALL SELECT 'database ' || concat_ws('|', datname, pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate,
      datctype, datallowconn, datconnlimit, datacl::text, shobj_description(oid, 'pg_database')) FROM pg_database
    UNION ALL SELECT 'setting ' || coalesce(d.datname, '-') || ' ' || coalesce(r.rolname, '-') || ' ' || s.setconfig::text
      FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_roles r ON r.oid = s.setrole
    UNION ALL SELECT 'slot ' || concat_ws('|', slot_name, plugin, slot_type, database, temporary) FROM pg_replication_slots
    UNION ALL SELECT 'system ' || name || '=' || coalesce(setting, '') FROM pg_file_settings WHERE sourcefile LIKE '%auto.conf'
  ) x";

const DATABASE: &str = "SELECT string_agg(line, chr(10) ORDER BY line) FROM (
    SELECT 'relation ' || concat_ws('|', n.nspname, c.relname, c.relkind, c.relreplident, c.relacl::text, c.relpersistence) AS line
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
    UNION ALL SELECT 'schema ' || concat_ws('|', nspname, pg_get_userbyid(nspowner), nspacl::text, obj_description(oid, 'pg_namespace'))
      FROM pg_namespace WHERE nspname !~ '^pg_(toast|temp)'
    UNION ALL SELECT 'trigger ' || tgrelid::regclass || ' ' || tgname || ' ' || tgenabled::text FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT 'event trigger ' || evtname || ' ' || evtenabled::text FROM pg_event_trigger
    UNION ALL SELECT 'function ' || p.oid::regprocedure || ' ' || md5(p.prosrc) FROM pg_proc p JOIN pg_namespace n
      ON n.oid = p.pronamespace WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')
    UNION ALL SELECT 'constraint ' || conrelid::regclass || ' ' || conname || ' ' || convalidated FROM pg_constraint WHERE conrelid >= 16384
    UNION ALL SELECT 'publication ' || pubname || ' ' || puballtables FROM pg_publication
    UNION ALL SELECT 'subscription ' || concat_ws('|', subname, subenabled, subslotname, subpublications::text) FROM pg_subscription
      WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    UNION ALL SELECT 'in stream ' || srrelid::regclass || ' ' || srsubstate::text FROM pg_subscription_rel
    UNION ALL SELECT 'extension ' || extname FROM pg_extension
    UNION ALL SELECT 'index ' || indexrelid::regclass || ' ' || indisvalid::text || ' ' || indisreplident::text FROM pg_index WHERE indexrelid >= 16384
      AND indexrelid::regclass::text !~ '^pg_toast'
  ) x";
