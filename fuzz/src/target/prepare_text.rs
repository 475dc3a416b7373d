//! The finding of one PREPARE within a text: what is found is a part of it, and alone it is found again.

use crate::prepare_text::find;

pub fn run(bytes: &[u8]) {
    let Some((&[flags, length], rest)) = bytes.split_first_chunk::<2>() else { return };
    let plain = flags % 2 == 0;
    let (name, text) = rest.split_at(usize::from(length % 16).min(rest.len()));
    let Some(found) = find(text, name, plain) else { return };
    assert!(
        text.as_ptr_range().start <= found.as_ptr() && found.as_ptr_range().end <= text.as_ptr_range().end
    );
    assert_eq!(find(found, name, plain), Some(found));
    // Twice is not certain. It may end with a comment, which ends with its line.
    let twice = [found, b"\n;", found].concat();
    assert_eq!(find(&twice, name, plain), None, "found in {twice:?}");
}
