//! Owns the vocabulary of one database: the names of its functions, tables and views whose use may touch what a session
//! holds, found by following who mentions whom; and the names of custom settings that its functions and policies speak of.
//! Refuses to know how the catalogues are asked. A word too many costs a look; so names stand for objects, whatever
//! their schema, and what cannot be read touches.

use std::collections::HashSet;
use std::sync::Arc;

use super::prepare_text::{Opaque, opaque};
use super::text::{self, in_word, parts, setting_name};

/// Longest name, in bytes (`NAMEDATALEN` - 1): what is longer in a text is cut by the server.
const LONGEST: usize = 63;
/// Names of custom settings asked of every session, in every look at it.
pub(super) const MAX_NAMES: usize = 1024;
/// Begins the key of what is used without being named: an operator, a cast, a name of which no word is left.
const WORDLESS: u8 = 1;

/// See the module. What is not known is the default: then everything touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vocabulary {
    words: HashSet<Key>,
    /// The lengths of the words, a bit for each.
    lengths: u64,
    everything: bool,
    names: Arc<[String]>,
    /// There are more names than are asked for.
    too_many_names: bool,
}

impl Default for Vocabulary {
    fn default() -> Self {
        Self {
            words: HashSet::new(),
            lengths: 0,
            everything: true,
            names: Arc::default(),
            too_many_names: false,
        }
    }
}

impl Vocabulary {
    /// Whether a part of a word is one of these.
    pub(super) fn has(&self, part: &[u8]) -> bool {
        let length = part.len().min(LONGEST);
        if (self.lengths >> length) & 1 == 0 {
            return false;
        }
        let mut lower = [0; LONGEST];
        for (to, from) in lower.iter_mut().zip(part) {
            *to = from.to_ascii_lowercase();
        }
        lower.get(..length).is_some_and(|word| self.words.contains(word))
    }

    /// Whether a text need not mention anything to touch the session.
    pub(super) const fn is_everything(&self) -> bool {
        self.everything
    }

    /// Names of custom settings.
    pub(super) const fn names(&self) -> &Arc<[String]> {
        &self.names
    }

    /// Whether functions may set what nobody asks for.
    pub(super) const fn has_too_many_names(&self) -> bool {
        self.too_many_names
    }
}

/// A name as texts are searched for it: its longest word, in lower case.
type Key = Box<[u8]>;

fn key(name: &[u8]) -> Key {
    if name.first() == Some(&WORDLESS) {
        return name.into();
    }
    let words = name.split(|byte| !in_word(*byte)).flat_map(parts);
    let longest = words.max_by_key(|word| word.len()).filter(|word| !word.is_empty());
    let Some(word) = longest else { return [WORDLESS].into() };
    word.get(..word.len().min(LONGEST)).unwrap_or_default().to_ascii_lowercase().into()
}

/// What the catalogues of a database say.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    /// Who says what.
    bodies: Vec<(Key, Vec<u8>)>,
    /// Who uses whom.
    edges: Vec<(Key, Key)>,
    touching: HashSet<Key>,
    names: Vec<String>,
    /// Names that may be of settings, or of anything else, each once and in lower case.
    others: HashSet<String>,
}

impl Catalogue {
    /// A function, view or policy of `owner` and what it says.
    pub(super) fn says(&mut self, owner: &[u8], body: Vec<u8>) {
        if acts(&body) {
            self.touching.insert(key(owner));
        }
        let mut before = Vec::new();
        scan(&body, false, &mut |token| match token {
            Token::Literal(literal) => {
                let is_setting = [&b"set_config"[..], b"current_setting"].iter().any(|function| {
                    parts(&before).last().is_some_and(|last| last.eq_ignore_ascii_case(function))
                });
                let is_word = literal.iter().all(|byte| in_word(*byte));
                let name = is_word.then(|| setting_name(literal)).flatten();
                if is_setting {
                    self.names.extend(name);
                } else {
                    self.others.extend(name.map(|name| name.to_ascii_lowercase()));
                }
            }
            Token::Word { word, .. } => {
                if before.eq_ignore_ascii_case(b"set") {
                    if [&b"local"[..], b"session"].iter().any(|other| word.eq_ignore_ascii_case(other)) {
                        return;
                    }
                    self.names.extend(setting_name(word));
                }
                word.clone_into(&mut before);
            }
            Token::End | Token::Unclear => before.clear(),
        });
        self.bodies.push((key(owner), body));
    }

