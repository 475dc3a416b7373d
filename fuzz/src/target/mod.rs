//! The targets by name.

mod console;
mod framing;
mod pgbouncer_ini;
mod prepare_text;
mod proxy_protocol;
mod scram;
mod startup;
mod tracker;

/// Also the names of the directories of their corpora.
pub const ALL: [(&str, fn(&[u8])); 8] = [
    ("console", console::run),
    ("framing", framing::run),
    ("pgbouncer_ini", pgbouncer_ini::run),
    ("prepare_text", prepare_text::run),
    ("proxy_protocol", proxy_protocol::run),
    ("scram", scram::run),
    ("startup", startup::run),
    ("tracker", tracker::run),
];
