//! The names of the objects that this program creates on a server, and how to tell from a name or comment whose they
//! are. Ownership is in the world, not in memory: names parse back to the deployment they belong to.

use std::fmt;

/// The schema that holds our functions and tables in each database.
pub const SCHEMA: &str = "pgteal";

/// The trigger of the fence on every table. The tilde sorts it after other triggers of the same kind.
pub const FENCE_TRIGGER: &str = "~pgteal_fence";

/// All our names begin so.
pub const PREFIX: &str = "pgteal";

/// One of the two streams a deployment may have between its two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// `fwd`
    Forward,
    /// `rev`
    Reverse,
}

impl Stream {
    /// The other one.
    pub fn opposite(self) -> Self {
        match self {
            Stream::Forward => Stream::Reverse,
            Stream::Reverse => Stream::Forward,
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stream::Forward => "fwd",
            Stream::Reverse => "rev",
        })
    }
}

/// Name of a publication or subscription: `pgteal_<id>_fwd`.
pub fn stream(deployment: &str, stream: Stream) -> String {
    format!("{PREFIX}_{deployment}_{stream}")
}

/// Name of a replication slot: `pgteal_<id>_fwd_<oid of the database>`. Slots share one name space over all databases
/// of a cluster, publications and subscriptions do not.
pub fn slot(deployment: &str, stream: Stream, database_oid: u32) -> String {
    format!("{PREFIX}_{deployment}_{stream}_{database_oid}")
}

/// Name of the event trigger that refuses DDL: `pgteal_<id>_ddl`.
pub fn ddl_trigger(deployment: &str) -> String {
    format!("{PREFIX}_{deployment}_ddl")
}

/// The comment on everything that can carry one.
pub fn comment(deployment: &str) -> String {
    format!("pgteal deployment {deployment}")
}

/// The deployment that a comment names.
pub fn deployment_of_comment(comment: &str) -> Option<&str> {
    comment.strip_prefix("pgteal deployment ").filter(|id| is_deployment_id(id))
}

/// Eight characters of base32 in lower case.
pub fn is_deployment_id(id: &str) -> bool {
    id.len() == 8 && id.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7'))
}

/// A name of ours taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamName {
    /// The deployment.
    pub deployment: String,
    /// Which stream.
    pub stream: Stream,
    /// The database, in slot names.
    pub database_oid: Option<u32>,
}

/// Takes the name of a publication, subscription or slot apart; `None` if it does not follow our pattern.
pub fn parse_stream(name: &str) -> Option<StreamName> {
    let rest = name.strip_prefix(PREFIX)?.strip_prefix('_')?;
    let (deployment, rest) = rest.split_once('_')?;
    let (kind, oid) = rest.split_once('_').map_or((rest, None), |(k, o)| (k, Some(o)));
    let stream = match kind {
        "fwd" => Stream::Forward,
        "rev" => Stream::Reverse,
        _ => return None,
    };
    let database_oid = match oid {
        Some(text) if text.bytes().all(|b| b.is_ascii_digit()) => Some(text.parse().ok()?),
        Some(_) => return None,
        None => None,
    };
    is_deployment_id(deployment).then(|| StreamName {
        deployment: deployment.to_owned(),
        stream,
        database_oid,
    })
}

/// Whether a name looks like one of ours, even if it does not parse.
pub fn has_prefix(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        let id = "abcd2345";
        for which in [Stream::Forward, Stream::Reverse] {
            let parsed = |database_oid| StreamName { deployment: id.to_owned(), stream: which, database_oid };
            assert_eq!(parse_stream(&stream(id, which)), Some(parsed(None)));
            assert_eq!(parse_stream(&slot(id, which, 16384)), Some(parsed(Some(16384))));
        }
        assert_eq!(stream(id, Stream::Forward), "pgteal_abcd2345_fwd");
        assert_eq!(deployment_of_comment(&comment(id)), Some(id));
    }

    #[test]
    fn other_names_do_not() {
        for name in [
            "pgteal_abcd2345",
            "pgteal_abcd2345_ddl",
            "pgteal_abcd234_fwd",
            "pgteal_abcd1345_fwd",
            "pgteal_ABCD2345_fwd",
            "pgteal_abcd2345_fwd_x",
            "pgteal_abcd2345_fwd_+1",
            "pgteal_abcd2345_fwd_1_2",
            "pgtealabcd2345_fwd",
            "other_abcd2345_fwd",
        ] {
            assert_eq!(parse_stream(name), None, "{name}");
        }
        assert!(has_prefix("pgteal_x") && has_prefix("pgteal") && !has_prefix("pgtealish"));
    }
}
