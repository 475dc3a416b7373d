//! Owns the grammar of the console: what the words of a command mean. Refuses to carry any of them out.

use std::time::Duration;

use crate::route::Side;

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    ShowVersion,
    ShowHelp,
    ShowConfig,
    ShowState,
    ShowSessions,
    ShowRoutes,
    ShowUpstreams,
    ShowHeld,
    ShowStats,
    Look { limit: Duration },
    Ask { side: Side, limit: Duration },
    Warm { side: Side, epoch: u64, limit: Duration },
    Cool { epoch: u64 },
    Hold { epoch: u64, limit: Duration, run: String },
    Drain { epoch: u64, budget: Duration, terminate: bool },
    Settle { epoch: u64, limit: Duration },
    Repoint { side: Side, epoch: u64 },
    Release { epoch: u64 },
    ResetStats,
    Reload,
}

impl Command {
    /// Whether it is one of those that change nothing and ask nothing of servers and sessions.
    pub(crate) const fn only_shows(&self) -> bool {
        match self {
            Self::ShowVersion
            | Self::ShowHelp
            | Self::ShowConfig
            | Self::ShowState
            | Self::ShowSessions
            | Self::ShowRoutes
            | Self::ShowUpstreams
            | Self::ShowHeld
            | Self::ShowStats => true,
            Self::Look { .. }
            | Self::Ask { .. }
            | Self::Warm { .. }
            | Self::Cool { .. }
            | Self::Hold { .. }
            | Self::Drain { .. }
            | Self::Settle { .. }
            | Self::Repoint { .. }
            | Self::Release { .. }
            | Self::ResetStats
            | Self::Reload => false,
        }
    }
}

/// Every command with its form, for `SHOW HELP` and for errors.
pub(crate) const FORMS: [(&str, &str); 20] = [
    ("SHOW VERSION", "the program's version"),
    ("SHOW HELP", "this list"),
    ("SHOW CONFIG", "the configuration, without secrets"),
    ("SHOW STATE", "the gate, the route and who drives"),
    ("SHOW SESSIONS", "every client session"),
    ("SHOW ROUTES", "blue, green and their replicas: where they are, which side is active, what is on each"),
    ("SHOW UPSTREAMS", "every connection to a server, with the pid that pg_stat_activity knows it by"),
    ("SHOW HELD", "who waits before the gate, and for how long"),
    ("SHOW STATS", "counters since the start or RESET STATS"),
    ("LOOK [LIMIT <ms>]", "look at what every idle session holds, for SHOW SESSIONS; open nothing"),
    (
        "ASK <blue|green> [LIMIT <ms>]",
        "find out whether passwords can be looked up on that side, and which server it is; change nothing",
    ),
    ("WARM <blue|green> EPOCH <n> [LIMIT <ms>]", "open every idle session's upstream on that side ahead"),
    ("COOL EPOCH <n>", "close the upstreams that were opened ahead"),
    ("HOLD EPOCH <n> LIMIT <ms> [RUN '<id>']", "let no transaction begin, for so long at most"),
    (
        "DRAIN EPOCH <n> BUDGET <ms> [TERMINATE]",
        "while held: wait until no transaction is open; then end what is left",
    ),
    ("SETTLE EPOCH <n> LIMIT <ms>", "while held: bring the upstreams opened ahead up to date"),
    ("REPOINT <blue|green> EPOCH <n>", "while held and drained: change the route"),
    ("RELEASE EPOCH <n>", "let transactions begin again"),
    ("RESET STATS", "counters to zero"),
    ("RELOAD", "read certificates and keys again, as at SIGHUP"),
];

/// How long `LOOK` and `WARM` wait unless told otherwise.
const WARM_LIMIT: Duration = Duration::from_secs(30);

/// What is wrong with a command's text.
pub(crate) type Complaint = String;

/// A word, number or quoted text of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
}

fn tokens(text: &str) -> Result<Vec<Token>, Complaint> {
    let mut out = Vec::new();
    let mut rest = text.trim().trim_end_matches(|c: char| c == ';' || c.is_whitespace());
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('\'') {
            let mut value = String::new();
            let mut tail = quoted;
            loop {
                let Some((head, after)) = tail.split_once('\'') else {
                    return Err("a quote does not end".into());
                };
                value.push_str(head);
                let Some(doubled) = after.strip_prefix('\'') else {
                    rest = after;
                    break;
                };
                value.push('\'');
                tail = doubled;
            }
            out.push(Token::Text(value));
        } else {
            let end = rest.find(|c: char| c.is_whitespace() || c == '\'').unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            out.push(Token::Word(word.to_ascii_uppercase()));
            rest = after;
        }
        rest = rest.trim_start();
    }
    Ok(out)
}