    /// Something that touches sessions, as far as anybody can tell.
    pub(super) fn touches(&mut self, owner: &[u8]) {
        self.touching.insert(key(owner));
    }

    /// To use `owner` is to use `used`.
    pub(super) fn uses(&mut self, owner: &[u8], used: &[u8]) {
        self.edges.push((key(owner), key(used)));
    }

    /// The name of a custom setting.
    pub(super) fn setting(&mut self, name: &[u8]) {
        self.names.extend(setting_name(name));
    }

    /// Names that may be of settings or of objects, when there are more than are asked for: then it is worth knowing which.
    pub(super) fn doubtful_names(&self) -> Option<Vec<&str>> {
        let sure: HashSet<_> = self.names.iter().map(|name| name.to_ascii_lowercase()).collect();
        let doubtful: Vec<_> =
            self.others.iter().filter(|name| !sure.contains(*name)).map(String::as_str).collect();
        (sure.len() + doubtful.len() > MAX_NAMES).then_some(doubtful)
    }

    /// A relation, type or function has this name; no setting does, unless a function says so.
    pub(super) fn object(&mut self, name: &[u8]) {
        if let Ok(name) = std::str::from_utf8(name) {
            self.others.remove(&name.to_ascii_lowercase());
        }
    }

    /// Whether anything touches at all: if not, nobody needs to know who uses whom.
    pub(super) fn has_touching(&self) -> bool {
        !self.touching.is_empty()
    }

    /// Follows who mentions whom to the end.
    pub(super) fn vocabulary(mut self) -> Vocabulary {
        let mut known = 0;
        let mut words = Vocabulary::default();
        while self.touching.len() > known {
            known = self.touching.len();
            for (owner, used) in &self.edges {
                if self.touching.contains(used) {
                    self.touching.insert(owner.clone());
                }
            }
            words.words.clone_from(&self.touching);
            words.lengths = self.touching.iter().fold(0, |lengths, word| lengths | (1 << word.len()));
            for (owner, body) in &self.bodies {
                if !self.touching.contains(owner) && mentions(body, &words) {
                    self.touching.insert(owner.clone());
                }
            }
        }
        words.everything = self.touching.iter().any(|word| word.first() == Some(&WORDLESS));
        let mut names = self.names();
        words.too_many_names = names.len() > MAX_NAMES;
        if words.too_many_names {
            tracing::warn!(
                names = names.len(),
                most = MAX_NAMES,
                "more names that may be of custom settings than are asked for: who called functions is not carried"
            );
            names.truncate(MAX_NAMES);
        }
        names.sort_unstable();
        words.names = names.into();
        words
    }

    /// Those that are of settings for certain come first.
    fn names(&mut self) -> Vec<String> {
        let mut others: Vec<_> = self.others.drain().collect();
        others.sort_unstable();
        let mut seen = HashSet::new();
        let all = self.names.drain(..).chain(others);
        all.filter(|name| seen.insert(name.to_ascii_lowercase())).collect()
    }
}

fn mentions(body: &[u8], words: &Vocabulary) -> bool {
    let mut found = false;
    scan(body, false, &mut |token| {
        if let Token::Word { word, .. } = token {
            found = found || parts(word).any(|part| words.has(part));
        }
    });
    found
}

