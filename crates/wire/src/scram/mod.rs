//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, both sides (RFC 5802, RFC 7677, RFC 5929).
//! Owns proofs, verifiers and the pass-through keys; refuses to know who is logging in where.
