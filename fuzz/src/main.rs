//! Fuzz targets, one per file of `target/`; `PGTEAL_FUZZ_TARGET` names the one that runs. libFuzzer makes up the bytes. Owns
//! nothing of the product: what no crate shows is compiled from its own file here.
#![no_main]
#![allow(dead_code, unreachable_pub)]

#[path = "../../crates/proxy/src/console/command.rs"]
mod command;
#[path = "../../crates/pgteal/src/pgbouncer/mod.rs"]
mod pgbouncer;
#[path = "../../crates/proxy/src/session/prepare_text.rs"]
mod prepare_text;
#[path = "../../crates/proxy/src/proxy_protocol.rs"]
mod proxy_protocol;
#[path = "../../crates/proxy/src/route.rs"]
mod route;
mod target;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("PGTEAL_FUZZ_TARGET").unwrap_or_default();
    let found = target::ALL.iter().find(|(target, _)| *target == name);
    found.unwrap_or_else(|| panic!("no target \"{name}\"")).1
});

fuzz_target!(|bytes: &[u8]| TARGET(bytes));
