//! Owns who may use the console, and where. Refuses to know what its commands do.

use std::net::SocketAddr;

use serde::Deserialize;

use super::{AuthMethod, ConfigError, TlsConfig};

/// Who may read the console and give commands there. The proxy's own operating-system user and root may always, over the Unix
/// socket; others by an ordinary login as one of these roles.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Roles that may give every command.
    #[serde(alias = "users")]
    pub command: Vec<String>,
    /// Roles that may only look: `SHOW`.
    pub read: Vec<String>,
    /// TCP addresses where the console is, and nothing else. When there are any, it is at no other TCP address.
    pub listen: Vec<SocketAddr>,
    /// The certificate shown there, and what is asked of certificates there; the clients' `[tls]` when absent. Where there is
    /// one, nobody comes in without TLS.
    pub tls: Option<TlsConfig>,
}

impl AdminConfig {
    pub(super) fn check(&self, method: AuthMethod, tls: Option<&TlsConfig>) -> Result<(), ConfigError> {
        let bad = |key, reason: String| Err(ConfigError::Value { key, reason });
        let far = self.listen.iter().find(|address| !address.ip().is_loopback());
        if let (Some(address), None) = (far, tls) {
            return bad(
                "admin.listen",
                format!(
                    "{address} is not local, and without [admin.tls] or [tls] commands would cross the network in the clear"
                ),
            );
        }
        if self.tls.is_some() && self.listen.is_empty() {
            return bad("admin.tls", "is for the addresses of admin.listen, and there are none".into());
        }
        let client_ca = tls.is_some_and(|tls| tls.client_ca.is_some());
        if let Some(own) = &self.tls
            && !client_ca
            && (method == AuthMethod::Cert || own.clientcert != super::ClientCert::Optional)
        {
            return bad("admin.tls", "certificates are asked for, but there is no client_ca".into());
        }
        Ok(())
    }
}
