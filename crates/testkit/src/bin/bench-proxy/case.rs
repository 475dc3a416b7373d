//! What is asked through the contenders. Owns the list of cases and their cells; refuses to know who answers.

use crate::contender::Contender;
use crate::pgbench::Protocol;
use crate::pgbouncer;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Case {
    /// pgbench -S: simple, extended and prepared protocol, 1, 8 and 32 clients.
    Query,
    /// COPY of 500 MB out of the server, by psql.
    Copy,
    /// pgbench -S -C with SCRAM-SHA-256: a connection for each transaction.
    Connect,
    /// Memory of sessions that have said one query and rest, in front of a stand-in server.
    Idle,
}

/// One row of figures.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    pub(crate) name: String,
    pub(crate) work: Work,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Query { protocol: Protocol, clients: u32 },
    Copy,
    Connect { clients: u32 },
    Idle { sessions: usize },
}

const CLIENTS: [u32; 3] = [1, 8, 32];

impl Case {
    pub(crate) const ALL: [Case; 4] = [Case::Query, Case::Copy, Case::Connect, Case::Idle];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Case::Query => "query",
            Case::Copy => "copy",
            Case::Connect => "connect",
            Case::Idle => "idle",
        }
    }

    /// Its cells, in the order they are run. `idle` sessions are as many as asked for.
    pub(crate) fn cells(self, idle: usize) -> Vec<Cell> {
        let one = |name: String, work| vec![Cell { name, work }];
        match self {
            Case::Query => {
                let protocols = Protocol::ALL.into_iter();
                let pairs = protocols.flat_map(|protocol| CLIENTS.map(|clients| (protocol, clients)));
                let cell = |(protocol, clients): (Protocol, u32)| Cell {
                    name: format!("{}, {}", protocol.name(), counted(clients)),
                    work: Work::Query { protocol, clients },
                };
                pairs.map(cell).collect()
            }
            Case::Copy => one("COPY of 500 MB".into(), Work::Copy),
            Case::Connect => one("8 clients".into(), Work::Connect { clients: 8 }),
            Case::Idle => one(format!("{idle} sessions"), Work::Idle { sessions: idle }),
        }
    }
}

impl Work {
    /// Why a contender has no place in this cell.
    pub(crate) fn leaves_out(self, contender: Contender) -> Option<&'static str> {
        match (self, contender) {
            (Work::Idle { .. }, Contender::Direct) => Some("there is nothing in the middle to measure"),
            (Work::Query { protocol: Protocol::Prepared, .. }, Contender::PgbouncerTransaction)
                if !pgbouncer::shares_prepared() =>
            {
                Some("prepared statements in transaction mode need PgBouncer 1.21")
            }
            _ => None,
        }
    }
}

fn counted(clients: u32) -> String {
    if clients == 1 { "1 client".into() } else { format!("{clients} clients") }
}
