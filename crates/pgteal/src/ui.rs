//! Where a command writes: standard output for what was asked for, standard error for notes. Decides once between
//! text and JSON, colour and none, terminal and plain. Knows nothing of what is written.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::cli::{Color, Global};
use crate::config::Env;
use crate::spelling;

/// The output of one command; clones write to the same place.
#[derive(Clone)]
pub struct Ui {
    out: Arc<Mutex<dyn Write + Send>>,
    err: Arc<Mutex<dyn Write + Send>>,
    json: bool,
    color: bool,
    terminal: bool,
    /// The configuration file, if the command line names another than the usual one.
    config: Option<String>,
}

impl std::fmt::Debug for Ui {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ui").field("json", &self.json).field("color", &self.color).finish_non_exhaustive()
    }
}

/// What was written to an output in memory.
pub type Captured = Arc<Mutex<Vec<u8>>>;

/// The few styles that pgteal uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Success.
    Good,
    /// Something to look at.
    Warn,
    /// Failure.
    Bad,
    /// Less important.
    Dim,
    /// Headings.
    Bold,
}

impl Ui {
    /// The output of this process.
    #[must_use]
    pub fn of_process(global: &Global, env: &Env) -> Self {
        use std::io::IsTerminal;
        let terminal = std::io::stderr().is_terminal() && std::io::stdout().is_terminal();
        let color = match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && env.get("NO_COLOR").is_none() && env.get("TERM") != Some("dumb"),
        };
        Self {
            out: Arc::new(Mutex::new(std::io::stdout())),
            err: Arc::new(Mutex::new(std::io::stderr())),
            json: global.json,
            color: color && !global.json,
            terminal,
            config: spelling::config_of(global, env),
        }
    }

    /// An output kept in memory, without colour or terminal.
    #[must_use]
    pub fn in_memory(json: bool) -> (Self, Captured, Captured) {
        let (out, err) = (Captured::default(), Captured::default());
        (
            Self { out: out.clone(), err: err.clone(), json, color: false, terminal: false, config: None },
            out,
            err,
        )
    }

    /// Advice as it is typed: each `pgteal COMMAND` with the `--config` that this command was given.
    #[must_use]
    pub fn spelled(&self, advice: &str) -> String {
        self.config.as_ref().map_or_else(|| advice.to_owned(), |config| spelling::with_config(advice, config))
    }

    /// Whether the caller asked for JSON.
    #[must_use]
    pub const fn json(&self) -> bool {
        self.json
    }

    /// Whether a person watches: progress bars are welcome.
    #[must_use]
    pub const fn terminal(&self) -> bool {
        self.terminal && !self.json
    }

    /// One line of text on standard output; nothing with `--json`.
    pub fn line(&self, text: impl AsRef<str>) {
        if !self.json {
            write_line(&self.out, text.as_ref());
        }
    }

    /// One line on standard error, with `--json` as well.
    pub fn note(&self, text: impl AsRef<str>) {
        write_line(&self.err, text.as_ref());
    }

    /// One JSON object on standard output, on one line; nothing without `--json`.
    pub fn object(&self, value: &impl Serialize) {
        if self.json {
            match serde_json::to_string(value) {
                Ok(text) => write_line(&self.out, &text),
                Err(error) => self.note(format!("cannot print the answer as JSON: {error}")),
            }
        }
    }

    /// Raw text on standard output whatever the mode: for scripts and schemas.
    pub fn raw(&self, text: &str) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // A reader that went away (a closed pipe) is no failure of ours.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// Clears the terminal before the next look of a watch.
    pub fn clear(&self) {
        if self.terminal() {
            self.raw("\x1b[2J\x1b[H");
        }
    }

    /// The same output without anything on standard output: notes and failures are still heard.
    #[must_use]
    pub fn quiet(&self) -> Self {
        let nowhere: Arc<Mutex<dyn Write + Send>> = Arc::new(Mutex::new(std::io::sink()));
        Self { out: nowhere, json: false, terminal: false, ..self.clone() }
    }

    /// The text in a style, when colours are on.
    #[must_use]
    pub fn paint(&self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Good => "32",
            Style::Warn => "33",
            Style::Bad => "31;1",
            Style::Dim => "2",
            Style::Bold => "1",
        };
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn write_line(to: &Mutex<dyn Write + Send>, text: &str) {
    let mut to = to.lock().unwrap_or_else(PoisonError::into_inner);
    // A reader that went away (a closed pipe) is no failure of ours.
    let _ = writeln!(to, "{text}").and_then(|()| to.flush());
}
