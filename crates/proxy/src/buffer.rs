//! Owns the bytes between a read and a write of one direction: a fixed window with a scanned front and an unscanned tail.
//! Refuses to know messages.
//!
//! Layout: `[start .. cleared)` may be written out, `[cleared .. end)` has been read and not cleared yet. Larger messages
//! stream through. The bytes are borrowed from the thread's store while there are any; when one read filled them, the
//! next ones are more, until that is not needed any more.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::spare;

/// How much wider a window is when much comes at once.
const WIDER: usize = 4;

/// A window of bytes.
#[derive(Debug)]
pub struct Window {
    /// Empty while nothing is in the window.
    data: Box<[u8]>,
    capacity: usize,
    /// Much comes at once.
    wide: bool,
    start: usize,
    cleared: usize,
    end: usize,
    unflushed: bool,
}

impl Window {
    /// An empty window.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let data = Box::default();
        Self { data, capacity, wide: false, start: 0, cleared: 0, end: 0, unflushed: false }
    }

    /// What was read and is not cleared yet.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        self.data.get(self.cleared..self.end).unwrap_or_default()
    }

    /// Lets the next `count` pending bytes be written.
    pub fn clear(&mut self, count: usize) {
        self.cleared = (self.cleared + count).min(self.end);
    }

    /// Whether cleared bytes wait to be written or flushed.
    #[must_use]
    pub const fn has_cleared(&self) -> bool {
        self.start < self.cleared || self.unflushed
    }

    /// Whether there is room to read into, after moving bytes to the front when that is cheap or needed.
    fn make_room(&mut self) -> bool {
        if self.start == self.end {
            (self.start, self.cleared, self.end) = (0, 0, 0);
            let wanted = if self.wide { WIDER * self.capacity } else { self.capacity };
            if self.data.len() != wanted {
                spare::give_back(std::mem::replace(&mut self.data, spare::take(wanted)));
            }
        } else if self.end == self.data.len() && self.start > 0 {
            self.data.copy_within(self.start..self.end, 0);
            self.cleared -= self.start;
            self.end -= self.start;
            self.start = 0;
        }
        self.end < self.data.len()
    }

    /// Gives the bytes back when nothing is in them.
    pub fn rest(&mut self) {
        if self.start == self.end {
            (self.start, self.cleared, self.end) = (0, 0, 0);
            spare::give_back(std::mem::take(&mut self.data));
        }
    }

    /// Puts whole messages of our own behind everything that is cleared. Only legal when nothing is pending.
    /// Answers false, and puts nothing, when there is no room.
    pub fn put_cleared(&mut self, bytes: &[u8]) -> bool {
        self.make_room();
        let Some(target) = self.data.get_mut(self.end..self.end + bytes.len()) else { return false };
        if self.cleared != self.end {
            return false;
        }
        target.copy_from_slice(bytes);
        self.end += bytes.len();
        self.cleared = self.end;
        true
    }

    /// Puts bytes that were read elsewhere behind everything; answers how many there was room for.
    pub fn put_pending(&mut self, bytes: &[u8]) -> usize {
        self.make_room();
        let count = bytes.len().min(self.data.len() - self.end);
        if let (Some(target), Some(source)) =
            (self.data.get_mut(self.end..self.end + count), bytes.get(..count))
        {
            target.copy_from_slice(source);
            self.end += count;
        }
        count
    }

    /// Puts bytes in front of what is pending, however many they are; nothing of them is cleared.
    pub fn put_front(&mut self, bytes: &[u8]) {
        let (cleared, pending) = (self.cleared - self.start, self.end - self.cleared);
        let needed = cleared + bytes.len() + pending + self.capacity;
        let mut data = spare::take(needed.next_multiple_of(WIDER * self.capacity));
        let old = self.data.get(self.start..self.end).unwrap_or_default();
        let (front, back) = old.split_at(cleared.min(old.len()));
        let mut at = 0;
        for part in [front, bytes, back] {
            if let Some(target) = data.get_mut(at..at + part.len()) {
                target.copy_from_slice(part);
            }
            at += part.len();
        }
        spare::give_back(std::mem::replace(&mut self.data, data));
        (self.start, self.cleared, self.end) = (0, cleared, at);
    }

    /// Takes the next `count` pending bytes away: nobody gets them.
    pub fn remove(&mut self, count: usize) {
        let from = (self.cleared + count).min(self.end);
        self.data.copy_within(from..self.end, self.cleared);
        self.end -= from - self.cleared;
    }

    /// Forgets what is cleared: there is nobody to write it to.
    pub fn drop_cleared(&mut self) {
        self.start = self.cleared;
        self.unflushed = false;
    }

    /// One read. `Ready(Ok(0))` is the end of the stream; pending also when the window is full.
    ///
    /// # Errors
    /// The stream's.
    pub fn poll_fill<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut R,
    ) -> Poll<io::Result<usize>> {
        if !self.make_room() {
            return Poll::Pending;
        }
        let Some(room) = self.data.get_mut(self.end..) else { return Poll::Pending };
        let mut buf = ReadBuf::new(room);
        let Poll::Ready(read) = Pin::new(stream).poll_read(cx, &mut buf) else {
            self.rest();
            return Poll::Pending;
        };
        read?;
        let count = buf.filled().len();
        self.end += count;
        self.wide = if self.wide { self.end > self.capacity } else { self.end == self.data.len() };
        Poll::Ready(Ok(count))
    }

    /// Writes and flushes what is cleared; ready when nothing cleared is left.
    ///
    /// # Errors
    /// The stream's.
    pub fn poll_drain<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut W,
    ) -> Poll<io::Result<()>> {
        while self.start < self.cleared {
            let Some(out) = self.data.get(self.start..self.cleared) else { break };
            let count = ready!(Pin::new(&mut *stream).poll_write(cx, out))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.start += count;
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn fill(window: &mut Window, mut bytes: &[u8]) -> Option<usize> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match window.poll_fill(&mut cx, &mut bytes) {
            Poll::Ready(result) => Some(result.unwrap()),
            Poll::Pending => None,
        }
    }

    fn drain(window: &mut Window) -> Vec<u8> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut out = Vec::new();
        assert!(window.poll_drain(&mut cx, &mut out).is_ready());
        out
    }

    #[test]
    fn only_what_is_cleared_leaves() {
        let mut window = Window::new(8);
        assert_eq!(fill(&mut window, b"abcdef"), Some(6));
        window.clear(2);
        assert_eq!(drain(&mut window), b"ab");
        assert_eq!(window.pending(), b"cdef");
        assert_eq!(fill(&mut window, b"ghijk"), Some(2), "the tail first");
        assert_eq!(fill(&mut window, b"ijk"), Some(2), "then the room that was moved free");
        assert_eq!(fill(&mut window, b"k"), None, "full");
        window.clear(100);
        assert_eq!(drain(&mut window), b"cdefghij");
        assert!(!window.has_cleared());
    }

    #[test]
    fn ours_go_behind_what_is_cleared() {
        let mut window = Window::new(16);
        fill(&mut window, b"abcd");
        window.clear(2);
        assert!(!window.put_cleared(b"no"), "something is pending");
        window.clear(2);
        assert!(window.put_cleared(b"ours"));
        assert_eq!(drain(&mut window), b"abcdours");
        assert!(!window.put_cleared(&[0; 17]));
    }

    #[test]
    fn bytes_come_back_in_front_and_are_taken_away() {
        let mut window = Window::new(8);
        fill(&mut window, b"abcdef");
        window.clear(2);
        window.put_front(b"a long one: ");
        window.remove(2);
        assert_eq!(drain(&mut window), b"ab", "what was cleared stays before it");
        assert_eq!(window.pending(), b"long one: cdef");
        assert!(fill(&mut window, b"gh") == Some(2), "there is room for more");
        window.clear(100);
        assert_eq!(drain(&mut window), b"long one: cdefgh");
        assert_eq!(fill(&mut window, b"abc"), Some(3));
        assert_eq!(window.data.len(), 8, "and then it is as it was");
        window.remove(9);
        assert!(window.pending().is_empty());
    }

    #[test]
    fn bytes_are_borrowed_while_there_are_any_and_more_of_them_where_much_comes() {
        let mut window = Window::new(8);
        assert_eq!(window.data.len(), 0);
        assert_eq!(fill(&mut window, b"abc"), Some(3));
        window.rest();
        assert_eq!((window.data.len(), window.pending()), (8, &b"abc"[..]), "something is in it");
        window.clear(3);
        drain(&mut window);
        window.rest();
        assert_eq!(window.data.len(), 0);

        let much = [b'x'; 100];
        for expected in [8, 8 * WIDER, 8 * WIDER] {
            assert_eq!(fill(&mut window, &much), Some(expected));
            window.clear(expected);
            assert_eq!(drain(&mut window).len(), expected);
        }
        for (few, expected) in [(3, 8 * WIDER), (3, 8)] {
            assert_eq!(fill(&mut window, &much[..few]), Some(few));
            assert_eq!(window.data.len(), expected);
            window.clear(few);
            drain(&mut window);
        }
    }
}
