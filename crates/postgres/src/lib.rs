//! Typed operations on one PostgreSQL server.
