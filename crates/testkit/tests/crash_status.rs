//! What is said when a controller was killed with clients held: `status` tells the truth about the side that they are on,
//! first, and `resume` takes back what it cannot go on with, at once, and says what to type next.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rig_cli;

use std::time::Duration;

use pgteal_testkit::{Output, wait_until};
use rig_cli::{End, Rig};
use serde_json::Value;

async fn crash(rig: &Rig, args: &[&str], point: &str) {
    let (end, output) = rig.crash(args, point).await;
    assert_eq!(end, End::Crashed, "{point}\n{}{}", output.stdout, output.stderr);
}

async fn status(rig: &Rig) -> Value {
    serde_json::from_str(&rig.must(&["status", "--json"]).await.stdout).unwrap()
}

/// The hold had ended, and the run was taken back without anything else.
fn was_taken_back(at: &str, output: &Output) {
    let said = format!("{at}\n{}{}", output.stdout, output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(
        output
            .stderr
            .contains("the pgteal that held clients was gone before they were moved, so the run of switch"),
        "{said}"
    );
    assert!(output.stderr.contains("next:   begin again with: pgteal switch\n"), "{said}");
    // Nothing is tried that cannot come to an end.
    assert!(!output.stdout.contains("done     fence"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_side_that_refuses_writes_is_named_first() {
    let rig = Rig::new(15, 18, 100).await;
    rig.must(&["up"]).await;
    crash(&rig, &["switch"], "switch/fence/applied").await;
    let text = rig.must(&["status"]).await.stdout;
    assert!(text.starts_with("BLUE REFUSES WRITES (fenced since 20"), "{text}");
    assert!(text.lines().next().unwrap().contains("now: pgteal resume, or: pgteal undo"), "{text}");
    let said = status(&rig).await;
    assert_eq!(said["refuses_writes"]["side"], "blue", "{said:#}");
    assert_eq!(said["at_work"], Value::Null, "{said:#}");
    // Whoever names the configuration reads commands that name it.
    let config = rig.dir.path().join("pgteal.toml").display().to_string();
    let text = rig.must(&["--config", &config, "status"]).await.stdout;
    assert!(text.contains(&format!("next: pgteal --config {config} resume, or: ")), "{text}");
    // Taken back, nobody is refused any more.
    was_taken_back("fence", &rig.run(&["resume"]).await);
    assert!(status(&rig).await["refuses_writes"].is_null());
    // The side that clients have left stays fenced, and nobody minds.
    rig.must(&["switch"]).await;
    let said = status(&rig).await;
    assert!(said["refuses_writes"].is_null() && !said["fences"].as_array().unwrap().is_empty(), "{said:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_whose_controller_is_gone_is_taken_back_at_once() {
    let mut rig = Rig::new(15, 18, 100).await;
    rig.must(&["up"]).await;
    for point in ["started", "applied", "succeeded"] {
        let at = format!("switch/hold-clients/{point}");
        crash(&rig, &["switch", "--deadline", "40s"], &at).await;
        if point != "started" {
            let text = rig.must(&["status"]).await.stdout;
            assert!(
                text.starts_with("CLIENTS ARE HELD at the proxy and no controller is at work; 0 wait"),
                "{text}"
            );
            assert!(text.lines().next().unwrap().ends_with("now: pgteal resume, or: pgteal undo"), "{text}");
        }
        was_taken_back(&at, &rig.run(&["resume"]).await);
    }
    // The same when its time has passed: that it took so long is nobody's fault but that of who is gone.
    crash(&rig, &["switch", "--deadline", "1s"], "switch/hold-clients/applied").await;
    wait_until("the hold to come to its limit", Duration::from_secs(30), async || {
        let said = status(&rig).await;
        if said["router"]["held_by"].is_null() { Ok(Some(())) } else { Err(said["router"].to_string()) }
    })
    .await
    .unwrap();
    was_taken_back("limit", &rig.run(&["resume"]).await);
    assert!(status(&rig).await["refuses_writes"].is_null());
    // Without a proxy nothing of this can be begun.
    rig.proxy.kill9().unwrap();
    wait_until("status to miss the proxy", Duration::from_secs(30), async || {
        let text = rig.must(&["status"]).await.stdout;
        if text.contains("next: pgteal proxy, then: pgteal switch") { Ok(Some(())) } else { Err(text) }
    })
    .await
    .unwrap();
}
