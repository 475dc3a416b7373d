//! What `status` says when a controller was killed with clients held: the truth about the side that they are on, first.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rig_cli;

use rig_cli::{End, Rig};

#[tokio::test(flavor = "multi_thread")]
async fn a_side_that_refuses_writes_is_named_first() {
    let rig = Rig::new(15, 18, 100).await;
    rig.must(&["up"]).await;
    let (end, output) = rig.crash(&["switch"], "switch/fence/applied").await;
    assert_eq!(end, End::Crashed, "{}{}", output.stdout, output.stderr);
    let status = rig.must(&["status"]).await.stdout;
    assert!(status.starts_with("BLUE REFUSES WRITES (fenced since 20"), "{status}");
    assert!(status.lines().next().unwrap().contains("now: pgteal resume"), "{status}");
    let said = rig.must(&["status", "--json"]).await.stdout;
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["refuses_writes"]["side"], "blue", "{said:#}");
    assert_eq!(said["at_work"], serde_json::Value::Null, "{said:#}");
    // Taken back, nobody is refused any more.
    assert_eq!(rig.run(&["resume"]).await.status.code(), Some(4));
    let status = rig.must(&["status"]).await.stdout;
    assert!(!status.contains("REFUSES WRITES"), "{status}");
    // The side that clients have left stays fenced, and nobody minds.
    rig.must(&["switch"]).await;
    let status = rig.must(&["status"]).await.stdout;
    assert!(!status.contains("REFUSES WRITES"), "{status}");
}
