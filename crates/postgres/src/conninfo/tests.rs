#![allow(clippy::unwrap_used, clippy::panic, clippy::field_reassign_with_default)]
use std::os::unix::fs::PermissionsExt;

use super::*;

fn env() -> Environment {
    let mut env = Environment::default();
    env.os_user = Some("dba".to_owned());
    env
}

fn parse(text: &str) -> ConnInfo {
    ConnInfo::parse_in(text, &env()).unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn both_grammars_say_the_same() {
    let cases = [
        (
            "postgresql://bob:s%40c%3A%2F@db.example:6000/shop",
            "host=db.example port=6000 user=bob password='s@c:/' dbname=shop",
        ),
        (
            "postgres://bob@db.example/shop?sslmode=require",
            "user = bob host = db.example dbname = shop sslmode = require",
        ),
        ("postgresql://db.example?ssl=true", "host=db.example sslmode=require"),
        ("postgresql://[::1]:6000/", "host=::1 port=6000"),
        ("postgresql://%2Fvar%2Frun/shop", "host=/var/run dbname=shop"),
        (
            "postgresql:///shop?host=/tmp&port=6000&options=-c%20a%3Db",
            "host=/tmp port=6000 dbname=shop options='-c a=b'",
        ),
        (
            "postgresql://h/d?connect_timeout=7&target_session_attrs=any",
            "host=h dbname=d connect_timeout=7 target_session_attrs=any",
        ),
    ];
    for (uri, text) in cases {
        assert_eq!(parse(uri), parse(text), "{uri}");
    }
}

#[test]
fn keyvalue_quotes_and_escapes() {
    let info = parse(r"host=h user='o\'neil \\' password=a\ b  dbname = 'x y'");
    assert_eq!((info.user(), info.database()), (r"o'neil \", "x y"));
    assert_eq!(info.password.unwrap().reveal(), "a b");
    assert_eq!(parse("host=h user=''").user(), "dba", "an empty value counts as not given");
}

#[test]
fn defaults_are_those_of_libpq() {
    let info = parse("host=h");
    assert_eq!(
        (info.port(), info.user(), info.database(), info.sslmode()),
        (5432, "dba", "dba", SslMode::Prefer)
    );
    assert_eq!(parse("host=h connect_timeout=1").connect_timeout, Duration::from_secs(2));
    assert_eq!(parse("host=h connect_timeout=0").connect_timeout, ConnInfo::DEFAULT_CONNECT_TIMEOUT);
    assert_eq!(parse("host=h sslrootcert=system").sslmode(), SslMode::VerifyFull);
    assert_eq!(parse("host=h sslrootcert=system").sslrootcert(), None);
    for (sslmode, verifies) in [("prefer", false), ("require", true), ("verify-ca", true)] {
        let info = parse(&format!("host=h sslrootcert=/r sslmode={sslmode}"));
        assert_eq!(info.sslrootcert().is_some(), verifies, "{sslmode}");
    }
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let cases = [
        ("hsot=h", "connection setting `hsot` is not known"),
        ("host=h sslcrl=/x", "connection setting `sslcrl` is not supported"),
        ("host=h gssencmode=require", "connection setting `gssencmode=require` is not supported"),
        ("host=a,b", "connection setting `host` names several hosts; exactly one server must be named"),
        (
            "postgresql://a,b/x",
            "connection setting `host` names several hosts; exactly one server must be named",
        ),
        (
            "host=h port=1,2",
            "connection setting `port` names several hosts; exactly one server must be named",
        ),
        ("host=h port=x", "connection setting `port`: `x` is not a port number"),
        (
            "host=h sslmode=on",
            "connection setting `sslmode`: `on` is not disable, allow, prefer, require, verify-ca or verify-full",
        ),
        (
            "host=h sslmode=require sslrootcert=system",
            "connection setting `sslmode`: `require` is not verify-full, which sslrootcert=system needs",
        ),
        ("host", "connection string: missing `=` after `host`"),
        ("Secret123", "connection string: missing `=` after `...`"),
        ("host='h", "connection string: the quoted value of `host` does not end"),
        (
            "postgresql://u:%zz@h",
            "connection string: `password` has a `%` that two hexadecimal digits do not follow",
        ),
        ("host=h service=nope", "service `nope`: no service file defines it"),
    ];
    for (text, message) in cases {
        let got = ConnInfo::parse_in(text, &env()).map(|c| c.to_string());
        assert_eq!(got.map_err(|e| e.to_string()), Err(message.to_owned()), "{text}");
    }
}

#[test]
fn text_then_service_then_environment() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("services");
    std::fs::write(
        &file,
        "# c\n[other]\nhost=no\n[shop]\nhost=from-service\nport=6001\nuser=svc\n[last]\nport=1\n",
    )
    .unwrap();
    let env = env()
        .with("PGSERVICEFILE", file.to_str().unwrap())
        .with("PGPORT", "7000")
        .with("PGDATABASE", "from-env")
        .with("PGHOST", "");
    let info = ConnInfo::parse_in("service=shop user=text", &env).unwrap();
    assert_eq!(
        (info.host(), info.port(), info.user(), info.database()),
        ("from-service", 6001, "text", "from-env")
    );
    assert_eq!(ConnInfo::parse_in("host=h", &env).unwrap().port(), 7000);
}

#[test]
fn password_file_is_matched_per_database() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pass");
    std::fs::write(&file, "#x\nh:5432:shop:bob:a\\:b\\\\c\n*:*:*:bob:any\nlocalhost:*:*:eve:local\n")
        .unwrap();
    let text = format!("host=h user=bob passfile={}", file.display());
    let shown = |info: &ConnInfo, db: &str| info.password_for(db).map(|p| p.reveal().to_owned());
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(shown(&parse(&text), "shop"), None, "a file that others can read is ignored");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let info = parse(&text);
    assert_eq!(shown(&info, "shop").as_deref(), Some("a:b\\c"));
    assert_eq!(shown(&info, "billing").as_deref(), Some("any"));
    assert_eq!(shown(&parse(&format!("{text} user=eve host=/tmp")), "x").as_deref(), Some("local"));
    assert_eq!(shown(&parse(&format!("{text} user=eve")), "x"), None);
    assert_eq!(shown(&parse(&format!("{text} password=given")), "shop").as_deref(), Some("given"));
}

#[test]
fn nothing_printed_holds_the_password() {
    let info = parse("postgresql://bob:Tr0ub4dor@db.example:6000/shop?sslmode=verify-full&sslrootcert=/r");
    for text in [info.to_string(), format!("{info:?}"), format!("{info:#?}")] {
        assert!(!text.contains("Tr0ub4dor"), "{text}");
    }
    assert_eq!(info.to_string(), "bob@db.example:6000/shop");
    assert_eq!(
        info.to_libpq("shop", "pgteal/x"),
        "host='db.example' port='6000' user='bob' dbname='shop' application_name='pgteal/x' connect_timeout='10' \
         sslmode='verify-full' sslrootcert='/r' password='Tr0ub4dor'"
    );
    let vars = info.env_for_tools("billing");
    assert!(vars.contains(&("PGDATABASE".to_owned(), "billing".to_owned())), "{vars:?}");
    assert!(vars.contains(&("PGPASSWORD".to_owned(), "Tr0ub4dor".to_owned())));
    assert!(vars.iter().all(|(k, _)| ConnInfo::TOOL_VARIABLES.contains(&k.as_str())));
}

#[test]
fn a_rendered_string_reads_back_the_same() {
    let info =
        parse(r"host=/tmp/a\ b user='x\'y' password='p\\w' dbname=d options='-c a=b\\ c' keepalives_idle=30");
    assert_eq!(parse(&info.to_libpq("d", "pgteal/x")), info);
}
