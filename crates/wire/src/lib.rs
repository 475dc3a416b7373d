//! PostgreSQL protocol bytes: framing, startup, messages, SCRAM, cancel keys, the transaction tracker.
