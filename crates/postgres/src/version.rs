//! The version of a server as numbers. Knows the two spellings servers report, not what a version can do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Major and minor release, e.g. 15.19. A development or beta build has minor 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// The major release, e.g. 15.
    pub major: u32,
    /// The minor release, e.g. 19.
    pub minor: u32,
}

impl Version {
    /// From `server_version_num`, e.g. 150019 (PostgreSQL docs, "Preset Options"; major * 10000 + minor since 10).
    pub fn from_num(num: u32) -> Self {
        Self { major: num / 10_000, minor: num % 10_000 }
    }

    /// From `server_version` as reported at startup: `15.19 (Debian 15.19-1)`, `18beta1`, `19devel`.
    pub fn from_text(text: &str) -> Option<Self> {
        let (major, rest) = leading_number(text.trim())?;
        let minor = rest.strip_prefix('.').and_then(leading_number).map_or(0, |(n, _)| n);
        Some(Self { major, minor })
    }
}

fn leading_number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_read() {
        for (text, major, minor) in [
            ("15.19 (Debian 15.19-0+deb12u1)", 15, 19),
            ("18.6", 18, 6),
            ("18beta1", 18, 0),
            ("19devel", 19, 0),
            ("14.23", 14, 23),
        ] {
            assert_eq!(Version::from_text(text), Some(Version { major, minor }), "{text}");
        }
        assert_eq!(Version::from_num(150_019), Version { major: 15, minor: 19 });
        assert_eq!(Version::from_text("unknown"), None);
        assert!(Version::from_num(150_019) < Version::from_num(180_000));
    }
}
