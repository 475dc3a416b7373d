//! The data plane: sessions, gate, routes, upstreams, admin console.
