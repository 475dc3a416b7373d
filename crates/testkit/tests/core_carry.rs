//! Carrying everything but the rows from one real server to another, again after interruptions, and back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pgteal_core::carry::indexes::{self, Site, Stage};
use pgteal_core::carry::{Author, Dump, databases, matviews, roles, schema, statistics, triggers};
use pgteal_core::deployment::DeploymentId;
use pgteal_core::progress::silent;
use pgteal_core::providers::Programs;
use pgteal_postgres::{ConnInfo, Purpose, Server, Session, fingerprint};
use pgteal_testkit::{Cluster, Distribution, Scratch};

const ROLES: &str = r#"
    CREATE ROLE pgteal SUPERUSER LOGIN;
    CREATE ROLE owner NOLOGIN CREATEDB; COMMENT ON ROLE owner IS 'it''s the owner';
    CREATE ROLE staff; CREATE ROLE boss LOGIN CONNECTION LIMIT 7 VALID UNTIL '2031-01-02 03:04:05+00';
    CREATE ROLE "odd ""name" LOGIN PASSWORD 'secret';
    SET password_encryption = 'md5'; CREATE ROLE old LOGIN PASSWORD 'old'; RESET password_encryption;
    ALTER ROLE boss SET work_mem = '5MB'; ALTER ROLE boss SET search_path = app, "$user", public;
    GRANT staff TO boss WITH ADMIN OPTION; GRANT staff TO "odd ""name"; GRANT pg_monitor TO staff;
    ALTER ROLE postgres SET log_min_messages = 'error';
    CREATE DATABASE app OWNER owner TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C';
    CREATE DATABASE "odd / db" CONNECTION LIMIT 9;
    COMMENT ON DATABASE app IS 'shop'; REVOKE CONNECT ON DATABASE app FROM PUBLIC;
    GRANT CONNECT ON DATABASE app TO staff WITH GRANT OPTION; GRANT CREATE ON DATABASE app TO "odd ""name";
    ALTER DATABASE app SET statement_timeout = '70s'; ALTER ROLE boss IN DATABASE app SET work_mem = '6MB';
"#;

