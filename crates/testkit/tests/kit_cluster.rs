//! The kit's clusters: quick to start, hard to kill halfway, alone in the world.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use pgteal_testkit::{Cluster, required_majors};
use std::time::Instant;

#[tokio::test]
async fn every_major_starts_and_answers() {
    for major in required_majors() {
        Cluster::builder(major).create().await.unwrap(); // the template
        let start = Instant::now();
        let cluster = Cluster::start_new(major).await.unwrap();
        eprintln!("{major}: {:?}", start.elapsed());
        let number = cluster.sql("show server_version_num").await.unwrap();
        assert_eq!(number.parse::<u32>().unwrap() / 10_000, u32::from(major));
        assert_eq!(cluster.sql("select 1, null, 'x'; select 2").await.unwrap(), "1||x\n2");
    }
}
