//! What `pgteal proxy import` makes of PgBouncer's files, as its own tests have it, is a configuration of the proxy's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use pgteal_proxy::Config;

#[test]
fn what_is_imported_from_pgbouncer_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pgteal/tests/snapshots");
    for name in ["small", "tls"] {
        let snapshot = std::fs::read_to_string(snapshots.join(format!("import__{name}.snap"))).unwrap();
        // Behind the snapshot's own head, and before the exit code.
        let text = snapshot.splitn(3, "---\n").nth(2).unwrap().trim_end().trim_end_matches("[0]");
        let path = dir.path().join("proxy.toml");
        std::fs::write(&path, text).unwrap();
        let config = Config::load(&path).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert!(!config.blue.host.is_empty() && !config.listen.is_empty());
    }
}
