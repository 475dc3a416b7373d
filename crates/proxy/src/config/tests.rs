//! What a file may say and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;

fn parse(text: &str) -> Result<Config, String> {
    let config: Config = toml::from_str(text).map_err(|e| e.to_string())?;
    config.check().map_err(|e| e.to_string())?;
    Ok(config)
}

const SMALL: &str = "listen = [\"127.0.0.1:0\"]\nstate_file = \"s\"\n[blue]\nhost = \"/tmp\"\n";

#[test]
fn a_small_file_is_enough() {
    let config = parse(SMALL).unwrap();
    assert_eq!(config.blue.port, 5432);
    assert_eq!(config.auth.method, AuthMethod::Verifier);
    assert_eq!(config.server(Side::Green), None);
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (text, expected) in [
        ("state_file = \"s\"\n[blue]\nhost = \"h\"\n".to_owned(), "nobody could connect"),
        (SMALL.replace("[blue]", "initial_route = \"green\"\n[blue]"), "no [green]"),
        (SMALL.replace("[blue]", "threads = 0\n[blue]"), "between 1 and 256"),
        (format!("{SMALL}colour = 1\n"), "unknown field `colour`"),
        (format!("{SMALL}[proxy_protocol]\nlisten = [\"127.0.0.1:0\"]\n"), "proxy_protocol.from"),
        (format!("{SMALL}[proxy_protocol]\nfrom = [\"10.0.0.0/99\"]\n"), "is no network"),
        (format!("{SMALL}sslcert = \"c\"\n"), "needs its sslkey"),
        (format!("{SMALL}sslnegotiation = \"direct\"\n"), "needs sslmode require"),
        (format!("{SMALL}[auth]\nmethod = \"cert\"\n"), "no client_ca"),
        (
            format!("{SMALL}[tls]\ncert = \"c\"\nkey = \"k\"\nclientcert = \"verify-full\"\n"),
            "there is no client_ca",
        ),
        (format!("{SMALL}[pool]\nserver_lifetime = -1.0\n"), "between 0 and a year"),
        (format!("{SMALL}[limits]\nbuffer_bytes = 1\n"), "between 4096"),
    ] {
        let error = parse(&text).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}
