//! Owns the buffers that nobody uses just now, one store per thread, so that a connection has one only while bytes are
//! on their way. Refuses to know what is in them.

use std::cell::{Cell, RefCell};

/// Bytes in a thread's store, beside the buffer given back last; more than that goes back to the system.
const MOST: usize = 1024 * 1024;

#[derive(Default)]
struct Store {
    buffers: Vec<Box<[u8]>>,
    bytes: usize,
}

thread_local! {
    /// The one given back last. A session that looks for bytes and finds none takes it and gives it back at once,
    /// several times for each statement.
    static LAST: Cell<Box<[u8]>> = Cell::default();
    static STORE: RefCell<Store> = RefCell::default();
}

/// A buffer of that many bytes. What they are is undefined, and nobody's business: it is written before it is read.
pub(crate) fn take(length: usize) -> Box<[u8]> {
    let last = LAST.take();
    if last.len() == length {
        return last;
    }
    store(last);
    let kept = STORE.with_borrow_mut(|store| {
        // Those given back last are those that the processor's caches know.
        let at = store.buffers.iter().rposition(|buffer| buffer.len() == length)?;
        store.bytes -= length;
        Some(store.buffers.remove(at))
    });
    kept.unwrap_or_else(|| vec![0; length].into_boxed_slice())
}

/// Gives one back.
pub(crate) fn give_back(buffer: Box<[u8]>) {
    if !buffer.is_empty() {
        store(LAST.replace(buffer));
    }
}

fn store(buffer: Box<[u8]>) {
    if buffer.is_empty() {
        return;
    }
    STORE.with_borrow_mut(|store| {
        if store.bytes + buffer.len() <= MOST {
            store.bytes += buffer.len();
            store.buffers.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again_and_not_hoarded() {
        let mut one = take(100);
        if let Some(first) = one.first_mut() {
            *first = 7;
        }
        give_back(one);
        assert_eq!(take(200).len(), 200, "of another length");
        assert_eq!(take(100).first(), Some(&7));
        let many: Vec<_> = (0..100).map(|_| take(MOST / 10)).collect();
        many.into_iter().for_each(give_back);
        STORE.with_borrow(|store| assert!(store.bytes <= MOST && store.buffers.len() == 10));
    }
}
