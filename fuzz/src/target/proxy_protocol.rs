//! The PROXY header, version 2: no byte behind it is taken, and what is cut off is no header.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::proxy_protocol::read;

fn header(mut bytes: &[u8]) -> (bool, usize) {
    let all = bytes.len();
    // A slice never waits.
    let read = match pin!(read(&mut bytes)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(read) => read.is_ok(),
        Poll::Pending => panic!("a slice waits"),
    };
    (read, all - bytes.len())
}

pub fn run(bytes: &[u8]) {
    let (is_one, taken) = header(bytes);
    if !is_one {
        return;
    }
    let len = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    assert_eq!(taken, 16 + len);
    assert_eq!(header(&[bytes, b"more"].concat()), (true, taken));
    assert!(!header(&bytes[..taken - 1]).0);
}
