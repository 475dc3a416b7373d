//! A wait that fails names its condition, its bound and its last status.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pgteal_testkit::wait_until;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_condition_that_comes_true_ends_the_wait() {
    let mut looks = 0;
    let value = wait_until("three looks", Duration::from_secs(5), async || {
        looks += 1;
        if looks == 3 { Ok("done") } else { Err(format!("{looks} so far")) }
    });
    assert_eq!(value.await.unwrap(), "done");
    assert_eq!(looks, 3);
}

#[tokio::test]
async fn a_wait_in_vain_says_everything() {
    let bound = Duration::from_millis(50);
    let never = wait_until::<(), _>("the sun at night", bound, async || Err("still dark")).await;
    assert_eq!(never.unwrap_err().to_string(), "waited 50 ms for the sun at night: still dark");
}

#[tokio::test]
async fn a_look_that_hangs_does_not_outlast_the_bound() {
    let start = Instant::now();
    let mut first = true;
    let hung = wait_until::<(), _>("an answer", Duration::from_millis(100), async || {
        if !std::mem::take(&mut first) {
            std::future::pending::<()>().await;
        }
        Err("asked once")
    });
    assert_eq!(hung.await.unwrap_err().last_status, "asked once");
    assert!(start.elapsed() < Duration::from_secs(5));
}
