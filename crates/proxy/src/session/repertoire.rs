//! Owns the texts that a session has said lately, one per shape, so that a new server process can be made ready for
//! them. In memory only: texts may hold anything, so nothing here shows one.
//! Refuses to know servers; to be told apart, texts need not be understood.

use std::sync::Arc;

use super::statements::name_of;

/// Texts kept.
const MOST: usize = 16;
/// Longest text kept, in bytes.
const LONGEST: usize = 2048;

/// After so many texts of shapes that are known, a session is taken to say nothing else, and only one text of so many is
/// looked at until a new one is among them: shapes cost more than all else that is done with a text.
const SETTLED: u32 = 64;
const SAMPLE: u32 = 32;

/// What a statement looks like without its numbers and literals.
pub(super) type Shape = u64;

/// One text, in the form of a Parse message behind the name: the text, a zero byte, the declared parameter types.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) shape: Shape,
    pub(super) parse: Arc<[u8]>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl Line {
    /// A text that may be rehearsed: one statement that begins as a query does, and not too long. `parse` as above.
    pub(super) fn new(parse: &[u8]) -> Option<Self> {
        let text = name_of(parse);
        let fits = text.len() < parse.len() && is_query(text);
        fits.then(|| Self { shape: shape(text), parse: parse.into() })
    }

    /// How many parameters the text has: the highest `$n`. A wrong count is an error in the rehearsal, and no harm.
    pub(super) fn parameters(&self) -> usize {
        let text = name_of(&self.parse);
        let after = |at: usize| {
            let digits = text.get(at + 1..).unwrap_or_default();
            let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
            std::str::from_utf8(digits.get(..end)?).ok()?.parse::<usize>().ok()
        };
        let dollars = text.iter().enumerate().filter(|(_, byte)| **byte == b'$');
        dollars.filter_map(|(at, _)| after(at)).max().unwrap_or(0)
    }
}

#[derive(Debug)]
struct Heard {
    line: Line,
    /// When it was said last.
    said: u64,
    /// It was answered without an error at least once.
    sound: bool,
}

/// What one session says.
#[derive(Debug, Default)]
pub(super) struct Repertoire {
    heard: Vec<Heard>,
    /// Counts what was said.
    clock: u64,
    /// The shape that is on the way to the server.
    unanswered: Option<Shape>,
    muted: bool,
    /// Texts since the last new shape.
    familiar: u32,
    /// Grows with every new text that was answered.
    pub(super) revision: u64,
}

impl Repertoire {
    /// A statement was forwarded; `types` are its declared parameter types, as a Parse message has them.
    pub(super) fn said(&mut self, text: &[u8], types: &[u8]) {
        self.unanswered = None;
        self.familiar = if self.familiar < SETTLED + SAMPLE { self.familiar + 1 } else { SETTLED + 1 };
        if self.familiar > SETTLED && self.familiar < SETTLED + SAMPLE {
            return;
        }
        if self.muted || types.len() > LONGEST || !is_query(text) {
            return;
        }
        let shape = shape(text);
        self.unanswered = Some(shape);
        self.clock += 1;
        if let Some(known) = self.heard.iter_mut().find(|heard| heard.line.shape == shape) {
            known.said = self.clock;
            return;
        }
        self.familiar = 0;
        if self.heard.len() >= MOST
            && let Some(oldest) = (0..self.heard.len()).min_by_key(|n| self.heard.get(*n).map(|h| h.said))
        {
            self.heard.swap_remove(oldest);
        }
        let line = Line { shape, parse: [text, b"\0", types].concat().into() };
        self.heard.push(Heard { line, said: self.clock, sound: false });
    }

    /// The server answered with an error: what never went well is not worth a rehearsal.
    pub(super) fn failed(&mut self) {
        if let Some(shape) = self.unanswered.take() {
            self.heard.retain(|heard| heard.sound || heard.line.shape != shape);
        }
    }

    /// The server's answer has ended.
    pub(super) fn answered(&mut self) {
        let Some(shape) = self.unanswered.take() else { return };
        if let Some(heard) = self.heard.iter_mut().find(|heard| heard.line.shape == shape && !heard.sound) {
            heard.sound = true;
            self.revision += 1;
        }
    }

    /// A rehearsal cost a connection: never again in this session.
    pub(super) fn mute(&mut self) {
        self.muted = true;
        self.heard.clear();
    }

    /// Whether nothing is to be rehearsed for this session.
    pub(super) const fn is_muted(&self) -> bool {
        self.muted
    }

    /// What is to be rehearsed, what was said last first.
    pub(super) fn lines(&self) -> Vec<Line> {
        let mut sound: Vec<_> = self.heard.iter().filter(|heard| heard.sound && !self.muted).collect();
        sound.sort_by_key(|heard| std::cmp::Reverse(heard.said));
        sound.into_iter().map(|heard| heard.line.clone()).collect()
    }
}

/// One statement that reads or writes rows and is no command: by its first word, and without anything behind a semicolon.
fn is_query(text: &[u8]) -> bool {
    let text = text.trim_ascii();
    let end = text.iter().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(text.len());
    let first = text.get(..end).unwrap_or_default();
    let words: [&[u8]; 6] = [b"select", b"insert", b"update", b"delete", b"with", b"values"];
    let body = text.strip_suffix(b";").unwrap_or(text);
    text.len() <= LONGEST
        && words.iter().any(|word| first.eq_ignore_ascii_case(word))
        && memchr::memchr(b';', body).is_none()
}

