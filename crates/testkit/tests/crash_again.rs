//! A second deployment from the same state directory, behind the same proxy: what the first one left in the journal and
//! in the proxy's memory is in nobody's way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rig_cli;

use rig_cli::{End, Rig};

/// Nothing but what `initdb` makes and the tool's role, as `up` wants green to be.
async fn fresh(rig: &Rig) {
    // A retired side is left read-only, for sessions that begin after that.
    rig.green.sql("BEGIN READ WRITE; ALTER DATABASE postgres RESET ALL; COMMIT").await.unwrap();
    for sql in ["DROP DATABASE shop WITH (FORCE)", "DROP DATABASE billing WITH (FORCE)", "DROP ROLE app"] {
        rig.green.sql(sql).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_finished_or_undone_is_built_and_switched_again_behind_the_same_proxy() {
    let rig = Rig::new(15, 18, 100).await;
    // Undone after a switchover that needed two controllers: the proxy has seen three epochs.
    rig.must(&["up"]).await;
    let (end, output) = rig.crash(&["switch"], "switch/hold-clients/applied").await;
    assert_eq!(end, End::Crashed, "{}{}", output.stdout, output.stderr);
    assert_eq!(rig.run(&["resume"]).await.status.code(), Some(4));
    rig.must(&["undo"]).await;
    rig.must(&["up"]).await;
    rig.must(&["switch"]).await;
    rig.must(&["back"]).await;
    rig.must(&["finish", "--yes"]).await;
    fresh(&rig).await;
    rig.must(&["up"]).await;
    rig.must(&["switch"]).await;

    // A journal that is not there any more can tell nobody which epoch is free: no proxy is taken from whoever may live.
    rig.must(&["back"]).await;
    rig.must(&["finish", "--yes"]).await;
    fresh(&rig).await;
    std::fs::remove_file(rig.dir.path().join(".pgteal/journal.db")).unwrap();
    rig.must(&["up"]).await;
    let refused = rig.run(&["switch"]).await;
    assert_eq!(refused.status.code(), Some(7), "{}{}", refused.stdout, refused.stderr);
    assert!(refused.stderr.contains("another journal drove this proxy"), "{}", refused.stderr);
}
