//! Owns the walk over one direction's bytes: where a message begins, how much of its body is still to come, and a copy
//! of the few bodies that somebody wants to read whole.
//! Refuses to know what a message means.

use crate::buffer::Window;

/// Where one direction stands.
#[derive(Debug, Default)]
pub(super) struct Walk {
    tag: u8,
    left: usize,
    keep: usize,
    kept: Vec<u8>,
    whole: usize,
}

/// A kept body, complete or cut at the limit that was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Body<'a> {
    pub(super) tag: u8,
    pub(super) bytes: &'a [u8],
    /// The body is longer than what was kept.
    pub(super) cut: bool,
}

impl Walk {
    /// Whether the last message passed to its end.
    pub(super) const fn between_messages(&self) -> bool {
        self.left == 0
    }

    /// How much of the last message is still to come.
    pub(super) const fn left(&self) -> usize {
        self.left
    }

    /// Begins a message whose header was read; `keep` bytes of its body are to be kept at most.
    pub(super) fn begin(&mut self, tag: u8, body_len: usize, keep: usize) {
        self.tag = tag;
        self.left = body_len;
        self.whole = body_len;
        self.keep = keep.min(body_len);
        self.kept.clear();
    }

    /// Lets as much of the current body pass as the window has. Answers the kept body when it has passed to its end.
    pub(super) fn pass<'a>(&'a mut self, window: &mut Window) -> Option<Body<'a>> {
        let pending = window.pending();
        let count = pending.len().min(self.left);
        let wanted = self.keep.saturating_sub(self.kept.len()).min(count);
        self.kept.extend_from_slice(pending.get(..wanted).unwrap_or_default());
        window.clear(count);
        self.left -= count;
        (self.left == 0 && self.keep > 0).then(|| {
            let cut = self.whole > self.keep;
            self.keep = 0;
            Body { tag: self.tag, bytes: &self.kept, cut }
        })
    }

    /// Gives back memory that one large message took.
    pub(super) fn slim(&mut self) {
        if self.kept.capacity() > 8 * 1024 {
            self.kept = Vec::new();
        }
    }
}
