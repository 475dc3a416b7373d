//! Owns the server's certificate and key, so that clients see the same server after the switchover. Refuses to know how
//! clients verify them.

use pgteal_postgres::{Certainty, Session};

use crate::providers::{LeftOut, Result};

/// Blue's TLS files by the setting that names them, with the name they get in green's data directory.
pub(super) struct TlsFiles {
    /// Setting, file name, content.
    pub(super) files: Vec<(&'static str, &'static str, String)>,
}

impl std::fmt::Debug for TlsFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.files.iter().map(|(setting, ..)| setting)).finish()
    }
}

const FILES: [(&str, &str); 4] = [
    ("ssl_cert_file", "pgteal-server.crt"),
    ("ssl_key_file", "pgteal-server.key"),
    ("ssl_ca_file", "pgteal-ca.crt"),
    ("ssl_crl_file", "pgteal-crl.pem"),
];

/// Reads the files through blue; none when blue has TLS off or they cannot be read.
pub(super) async fn read(session: &Session, left_out: &mut Vec<LeftOut>) -> Result<Option<TlsFiles>> {
    let doing = "reading the server's certificate";
    if session.query_one(doing, "select current_setting('ssl')", &[]).await?.get::<String>(0)? != "on" {
        return Ok(None);
    }
    let mut files = Vec::new();
    for (setting, name) in FILES {
        let sql = "select current_setting($1), case when current_setting($1) <> '' then pg_read_file(current_setting($1)) end";
        match session.query_one(doing, sql, &[&setting]).await {
            Ok(row) => files.extend(row.get::<Option<String>>(1)?.map(|content| (setting, name, content))),
            Err(e) if e.certainty() == Certainty::Refused => {
                let why = format!("{setting} cannot be read through the server, so green has no TLS");
                left_out.push(LeftOut { name: "ssl".to_owned(), value: "on".to_owned(), why });
                return Ok(None);
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(Some(TlsFiles { files }))
}
