//! The steps of `up`, in the order of `upgrade.rs`.

pub mod analyze;
pub mod arm_blue;
pub mod build_indexes;
pub mod carry_databases;
pub mod carry_roles;
pub mod carry_schema;
pub mod catch_up;
pub mod claim_green;
pub mod fence_green;
pub mod initial_sync;
pub mod on_green;
pub mod preflight;
pub mod provision_green;
pub mod publish;
pub mod set_identities;
pub mod subscribe;
pub mod verify;
