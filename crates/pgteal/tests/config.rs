//! What a wrong pgteal.toml is answered with, and that the published schema is current.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use pgteal::config::{Env, parse, schema_text};
use pgteal::errors::Failure;

const GOOD: &str = r#"[deployment]
name = "shop"

[blue]
conninfo = "postgresql://pgteal@blue/postgres"

[green]
provider = "local"
bindir = "/usr/lib/postgresql/18/bin"
data_dir = "green"
port = 5433
parameters = { shared_buffers = "1GB", fsync = false, max_connections = 200 }

[switch]
deadline_ms = 3000
drain_budget_ms = 500
"#;

fn answer(text: &str, env: &[(&str, &str)]) -> String {
    match parse(text, Path::new("pgteal.toml"), &env.iter().copied().collect::<Env>()) {
        Ok(loaded) => format!("fine: deadline_ms {}", loaded.config.switch.deadline_ms),
        Err(error) => {
            let advice = Failure::from(error).advice();
            format!(
                "{} [{}] {} | next: {}",
                advice.what,
                advice.code,
                advice.object.unwrap_or_default(),
                advice.next
            )
        }
    }
}

#[test]
fn each_mistake_has_its_answer() {
    let edits: [(&str, &str, &str); 28] = [
        ("as it is", "", ""),
        ("unknown key", "drain_budget_ms", "drain_bugdet_ms"),
        ("unknown key without neighbour", "deadline_ms = 3000", "colour = 1"),
        ("unknown table", "[switch]", "[swich]"),
        ("wrong type", "deadline_ms = 3000", "deadline_ms = \"3s\""),
        ("negative", "deadline_ms = 3000", "deadline_ms = -1"),
        ("too small", "deadline_ms = 3000", "deadline_ms = 3"),
        ("budget not below the deadline", "drain_budget_ms = 500", "drain_budget_ms = 3000"),
        ("hold shorter than the deadline", "[switch]", "[proxy]\nmax_hold_ms = 1000\n[switch]"),
        ("not TOML", "[switch]", "[switch"),
        ("a console and no way in", "[switch]", "[proxy]\nconsole_conninfo = \"host=p\"\n[switch]"),
        (
            "a console's password in the file",
            "[switch]",
            "[proxy]\nconsole_conninfo = \"host=p password=x\"\nclient_conninfo = \"host=p\"\n[switch]",
        ),
        ("twice", "deadline_ms = 3000", "deadline_ms = 3000\ndeadline_ms = 4000"),
        ("table missing", "[blue]\nconninfo = \"postgresql://pgteal@blue/postgres\"", ""),
        ("key missing", "name = \"shop\"", ""),
        ("bad name", "\"shop\"", "\"Shop!\""),
        ("provider", "\"local\"", "\"cloud\""),
        ("needed by provider", "bindir = \"/usr/lib/postgresql/18/bin\"", ""),
        ("of the other provider", "port = 5433", "port = 5433\nconninfo = \"host=x\""),
        ("password in a URI", "pgteal@blue", "pgteal:geheim@blue"),
        ("clients' certificates", "[switch]", "[proxy]\nauth = \"cert\"\n[switch]"),
        ("console", "[switch]", "[proxy]\nadmin_listen = [\"10.0.0.1:1\"]\n[switch]"),
        ("balancers", "[switch]", "[proxy]\nproxy_protocol_listen = [\"127.0.0.1:1\"]\n[switch]"),
        ("nobody to read from", "[switch]", "[proxy]\nread_fallback = \"refuse\"\n[switch]"),
        ("certificate alone", "[switch]", "[proxy]\ntls_cert = \"x\"\n[switch]"),
        ("listen", "[switch]", "[proxy]\nlisten = [\"here\"]\n[switch]"),
        ("waiver misspelt", "[switch]", "[[checks.waivers]]\nchekc = \"x\"\n[switch]"),
        (
            "waiver without reason",
            "[switch]",
            "[[checks.waivers]]\ncheck = \"x\"\nreason = \" \"\nexpires = \"2030-01-01\"\n[switch]",
        ),
    ];
    let mut out = String::new();
    for (name, from, to) in edits {
        assert!(GOOD.contains(from), "{name}");
        out += &format!("{name}:\n  {}\n", answer(&GOOD.replacen(from, to, 1), &[]));
    }
    insta::assert_snapshot!(out);
}

/// A name, the file's text, the environment.
type Case<'c> = (&'c str, &'c str, &'c [(&'c str, &'c str)]);

#[test]
fn the_environment_wins_over_the_file() {
    let no_blue = GOOD.replace("conninfo = \"postgresql://pgteal@blue/postgres\"", "");
    let cases: [Case<'_>; 6] = [
        ("over the file", GOOD, &[("PGTEAL_SWITCH_DEADLINE_MS", "4000")]),
        ("empty counts as unset", GOOD, &[("PGTEAL_SWITCH_DEADLINE_MS", "")]),
        ("not a number", GOOD, &[("PGTEAL_SWITCH_DEADLINE_MS", "4s")]),
        ("out of range", GOOD, &[("PGTEAL_SWITCH_DEADLINE_MS", "4")]),
        ("fills a gap", &no_blue, &[("PGTEAL_BLUE_CONNINFO", "host=/tmp user=pgteal")]),
        ("password", GOOD, &[("PGTEAL_BLUE_CONNINFO", "host=/tmp user=pgteal password=geheim")]),
    ];
    let mut out = String::new();
    for (name, text, env) in cases {
        out += &format!("{name}:\n  {}\n", answer(text, env));
    }
    assert!(!out.contains("geheim"));
    insta::assert_snapshot!(out);
}

#[test]
fn the_published_schema_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(pgteal::config::PUBLISHED);
    if std::env::var_os("PGTEAL_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, schema_text()).unwrap();
    }
    let published = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        published == schema_text(),
        "out of date; run: PGTEAL_BLESS=1 cargo test -p pgteal --test config"
    );
}
