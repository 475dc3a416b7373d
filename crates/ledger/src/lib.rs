//! The ledger workload and the oracle that proves what a switchover did to it.