/// Masks numbers and literals, and lists of them, and hashes the rest. Only equality matters: two texts taken for one
/// cost a rehearsal, one taken for two costs a place.
fn shape(text: &[u8]) -> Shape {
    let (mut hash, mut last, mut at) = (Hash::default(), b' ', 0);
    // The hash behind the last masked value, as long as only a comma and blanks came after it.
    let mut list: Option<Hash> = None;
    while let Some(byte) = text.get(at) {
        let in_word = last.is_ascii_alphanumeric() || matches!(last, b'_' | b'$' | b'"');
        let rest = text.get(at + 1..).unwrap_or_default();
        let value = match byte {
            b'\'' => Some(2 + memchr::memchr(b'\'', rest).unwrap_or(rest.len())),
            b'0'..=b'9' if !in_word => {
                Some(1 + rest.iter().take_while(|b| b.is_ascii_digit() || **b == b'.').count())
            }
            b'-' if rest.first().is_some_and(u8::is_ascii_digit) => Some(1),
            _ => None,
        };
        match value {
            // A sign: whether it is there differs from value to value.
            Some(length) if *byte == b'-' => at += length,
            Some(length) => {
                hash = list.unwrap_or_else(|| hash.and(b'?'));
                (list, last) = (Some(hash), b'?');
                at += length;
            }
            None => {
                if !(*byte == b',' || byte.is_ascii_whitespace()) {
                    list = None;
                }
                (hash, last) = (hash.and(*byte), *byte);
                at += 1;
            }
        }
    }
    hash.0
}

/// FNV-1a of 64 bits, byte by byte: nobody gains by making two texts look like one.
#[derive(Clone, Copy)]
struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    const fn and(self, byte: u8) -> Self {
        Self((self.0 ^ byte as u64).wrapping_mul(0x0100_0000_01b3))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn said(repertoire: &mut Repertoire, text: &str, well: bool) {
        repertoire.said(text.as_bytes(), b"\0\0");
        if !well {
            repertoire.failed();
        }
        repertoire.answered();
    }

    fn texts(repertoire: &Repertoire) -> Vec<String> {
        let text = |line: &Line| String::from_utf8_lossy(name_of(&line.parse)).into_owned();
        repertoire.lines().iter().map(text).collect()
    }

    #[test]
    fn texts_of_one_shape_are_one() {
        for (one, other, same) in [
            ("select a from t where b = 1", "select a from t where b = 23.5", true),
            ("update t set a = a + -12", "update t set a = a + 12", true),
            ("select * from t where n = 'x'", "select * from t where n = 'it''s 4'", true),
            ("select * from t where n in (1, 2,3)", "select * from t where n in (1)", true),
            ("insert into t values ('a', 1)", "insert into t values ('b', 20)", true),
            ("select a from t1", "select a from t2", false),
            ("select a from t where b = 1", "select a from t where c = 1", false),
            ("select $1::int", "select $2::int", false),
            ("select 1, a from t", "select a from t", false),
        ] {
            let shapes = [one, other].map(|text| shape(text.as_bytes()));
            assert_eq!(shapes[0] == shapes[1], same, "{one} | {other}");
        }
    }

    #[test]
    fn only_single_queries_are_kept() {
        for (text, kept) in [
            (" SELECT 1;", true),
            ("with a as (select 1) insert into t select * from a", true),
            ("values (1)", true),
            ("begin", false),
            ("select 1; drop table t", false),
            ("selecting", false),
            ("explain analyze delete from t", false),
            ("call p()", false),
            ("/* hello */ select 1", false),
            ("", false),
        ] {
            let mut repertoire = Repertoire::default();
            said(&mut repertoire, text, true);
            assert_eq!(texts(&repertoire).len(), usize::from(kept), "{text}");
            assert_eq!(Line::new(format!("{text}\0\0\0").as_bytes()).is_some(), kept, "{text}");
        }
        let mut repertoire = Repertoire::default();
        said(&mut repertoire, &format!("select '{}'", "x".repeat(LONGEST)), true);
        assert!(texts(&repertoire).is_empty());
    }

    #[test]
    fn the_last_ones_that_went_well_are_kept() {
        let mut repertoire = Repertoire::default();
        said(&mut repertoire, "select broken", false);
        for n in 0..MOST + 4 {
            said(&mut repertoire, &format!("select a{n} from t"), true);
            said(&mut repertoire, "select always", true);
        }
        let texts = texts(&repertoire);
        assert_eq!(texts.len(), MOST);
        assert_eq!(&texts[..2], ["select always", "select a19 from t"]);
        assert!(!texts.contains(&"select broken".to_owned()));
        // One that went well once stays when it fails later.
        said(&mut repertoire, "select always", false);
        assert_eq!(repertoire.lines().len(), MOST);
        repertoire.mute();
        said(&mut repertoire, "select 1", true);
        assert!(repertoire.lines().is_empty());
    }

    #[test]
    fn who_says_the_same_for_long_is_listened_to_now_and_then() {
        let mut repertoire = Repertoire::default();
        (0..=2 * SETTLED).for_each(|_| said(&mut repertoire, "select always", true));
        let unheard = (0..SAMPLE).take_while(|_| {
            said(&mut repertoire, "select rarely", true);
            repertoire.lines().len() == 1
        });
        let unheard = unheard.count();
        assert!((1..SAMPLE as usize).contains(&unheard), "{unheard}");
        // Something new makes it curious again.
        said(&mut repertoire, "select once", true);
        assert_eq!(repertoire.lines().len(), 3);
    }

    #[test]
    fn parameters_are_counted_and_texts_are_not_shown() {
        let line = Line::new(b"select $2, $11::text, '$'\0\0\0").unwrap();
        assert_eq!(line.parameters(), 11);
        assert!(!format!("{line:?}").contains("select"));
    }
}
