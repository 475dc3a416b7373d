//! Owns the rule by which three looks at one thing settle it. Pure: refuses to know what is looked at.

/// What three looks say: at the leader, at the follower after it has applied everything before the first, at the leader
/// again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Equal at some moment: nothing was lost or invented.
    Equal,
    /// The leader did not change, and the follower is different.
    Suspicious,
    /// The leader changed meanwhile: nothing can be said.
    Busy,
}

/// Judges three looks; something that is not there is `None`.
pub(super) fn judge<T: PartialEq>(before: Option<&T>, follower: Option<&T>, after: Option<&T>) -> Verdict {
    if follower == before || follower == after {
        Verdict::Equal
    } else if before == after {
        Verdict::Suspicious
    } else {
        Verdict::Busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_looks_settle() {
        for (before, follower, after, expected) in [
            (Some(1), Some(1), Some(1), Verdict::Equal),
            (Some(1), Some(1), Some(2), Verdict::Equal),
            (Some(1), Some(2), Some(2), Verdict::Equal),
            (Some(1), Some(2), Some(1), Verdict::Suspicious),
            (Some(1), Some(2), Some(3), Verdict::Busy),
            (None, Some(1), None, Verdict::Suspicious),
            (Some(1), None, Some(1), Verdict::Suspicious),
            (Some(1), None, None, Verdict::Equal),
            (None, None, Some(1), Verdict::Equal),
        ] {
            assert_eq!(judge(before.as_ref(), follower.as_ref(), after.as_ref()), expected);
        }
    }
}
