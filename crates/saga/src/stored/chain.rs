//! The chain of digests through a run's stored lines: a line that is altered, lost or moved breaks it.
//! Refuses to be a signature: whoever can write the journal can write a new chain.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// The digest of a line and everything before it, in hexadecimal.
pub type Link = String;

/// The link after `line`, which comes after `previous` (empty for the first line).
pub fn link(previous: &str, line: &str) -> Link {
    let mut hasher = Sha256::new();
    hasher.update(previous.as_bytes());
    hasher.update(b"\n");
    hasher.update(line.as_bytes());
    let mut text = String::with_capacity(64);
    for byte in hasher.finalize() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_hangs_on_every_line_before_it() {
        let first = link("", "one");
        assert_eq!(first.len(), 64);
        assert_ne!(link(&first, "two"), link(&link("", "One"), "two"));
        assert_ne!(link(&first, "two"), link("", "two"));
    }
}
