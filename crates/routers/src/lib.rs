//! One file for each thing that can send clients to a side. Routers refuse to know each other and the
//! workflow; each implements `pgteal_core::router::Router`.

pub mod proxy;