/// Whether a body by itself does what may touch a session.
fn acts(body: &[u8]) -> bool {
    let (mut acts, mut updating, mut set) = (false, false, false);
    scan(body, false, &mut |token| match token {
        Token::Word { word, quoted, after } => {
            acts = acts || parts(word).any(|part| text::touches(part, after));
            if quoted {
                return;
            }
            let word = word.to_ascii_lowercase();
            // These end with the transaction.
            acts |= std::mem::take(&mut set)
                && !matches!(word.as_slice(), b"local" | b"transaction" | b"constraints");
            match word.as_slice() {
                b"reset" | b"discard" | b"prepare" | b"deallocate" | b"unlisten" => acts = true,
                b"set" => set = !updating,
                // UPDATE t SET, ALTER TABLE t SET.
                b"update" | b"alter" => updating = true,
                b"begin" | b"then" | b"else" | b"loop" => updating = false,
                _ => {}
            }
        }
        Token::End => updating = false,
        Token::Unclear => acts = true,
        Token::Literal(_) => {}
    });
    acts
}

/// What a body is read as.
enum Token<'a> {
    /// A word and what comes after it, `quoted` when it stands in a literal or is a quoted name.
    Word { word: &'a [u8], quoted: bool, after: &'a [u8] },
    /// A whole literal; its words follow.
    Literal(&'a [u8]),
    /// A semicolon.
    End,
    /// A quote or comment does not end.
    Unclear,
}