struct Reader {
    tokens: std::vec::IntoIter<Token>,
    form: &'static str,
}

impl Reader {
    fn complain<T>(&self) -> Result<T, Complaint> {
        Err(format!("expected: {}", self.form))
    }

    fn word(&mut self) -> Option<String> {
        match self.tokens.next() {
            Some(Token::Word(word)) => Some(word),
            _ => None,
        }
    }

    fn number(&mut self, keyword: &str) -> Result<u64, Complaint> {
        if self.word().as_deref() != Some(keyword) {
            return self.complain();
        }
        match self.word().and_then(|word| word.parse().ok()) {
            Some(number) => Ok(number),
            None => self.complain(),
        }
    }

    fn side(&mut self) -> Result<Side, Complaint> {
        match self.word().and_then(|word| Side::parse(&word)) {
            Some(side) => Ok(side),
            None => self.complain(),
        }
    }

    fn done(&mut self) -> bool {
        self.tokens.as_slice().is_empty()
    }

    fn end(&mut self, command: Command) -> Result<Option<Command>, Complaint> {
        if self.done() { Ok(Some(command)) } else { self.complain() }
    }
}

/// Reads a command; `None` when there is nothing in it.
///
/// # Errors
/// Says which form was expected.
pub(crate) fn parse(text: &str) -> Result<Option<Command>, Complaint> {
    let tokens = tokens(text)?;
    let words: Vec<&str> = tokens
        .iter()
        .map(|token| match token {
            Token::Word(word) => word.as_str(),
            Token::Text(_) => "'",
        })
        .collect();
    let simple = match words.as_slice() {
        [] => return Ok(None),
        ["SHOW", "VERSION"] => Some(Command::ShowVersion),
        ["SHOW", "HELP"] => Some(Command::ShowHelp),
        ["SHOW", "CONFIG"] => Some(Command::ShowConfig),
        ["SHOW", "STATE"] => Some(Command::ShowState),
        ["SHOW", "SESSIONS"] => Some(Command::ShowSessions),
        ["SHOW", "ROUTES"] => Some(Command::ShowRoutes),
        ["SHOW", "UPSTREAMS"] => Some(Command::ShowUpstreams),
        ["SHOW", "HELD"] => Some(Command::ShowHeld),
        ["SHOW", "STATS"] => Some(Command::ShowStats),
        ["RESET", "STATS"] => Some(Command::ResetStats),
        _ => None,
    };
    if simple.is_some() {
        return Ok(simple);
    }
    let verb = words.first().copied().unwrap_or_default().to_owned();
    let Some((form, _)) =
        FORMS.iter().find(|(form, _)| form.split(' ').next() == Some(&verb) && verb != "SHOW")
    else {
        return Err(format!("no command \"{}\"; SHOW HELP lists them", text.trim()));
    };
    let mut reader = Reader { tokens: tokens.into_iter(), form };
    reader.word();
    let command = match verb.as_str() {
        "LOOK" => {
            let limit = if reader.done() { WARM_LIMIT } else { millis(reader.number("LIMIT")?) };
            Command::Look { limit }
        }
        "ASK" => {
            let side = reader.side()?;
            let limit = if reader.done() { WARM_LIMIT } else { millis(reader.number("LIMIT")?) };
            Command::Ask { side, limit }
        }
        "WARM" => {
            let (side, epoch) = (reader.side()?, reader.number("EPOCH")?);
            let limit = if reader.done() { WARM_LIMIT } else { millis(reader.number("LIMIT")?) };
            Command::Warm { side, epoch, limit }
        }
        "COOL" => Command::Cool { epoch: reader.number("EPOCH")? },
        "HOLD" => {
            let (epoch, limit) = (reader.number("EPOCH")?, millis(reader.number("LIMIT")?));
            let run = if reader.done() { String::new() } else { run_of(&mut reader)? };
            Command::Hold { epoch, limit, run }
        }
        "DRAIN" => {
            let (epoch, budget) = (reader.number("EPOCH")?, millis(reader.number("BUDGET")?));
            let terminate = !reader.done();
            if terminate && reader.word().as_deref() != Some("TERMINATE") {
                return reader.complain();
            }
            Command::Drain { epoch, budget, terminate }
        }
        "SETTLE" => {
            Command::Settle { epoch: reader.number("EPOCH")?, limit: millis(reader.number("LIMIT")?) }
        }
        "REPOINT" => Command::Repoint { side: reader.side()?, epoch: reader.number("EPOCH")? },
        "RELOAD" => Command::Reload,
        "RELEASE" => Command::Release { epoch: reader.number("EPOCH")? },
        _ => return reader.complain(),
    };
    reader.end(command)
}

