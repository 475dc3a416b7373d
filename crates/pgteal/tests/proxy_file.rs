//! The servers in the proxy's file: reached and verified as the connection strings say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use pgteal::config::{Env, parse};
use pgteal::proxy_file;

/// The tables of blue and green, one line each.
fn servers(blue: &str, green: &str) -> [String; 2] {
    let text = format!(
        "[deployment]\nname = \"shop\"\n[blue]\nconninfo = \"{blue}\"\n\
         [green]\nprovider = \"existing\"\nconninfo = \"{green}\"\n"
    );
    let env = Env::default();
    let loaded = parse(&text, Path::new("/etc/shop/pgteal.toml"), &env).unwrap();
    let file = proxy_file::text(&loaded, &env).unwrap();
    ["blue", "green"].map(|side| {
        let (_, rest) = file.split_once(&format!("[{side}]\n")).unwrap_or_else(|| panic!("{file}"));
        rest.lines().take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
    })
}

#[test]
fn the_proxy_verifies_servers_as_pgteal_does() {
    let here = std::env::current_dir().unwrap();
    let relative =
        format!(r#"host = "h" port = 5432 sslmode = "require" sslrootcert = "{}/ca.crt""#, here.display());
    let cases = [
        (
            "host=h sslmode=verify-full sslrootcert=/ca.crt",
            r#"host = "h" port = 5432 sslmode = "verify-full" sslrootcert = "/ca.crt""#,
        ),
        (
            "postgresql://u@h:6000/d?sslmode=verify-ca&sslrootcert=/ca.crt",
            r#"host = "h" port = 6000 sslmode = "verify-ca" sslrootcert = "/ca.crt""#,
        ),
        ("host=h sslmode=require sslrootcert=ca.crt", &relative),
        // The system's store, which the proxy takes without a file.
        ("host=h sslrootcert=system", r#"host = "h" port = 5432 sslmode = "verify-full""#),
        ("host=h sslmode=allow sslrootcert=/ca.crt", r#"host = "h" port = 5432 sslmode = "prefer""#),
        (
            "host=h hostaddr=10.0.0.1 sslmode=verify-ca sslrootcert=/ca.crt",
            r#"host = "10.0.0.1" port = 5432 sslmode = "verify-ca" sslrootcert = "/ca.crt""#,
        ),
        (
            "host=h hostaddr=10.0.0.1 sslmode=verify-full sslrootcert=/ca.crt",
            r#"host = "h" port = 5432 sslmode = "verify-full" sslrootcert = "/ca.crt""#,
        ),
        (
            "host=h sslmode=verify-full sslrootcert=/ca.crt sslcert=/a.crt sslkey=/a.key sslnegotiation=direct",
            concat!(
                r#"host = "h" port = 5432 sslmode = "verify-full" sslrootcert = "/ca.crt" "#,
                r#"sslcert = "/a.crt" sslkey = "/a.key" sslnegotiation = "direct""#
            ),
        ),
        ("host=/run/postgresql", r#"host = "/run/postgresql" port = 5432 sslmode = "prefer""#),
    ];
    for (conninfo, want) in cases {
        let plain = "host=other sslmode=disable";
        let other = r#"host = "other" port = 5432 sslmode = "disable""#;
        assert_eq!(servers(conninfo, plain), [want, other], "blue: {conninfo}");
        assert_eq!(servers(plain, conninfo), [other, want], "green: {conninfo}");
    }
}

#[test]
fn each_side_is_asked_with_its_own_password() {
    let dir = std::env::temp_dir().join(format!("pgteal-passwords-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let put = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let file = put("green", "g2\n");
    let pgpass = put("pgpass", "g:5432:*:pgteal:g2\nb:5432:*:pgteal:b2\n");
    let cases = [
        ("by file", String::new(), format!("password_file = \"{file}\"")),
        ("by .pgpass", format!(" passfile={pgpass}"), String::new()),
    ];
    for (what, more, line) in cases {
        let text = format!(
            "[deployment]\nname = \"shop\"\n[blue]\nconninfo = \"host=b user=pgteal dbname=x{more}\"\n\
             [green]\nprovider = \"existing\"\nconninfo = \"host=g user=pgteal dbname=y{more}\"\n{line}\n"
        );
        let env = Env::default();
        let loaded = parse(&text, Path::new("/etc/shop/pgteal.toml"), &env).unwrap();
        let file = proxy_file::text(&loaded, &env).unwrap();
        let (_, green) = file.split_once("[auth.green]\n").unwrap_or_else(|| panic!("{what}: {file}"));
        for line in [
            "service_user = \"pgteal\"",
            "service_database = \"y\"",
            "service_password_env = \"PGTEAL_PROXY_GREEN_PASSWORD\"",
        ] {
            assert!(green.lines().take(3).any(|l| l == line), "{what}: {line}: {file}");
        }
        assert!(!file.contains("g2"), "{what}: a password was written");
        let passwords = proxy_file::service_passwords(&loaded, &env).unwrap();
        assert!(passwords.contains(&("PGTEAL_PROXY_GREEN_PASSWORD", "g2".into())), "{what}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}
