//! A failed test leaves the logs of its servers, and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pgteal_testkit::Cluster;
use std::path::PathBuf;

#[test]
fn a_failed_test_leaves_its_logs() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (told, dir) = std::sync::mpsc::sync_channel(1);
    let failed = std::thread::spawn(move || {
        runtime.block_on(async {
            let cluster = Cluster::builder(15).name("unlucky").start().await.unwrap();
            told.send(cluster.socket_dir().to_path_buf()).unwrap();
            panic!("on purpose: this is what a failed test looks like");
        });
    });
    assert!(failed.join().is_err());
    let dir: PathBuf = dir.recv().unwrap();
    assert!(!dir.exists());
    let kept = std::env::temp_dir().join("pgteal-failed").join(dir.file_name().unwrap());
    let log = std::fs::read_to_string(kept.join("unlucky.log")).unwrap();
    assert!(log.contains("ready to accept connections"), "{log}");
    std::fs::remove_dir_all(kept).unwrap();
}