fn millis(number: u64) -> Duration {
    Duration::from_millis(number.min(86_400_000))
}

fn run_of(reader: &mut Reader) -> Result<String, Complaint> {
    if reader.word().as_deref() != Some("RUN") {
        return reader.complain();
    }
    match reader.tokens.next() {
        Some(Token::Text(run)) => Ok(run),
        _ => reader.complain(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn commands_are_read() {
        let ms = Duration::from_millis;
        for (text, expected) in [
            ("", Ok(None)),
            (" ; ", Ok(None)),
            ("show state;", Ok(Some(Command::ShowState))),
            ("reload;", Ok(Some(Command::Reload))),
            ("Reset Stats", Ok(Some(Command::ResetStats))),
            (
                "WARM green EPOCH 5",
                Ok(Some(Command::Warm { side: Side::Green, epoch: 5, limit: ms(30_000) })),
            ),
            (
                "WARM blue EPOCH 5 LIMIT 7",
                Ok(Some(Command::Warm { side: Side::Blue, epoch: 5, limit: ms(7) })),
            ),
            ("HOLD EPOCH 1 LIMIT 2", Ok(Some(Command::Hold { epoch: 1, limit: ms(2), run: String::new() }))),
            (
                "HOLD EPOCH 1 LIMIT 2 RUN 'it''s'",
                Ok(Some(Command::Hold { epoch: 1, limit: ms(2), run: "it's".into() })),
            ),
            (
                "DRAIN EPOCH 1 BUDGET 500 TERMINATE",
                Ok(Some(Command::Drain { epoch: 1, budget: ms(500), terminate: true })),
            ),
            ("SETTLE EPOCH 1 LIMIT 5", Ok(Some(Command::Settle { epoch: 1, limit: ms(5) }))),
            ("REPOINT GREEN EPOCH 9", Ok(Some(Command::Repoint { side: Side::Green, epoch: 9 }))),
            ("RELEASE EPOCH 9 ;", Ok(Some(Command::Release { epoch: 9 }))),
            ("look", Ok(Some(Command::Look { limit: ms(30_000) }))),
            ("ask green", Ok(Some(Command::Ask { side: Side::Green, limit: ms(30_000) }))),
            ("ASK BLUE LIMIT 5", Ok(Some(Command::Ask { side: Side::Blue, limit: ms(5) }))),
            ("ASK", Err("expected: ASK <blue|green> [LIMIT <ms>]")),
            ("LOOK LIMIT 5", Ok(Some(Command::Look { limit: ms(5) }))),
            ("RELEASE", Err("expected: RELEASE EPOCH <n>")),
            ("RELEASE EPOCH x", Err("expected: RELEASE EPOCH <n>")),
            ("RELEASE EPOCH 1 NOW", Err("expected: RELEASE EPOCH <n>")),
            ("REPOINT red EPOCH 1", Err("expected: REPOINT <blue|green> EPOCH <n>")),
            ("HOLD EPOCH 1 LIMIT 2 RUN x", Err("expected: HOLD EPOCH <n> LIMIT <ms> [RUN '<id>']")),
            ("HOLD EPOCH 1 LIMIT 2 RUN 'x", Err("a quote does not end")),
            ("show nothing", Err("no command \"show nothing\"; SHOW HELP lists them")),
            ("select 1", Err("no command \"select 1\"; SHOW HELP lists them")),
        ] {
            assert_eq!(parse(text), expected.map_err(str::to_owned), "{text}");
        }
    }
}