const SCHEMA: &str = r#"
    SET ROLE owner; CREATE SCHEMA app AUTHORIZATION owner; SET search_path = app;
    CREATE TYPE app.mood AS ENUM ('sad', 'ok'); CREATE DOMAIN app.qty AS int CHECK (VALUE > 0);
    CREATE TABLE app.customer (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text NOT NULL, mood app.mood DEFAULT 'ok',
        doc jsonb, low text GENERATED ALWAYS AS (lower(email)) STORED, CONSTRAINT email_form CHECK (email LIKE '%@%') NOT VALID);
    CREATE UNIQUE INDEX customer_email ON app.customer (email); ALTER TABLE app.customer REPLICA IDENTITY USING INDEX customer_email;
    CREATE INDEX customer_doc ON app.customer USING gin (doc) ; CREATE INDEX customer_part ON app.customer (email) WHERE mood = 'sad';
    CREATE TABLE app.orders (id serial, at date NOT NULL, customer bigint REFERENCES app.customer ON DELETE CASCADE, n app.qty,
        PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE app.orders_1 PARTITION OF app.orders FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
    CREATE TABLE app.orders_2 PARTITION OF app.orders FOR VALUES FROM ('2026-07-01') TO ('2027-01-01');
    CREATE INDEX orders_customer ON app.orders (customer);
    CREATE TABLE app.nokey (a int, b text); ALTER TABLE app.nokey REPLICA IDENTITY FULL;
    CREATE TABLE app.span (r int4range, EXCLUDE USING gist (r WITH &&));
    CREATE TABLE app.log (n int PRIMARY KEY, what text);
    CREATE TABLE app.a (id int PRIMARY KEY, b int); CREATE TABLE app.b (id int PRIMARY KEY, a int REFERENCES app.a);
    ALTER TABLE app.a ADD FOREIGN KEY (b) REFERENCES app.b DEFERRABLE INITIALLY DEFERRED;
    CREATE STATISTICS app.customer_stat ON email, mood FROM app.customer;
    CREATE FUNCTION app.touch() RETURNS trigger LANGUAGE plpgsql AS $$
    begin
    --
    -- Name: not an entry; Type: FUNCTION; Schema: app; Owner: nobody
      insert into app.log select coalesce(max(n), 0) + 1, tg_op from app.log; return new;
    end $$;
    CREATE TRIGGER touch AFTER INSERT ON app.customer FOR EACH ROW EXECUTE FUNCTION app.touch();
    CREATE TRIGGER always AFTER UPDATE ON app.customer FOR EACH ROW EXECUTE FUNCTION app.touch();
    CREATE TRIGGER parted AFTER UPDATE ON app.orders FOR EACH ROW EXECUTE FUNCTION app.touch();
    ALTER TABLE app.customer ENABLE ALWAYS TRIGGER always; ALTER TABLE app.orders ENABLE REPLICA TRIGGER parted;
    CREATE VIEW app.sad AS SELECT * FROM app.customer WHERE mood = 'sad'; CREATE RULE nolog AS ON DELETE TO app.log DO INSTEAD NOTHING;
    CREATE MATERIALIZED VIEW app.z AS SELECT id, email, count(*) AS n FROM app.customer GROUP BY id; CREATE UNIQUE INDEX z_id ON app.z (id);
    CREATE MATERIALIZED VIEW app.m AS SELECT sum(n) AS n FROM app.z; CREATE MATERIALIZED VIEW app.never AS SELECT 1 AS x WITH NO DATA;
    ALTER TABLE app.customer ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON app.customer USING (email = current_user);
    GRANT SELECT ON app.customer TO staff; GRANT UPDATE (email) ON app.customer TO "odd ""name";
    ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO staff; COMMENT ON COLUMN app.customer.doc IS 'a; Type: b';
    RESET ROLE; CREATE EXTENSION hstore SCHEMA app; CREATE FUNCTION public.ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ begin null; end $$;
    CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION public.ddl();
    CREATE SCHEMA pgteal; CREATE TABLE pgteal.x (a int);
    CREATE FUNCTION pgteal.fence() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
    CREATE TRIGGER "~pgteal_fence" BEFORE INSERT ON app.customer FOR EACH STATEMENT EXECUTE FUNCTION pgteal.fence();
    COMMENT ON TRIGGER "~pgteal_fence" ON app.customer IS 'pgteal deployment abcd2345';
    CREATE FUNCTION pgteal.fence_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ begin end $$;
    CREATE EVENT TRIGGER pgteal_abcd2345_ddl ON ddl_command_start EXECUTE FUNCTION pgteal.fence_ddl();
    COMMENT ON EVENT TRIGGER pgteal_abcd2345_ddl IS 'pgteal deployment abcd2345';
    CREATE PUBLICATION pgteal_abcd2345_fwd FOR ALL TABLES; COMMENT ON PUBLICATION pgteal_abcd2345_fwd IS 'pgteal deployment abcd2345';
"#;

struct Site2 {
    _clusters: (Cluster, Cluster),
    blue: Server,
    green: Server,
    dump: Dump,
    _scratch: Scratch,
    author: Author,
}

async fn clusters(from: u16, to: u16) -> Site2 {
    let (blue, green) = tokio::join!(Cluster::start_new(from), Cluster::start_new(to));
    let (blue, green) = (blue.unwrap(), green.unwrap());
    for statement in ROLES.split(";\n").flat_map(|l| l.split("; ")).filter(|s| !s.trim().is_empty()) {
        let statement = if statement.contains("'old'") { "" } else { statement };
        blue.sql(statement).await.unwrap();
    }
    blue.sql("SET password_encryption = 'md5'; CREATE ROLE old LOGIN PASSWORD 'old'").await.unwrap();
    green.sql("CREATE ROLE pgteal SUPERUSER LOGIN").await.unwrap();
    blue.sql_in("app", SCHEMA).await.unwrap();
    blue.sql("CREATE SCHEMA extra; CREATE TABLE extra.t (a int primary key)").await.unwrap();
    let server = |name: &str, cluster: &Cluster| {
        let info = ConnInfo::at("127.0.0.1", cluster.port(), "pgteal").with_database("postgres");
        Server::new(name, info).unwrap()
    };
    let scratch = Scratch::new().unwrap();
    let programs = Programs::client_only(Distribution::find(to).unwrap().bin()).unwrap();
    Site2 {
        blue: server("blue", &blue),
        green: server("green", &green),
        dump: Dump::new(programs, scratch.path().join("dumps")),
        _clusters: (blue, green),
        _scratch: scratch,
        author: Author { deployment: DeploymentId::parse("abcd2345").unwrap(), epoch: 1 },
    }
}

async fn session(server: &Server, database: &str) -> Session {
    server.connect(database, Purpose::long("test")).await.unwrap()
}

/// Everything of a cluster that lies outside databases, as text.
async fn globals(s: &Session) -> Vec<String> {
    let sql = "select 'role ' || (to_jsonb(r) - 'oid')::text from pg_authid r
        union all select 'member ' || roleid::regrole || ' ' || member::regrole || ' ' || admin_option from pg_auth_members
        union all select 'setting ' || coalesce(setrole::regrole::text, '') || coalesce(datname, '') || setconfig::text
          from pg_db_role_setting left join pg_database d on d.oid = setdatabase
        union all select 'comment ' || description from pg_shdescription where objoid > 16383
        union all select 'database ' || datname || ' ' || datdba::regrole || ' ' || datconnlimit || ' ' || coalesce(datacl::text, '')
          from pg_database order by 1";
    let rows = s.query("looking", sql, &[]).await.unwrap();
    rows.iter().map(|r| r.get(0).unwrap()).collect()
}

#[tokio::test]
async fn roles_and_databases_go_over_and_come_back() {
    for (from, to) in [(15, 18), (14, 16), (16, 17)] {
        let site = clusters(from, to).await;
        let names = vec!["app".to_owned(), "odd / db".to_owned(), "postgres".to_owned()];
        let (blue, mut green) =
            (session(&site.blue, "postgres").await, session(&site.green, "postgres").await);
        // Green's own verifier, which has to be remembered, and a server that logs everything.
        let quiet = "ALTER ROLE postgres PASSWORD 'md5c0ffee00c0ffee00c0ffee00c0ffee00'";
        site._clusters.1.sql(quiet).await.unwrap();
        green.batch("test", "SET log_statement = 'all'; SET log_min_duration_statement = 0").await.unwrap();
        let before = globals(&green).await;
        assert!(!roles::differences(&blue, &green).await.unwrap().is_empty());
        let carried = roles::carry(&blue, &mut green, &site.author).await.unwrap();
        assert_eq!(carried.created, ["boss", "odd \"name", "old", "owner", "staff"], "{from} to {to}");
        assert_eq!(roles::differences(&blue, &green).await.unwrap(), Vec::<String>::new(), "{from} to {to}");
        assert_eq!(roles::carry(&blue, &mut green, &site.author).await.unwrap(), roles::Carried::default());
        let verifiers = "select string_agg(rolname || rolpassword, ' ' order by rolname) from pg_authid where rolpassword is not null";
        let read = async |s: &Session| {
            s.query_one("looking", verifiers, &[]).await.unwrap().get::<String>(0).unwrap()
        };
        assert_eq!(read(&blue).await, read(&green).await, "verifiers are carried as they are");

        databases::carry(&blue, &mut green, &names, &site.author).await.unwrap();
        databases::carry(&blue, &mut green, &names, &site.author).await.unwrap();
        let differences = databases::differences(&blue, &green, &names).await.unwrap();
        assert_eq!(differences, Vec::<String>::new(), "{from} to {to}");
        // A change on blue afterwards is seen, and a second call follows it.
        blue.batch("test", "ALTER ROLE boss CONNECTION LIMIT 8; ALTER DATABASE app SET work_mem = '8MB'")
            .await
            .unwrap();
        assert_eq!(roles::differences(&blue, &green).await.unwrap().len(), 1);
        assert_eq!(databases::differences(&blue, &green, &names).await.unwrap().len(), 1);
        roles::carry(&blue, &mut green, &site.author).await.unwrap();
        databases::carry(&blue, &mut green, &names, &site.author).await.unwrap();
        assert!(roles::differences(&blue, &green).await.unwrap().is_empty());
        assert!(databases::differences(&blue, &green, &names).await.unwrap().is_empty());

        databases::undo(&mut green).await.unwrap();
        databases::undo(&mut green).await.unwrap();
        roles::undo(&mut green).await.unwrap();
        roles::undo(&mut green).await.unwrap();
        assert_eq!(globals(&green).await, before, "{from} to {to}");
        let log = site._clusters.1.log();
        assert!(log.contains("put_state"), "{from} to {to}: the log shows nothing, so it proves nothing");
        assert!(
            !log.contains("c0ffee00") && !log.contains("SCRAM-SHA-256"),
            "{from} to {to}: a verifier is in the log"
        );
    }
}

#[tokio::test]
async fn nothing_to_carry_is_carried_too() {
    let (blue, green) = tokio::join!(Cluster::start_new(15), Cluster::start_new(18));
    let (blue, green) = (blue.unwrap(), green.unwrap());
    let mut sessions = Vec::new();
    for (name, cluster) in [("blue", &blue), ("green", &green)] {
        cluster.sql("CREATE ROLE pgteal SUPERUSER LOGIN").await.unwrap();
        let info = ConnInfo::at("127.0.0.1", cluster.port(), "pgteal").with_database("postgres");
        sessions.push(session(&Server::new(name, info).unwrap(), "postgres").await);
    }
    let author = Author { deployment: DeploymentId::parse("abcd2345").unwrap(), epoch: 1 };
    let [blue, green] = &mut sessions[..] else { panic!("two sessions") };
    assert!(!roles::is_carried(green).await.unwrap());
    roles::carry(blue, green, &author).await.unwrap();
    databases::carry(blue, green, &["postgres".to_owned()], &author).await.unwrap();
    assert!(roles::is_carried(green).await.unwrap() && databases::is_carried(green).await.unwrap());
    roles::undo(green).await.unwrap();
    databases::undo(green).await.unwrap();
    assert!(!roles::is_carried(green).await.unwrap() && !databases::is_carried(green).await.unwrap());
}

#[tokio::test]
async fn a_database_that_was_there_is_not_taken() {
    let site = clusters(15, 18).await;
    let (blue, mut green) = (session(&site.blue, "postgres").await, session(&site.green, "postgres").await);
    roles::carry(&blue, &mut green, &site.author).await.unwrap();
    green.batch("test", "CREATE DATABASE app").await.unwrap();
    let error = databases::carry(&blue, &mut green, &["app".to_owned()], &site.author).await.unwrap_err();
    assert_eq!(error.to_string(), "database app on green is not ours: it was there before us");
    databases::undo(&mut green).await.unwrap();
    assert!(
        green
            .query_opt("test", "select 1 from pg_database where datname = 'app'", &[])
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn the_schema_goes_over_whole_and_again() {
    for (from, to) in [(15, 18), (14, 16)] {
        let site = clusters(from, to).await;
        let names = vec!["app".to_owned(), "postgres".to_owned()];
        let (blue, mut green) =
            (session(&site.blue, "postgres").await, session(&site.green, "postgres").await);
        let before = globals(&green).await;
        roles::carry(&blue, &mut green, &site.author).await.unwrap();
        databases::carry(&blue, &mut green, &names, &site.author).await.unwrap();
        for database in &names {
            site.dump.take(&site.blue, database).await.unwrap();
            site.dump.take(&site.blue, database).await.unwrap();
            let (blue, mut green) =
                (session(&site.blue, database).await, session(&site.green, database).await);
            let empty = fingerprint::read(&green).await.unwrap();
            assert!(!schema::is_carried(&green).await.unwrap());
            for _ in 0..2 {
                schema::carry(&site.dump, &site.green, database, &site.author, &silent).await.unwrap();
            }
            assert!(schema::is_carried(&green).await.unwrap());
            let work = Site { dump: &site.dump, green: &site.green, database, author: &site.author, jobs: 3 };
            indexes::carry_keys(&work, &silent).await.unwrap();
            assert_eq!(indexes::stage(&green).await.unwrap(), Some(Stage::Keys));
            if database == "app" {
                let sql = "select string_agg(indexrelid::regclass::text, ' ' order by indexrelid::regclass::text) from pg_index
                    where indrelid::regclass::text ~ '^app' and indrelid::regclass::text !~ 'toast'";
                let found: String = green.query_one("test", sql, &[]).await.unwrap().get(0).unwrap();
                let keys = "app.a_pkey app.b_pkey app.customer_email app.customer_pkey app.log_pkey app.orders_1_pkey \
                    app.orders_2_pkey app.orders_pkey";
                assert_eq!(found, keys, "only what the copy needs");
                let rows = "insert into app.customer (email) select i || '@x' from generate_series(1, 500) i;
                    insert into app.orders (at, customer, n) select '2026-03-01'::date + i, i, 1 from generate_series(1, 300) i";
                // The sequence-fed and generated columns are the same on both.
                green.batch("test", rows).await.unwrap();
                blue.batch(
                    "test",
                    &format!("{rows}; refresh materialized view app.z; refresh materialized view app.m"),
                )
                .await
                .unwrap();
            }
            indexes::carry_rest(&work, &silent).await.unwrap();
            // As after a crash before it was remembered: everything is there and none of it is made twice.
            green.batch("test", "delete from pgteal.state where key = 'carry.indexes'").await.unwrap();
            indexes::carry_keys(&work, &silent).await.unwrap();
            indexes::carry_rest(&work, &silent).await.unwrap();
            assert_eq!(indexes::stage(&green).await.unwrap(), Some(Stage::All));

            let noisy = triggers::to_silence(&green).await.unwrap();
            assert_eq!(noisy, 0, "nothing fires on replicated rows");
            let silenced = triggers::silenced(&green).await.unwrap();
            assert_eq!(
                silenced,
                if database == "app" { 5 } else { 0 },
                "always, parted and its two leaves, watch"
            );
            triggers::restore(&mut green).await.unwrap();
            let difference =
                fingerprint::read(&blue).await.unwrap().difference(&fingerprint::read(&green).await.unwrap());
            assert!(difference.is_empty(), "{from} to {to}, {database}: {difference:#?}");
            assert_eq!(triggers::silence(&mut green, &site.author).await.unwrap(), silenced);

            if database == "app" {
                let views = matviews::unpopulated(&blue, &green).await.unwrap();
                assert_eq!(views, ["app.z", "app.m"]);
                assert_eq!(matviews::refresh(&blue, &green, &silent).await.unwrap(), 2);
                assert!(matviews::unpopulated(&blue, &green).await.unwrap().is_empty());
                statistics::analyze(&site.green, database, 2, &silent).await.unwrap();
                assert_eq!(statistics::unanalyzed(&green).await.unwrap(), Vec::<String>::new());
            } else {
                schema::undo(&mut green).await.unwrap();
                schema::undo(&mut green).await.unwrap();
                let left = fingerprint::read(&green).await.unwrap().difference(&empty);
                assert!(left.is_empty(), "{left:#?}");
            }
        }
        databases::undo(&mut green).await.unwrap();
        roles::undo(&mut green).await.unwrap();
        assert_eq!(globals(&green).await, before, "{from} to {to}");
    }
}

#[tokio::test]
async fn an_object_that_cannot_be_made_is_named() {
    let site = clusters(15, 18).await;
    let green = session(&site.green, "postgres").await;
    site.dump.take(&site.blue, "app").await.unwrap();
    green.batch("test", "CREATE DATABASE app").await.unwrap();
    // Without its owner the first schema fails, and nothing of the chunk stays.
    let error = schema::carry(&site.dump, &site.green, "app", &site.author, &silent).await.unwrap_err();
    assert!(error.to_string().starts_with("database app: SCHEMA app could not be made: "), "{error}");
    assert!(!schema::is_begun(&session(&site.green, "app").await).await.unwrap());
    // A dump of something that is not there, or not readable, says so.
    let error = site.dump.take(&site.blue, "nowhere").await.unwrap_err();
    assert!(error.to_string().contains("database \"nowhere\" does not exist"), "{error}");
}
