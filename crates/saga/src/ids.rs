//! The names of deployments and runs, and the epoch: how they are spelled, made and parsed.
//! Refuses to know what objects are named after them.

use std::fmt;

/// The letters of a generated name: lower-case base 32 (RFC 4648), safe inside an unquoted PostgreSQL identifier.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// How many letters a deployment's name has: 40 bits.
const DEPLOYMENT_LETTERS: usize = 8;
/// The longest run name in bytes.
const RUN_BYTES: usize = 63;

/// A name that is not spelled as names of its sort are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {sort}: {rule}")]
pub struct BadId {
    sort: &'static str,
    text: String,
    rule: &'static str,
}

/// The name of a deployment: eight lower-case base 32 letters, by which all objects of ours are known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeploymentId(String);

impl DeploymentId {
    /// A new name from the operating system's randomness.
    pub fn generate() -> Self {
        Self(random_letters())
    }

    /// The name spelled by `text`.
    ///
    /// # Errors
    /// [`BadId`] unless it is exactly eight letters of `a-z2-7`.
    pub fn parse(text: &str) -> Result<Self, BadId> {
        let good = text.len() == DEPLOYMENT_LETTERS && text.bytes().all(|b| ALPHABET.contains(&b));
        if good {
            return Ok(Self(text.to_owned()));
        }
        Err(BadId {
            sort: "deployment id",
            text: text.to_owned(),
            rule: "it must be eight letters of a-z and 2-7",
        })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a run, such as `up-k3f9a2qx`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(String);

impl RunId {
    /// A new name that begins with the kind of the run.
    ///
    /// # Errors
    /// [`BadId`] if `kind` is not spelled as a run's name may be.
    pub fn generate(kind: &str) -> Result<Self, BadId> {
        Self::parse(&format!("{kind}-{}", random_letters()))
    }

    /// The name spelled by `text`.
    ///
    /// # Errors
    /// [`BadId`] unless it is 1 to 63 of `a-z`, `0-9` and `-`, beginning with a letter.
    pub fn parse(text: &str) -> Result<Self, BadId> {
        if is_kebab(text) && text.len() <= RUN_BYTES {
            return Ok(Self(text.to_owned()));
        }
        Err(BadId {
            sort: "run id",
            text: text.to_owned(),
            rule: "it must be 1 to 63 of a-z, 0-9 and -, beginning with a letter",
        })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which holder of a deployment's lease something was done under. A lower epoch than the newest is stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether `text` is spelled as ids of steps and kinds are: `a-z`, `0-9` and `-`, beginning with a letter.
pub(crate) fn is_kebab(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn random_letters() -> String {
    let mut bits: u64 = rand::random();
    let mut text = String::with_capacity(DEPLOYMENT_LETTERS);
    for _ in 0..DEPLOYMENT_LETTERS {
        text.push(char::from(ALPHABET[(bits & 31) as usize]));
        bits >>= 5;
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn generated_names_parse_and_differ() {
        let one = DeploymentId::generate();
        assert_eq!(DeploymentId::parse(one.as_str()).unwrap(), one);
        assert_ne!(one, DeploymentId::generate());
        let run = RunId::generate("up").unwrap();
        assert!(run.as_str().starts_with("up-"));
        assert_eq!(RunId::parse(run.as_str()).unwrap(), run);
    }

    #[test]
    fn names_of_other_shapes_are_refused() {
        for text in ["", "abc", "abcdefg1", "ABCDEFGH", "abcdefghi", "abcdefg\u{e4}"] {
            assert!(DeploymentId::parse(text).is_err(), "{text:?}");
        }
        for text in ["", "-up", "Up", "up run", "7up", &"a".repeat(64)] {
            assert!(RunId::parse(text).is_err(), "{text:?}");
        }
    }
}