fn scan<'a>(text: &'a [u8], quoted: bool, each: &mut impl FnMut(Token<'a>)) {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match if quoted { Opaque::No } else { opaque(text, at, true) } {
            Opaque::Until(end) => {
                let inner = text.get(at..end).unwrap_or_default();
                match byte {
                    b'-' | b'/' => {}
                    b'$' => {
                        let tag = inner.iter().skip(1).position(|byte| *byte == b'$').unwrap_or(0) + 2;
                        let code = inner.get(tag..inner.len().saturating_sub(tag)).unwrap_or_default();
                        scan(code, false, each);
                    }
                    _ => {
                        let inner = inner.get(1..inner.len() - 1).unwrap_or_default();
                        if *byte == b'\'' {
                            each(Token::Literal(inner));
                        }
                        scan(inner, true, each);
                    }
                }
                at = end;
                continue;
            }
            Opaque::Endless => {
                each(Token::Unclear);
                return;
            }
            Opaque::No => {}
        }
        let rest = text.get(at..).unwrap_or_default();
        // A quoted name is read when its quote is met.
        let ends = |byte: &u8| !in_word(*byte) || (*byte == b'"' && !quoted);
        let length = rest.iter().position(ends).unwrap_or(rest.len());
        if length > 0 {
            let (word, after) = rest.split_at(length);
            each(Token::Word { word, quoted, after });
        } else if *byte == b';' && !quoted {
            each(Token::End);
        }
        at += length.max(1);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn bodies_that_act_on_a_session() {
        for (body, expected) in [
            ("begin new.updated := now(); return new; end", false),
            (
                "update t set a = 1 where b = 2; insert into t values (1) on conflict do update set a = 2",
                false,
            ),
            ("begin -- set it, temp\n perform pg_advisory_xact_lock(1); /* listen */ end", false),
            ("begin set app.tenant = 5; end", true),
            ("if x then update t set a = 1; end if; set work_mem = '1MB';", true),
            ("set local a.b = 1; set constraints all deferred; perform set_config(k, v, true)", false),
            ("begin set \"a\".b = 1; end", true),
            ("for r in select * from t for update loop set x.y = 1; end loop", true),
            ("select pg_catalog.set_config('app.tenant', $1, false)", true),
            ("begin raise notice 'set to %; -- ', x; end", false),
            ("begin raise notice '--'; perform pg_advisory_lock(1); end", true),
            ("begin execute format('set %I = 1', x); end", true),
            ("do $x$ begin set app.x = 1; end $x$", true),
            ("create temp table t ()", true),
            ("notify room; listen room", true),
            ("select 'never ends", true),
        ] {
            assert_eq!(acts(body.as_bytes()), expected, "{body}");
        }
    }

    fn catalogue() -> Catalogue {
        let mut catalogue = Catalogue::default();
        catalogue.says(b"set_tenant", b"select set_config('app.tenant', $1::text, false)".to_vec());
        catalogue.says(b"Log In", b"begin perform audit.\"set_tenant\"(7); end".to_vec());
        catalogue.says(b"harmless", b"select 1".to_vec());
        catalogue
    }

    #[test]
    fn who_mentions_what_touches_touches() {
        let mut catalogue = catalogue();
        catalogue.uses(b"orders", b"log in");
        catalogue.uses(b"open_orders", b"orders");
        catalogue.uses(b"customers", b"harmless");
        catalogue.says(b"place", b"insert into Orders values (1)".to_vec());
        let words = catalogue.vocabulary();
        for (word, expected) in [
            ("SET_TENANT", true),
            ("log", true),
            ("harmless", false),
            ("orders", true),
            ("open_orders", true),
            ("place", true),
            ("customers", false),
            ("", false),
        ] {
            assert_eq!(words.has(word.as_bytes()), expected, "{word}");
        }
        assert!(!words.is_everything());
    }

    #[test]
    fn what_is_used_without_a_word_is_everywhere() {
        for name in [&b"\x0116400"[..], "+".as_bytes(), "\u{e4}".as_bytes()] {
            let mut catalogue = catalogue();
            catalogue.uses(name, b"set_tenant");
            assert!(catalogue.vocabulary().is_everything(), "{name:?}");
        }
        assert!(Vocabulary::default().is_everything());
    }

    #[test]
    fn a_name_is_found_however_long_it_is_written() {
        let mut catalogue = Catalogue::default();
        let long = [b'a'; LONGEST];
        catalogue.touches(&long);
        let words = catalogue.vocabulary();
        assert!(words.has(&[b'A'; 70]) && words.has(&long) && !words.has(&[b'a'; 62]));
    }

    #[test]
    fn names_of_settings_in_bodies() {
        let mut catalogue = catalogue();
        catalogue.says(b"f", b"begin set local x.y = 'a.b c'; k := 'my.key'; u := 'no'; end".to_vec());
        catalogue.says(b"p", b"(tenant = current_setting('App.Tenant'::text, true))".to_vec());
        catalogue.says(b"d", b"begin execute 'set dyn.amic = 5'; end".to_vec());
        catalogue.setting(b"of.config");
        let words = catalogue.vocabulary();
        assert_eq!(**words.names(), ["app.tenant", "dyn.amic", "my.key", "of.config", "x.y"]);
    }

    #[test]
    fn names_that_are_not_asked_for_are_told() {
        // Names known for certain, names that may be of anything, those of them that objects have: is anything left out?
        for (sure, others, objects, expected) in [
            (MAX_NAMES, 0, 0, false),
            (MAX_NAMES + 1, 0, 0, true),
            (1, MAX_NAMES - 1, 0, false),
            (1, MAX_NAMES, 0, true),
            (1, MAX_NAMES, 1, false),
            (1, 2 * MAX_NAMES, MAX_NAMES, true),
        ] {
            let mut catalogue = Catalogue::default();
            for n in 0..sure {
                // A setting is asked for, even when a table has its name.
                catalogue.says(b"f", format!("begin k := 'Sure.n{n}'; end").into_bytes());
                catalogue.setting(format!("sure.n{n}").as_bytes());
                catalogue.object(format!("sure.n{n}").as_bytes());
            }
            for n in 0..others {
                catalogue.says(b"f", format!("begin k := 'Other.n{n}'; end").into_bytes());
            }
            let doubtful = catalogue.doubtful_names().map(|names| names.len());
            let too_many_at_first = sure + others > MAX_NAMES;
            assert_eq!(doubtful, too_many_at_first.then_some(others), "{sure} {others}");
            for n in 0..objects {
                catalogue.object(format!("OTHER.n{n}").as_bytes());
            }
            let words = catalogue.vocabulary();
            assert_eq!(words.has_too_many_names(), expected, "{sure} {others} {objects}");
            assert_eq!(words.names().len(), (sure + others - objects).min(MAX_NAMES));
            let is_sure = |name: &&String| name.starts_with("sure.");
            assert_eq!(words.names().iter().filter(is_sure).count(), sure.min(MAX_NAMES));
        }
    }
}
