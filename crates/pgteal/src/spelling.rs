//! Commands in advice, spelled as they must be typed: with the `--config` that this command was given. Knows no advice.

use std::path::Path;

use clap::CommandFactory as _;

use crate::cli::{Cli, Global};
use crate::config::{DEFAULT_FILE, Env};

/// The configuration file for a shell, if it was named on the command line: what the environment names holds for the next
/// command, too.
pub(crate) fn config_of(global: &Global, env: &Env) -> Option<String> {
    let named = global.config.to_string_lossy();
    let is_usual =
        global.config == Path::new(DEFAULT_FILE) || env.get("PGTEAL_CONFIG") == Some(named.as_ref());
    (!is_usual).then(|| quoted(&named))
}

/// `advice` with `--config` in each `pgteal COMMAND` that reads one.
pub(crate) fn with_config(advice: &str, config: &str) -> String {
    let cli = Cli::command();
    let reads = |word: &str| {
        !["demo", "completions"].contains(&word) && cli.get_subcommands().any(|one| one.get_name() == word)
    };
    let mut pieces = advice.split("pgteal ");
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let end = piece.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(piece.len());
        text += if reads(&piece[..end]) { "pgteal --config " } else { "pgteal " };
        if reads(&piece[..end]) {
            text += config;
            text.push(' ');
        }
        text += piece;
    }
    text
}

fn quoted(path: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+,:@%=".contains(c);
    if path.chars().all(is_plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_that_reads_the_configuration_names_it() {
        for (advice, expected) in [
            (
                "pgteal resume, or: pgteal undo",
                "pgteal --config a.toml resume, or: pgteal --config a.toml undo",
            ),
            ("look: pgteal status --watch", "look: pgteal --config a.toml status --watch"),
            ("pgteal --config next.toml init", "pgteal --config next.toml init"),
            ("run it again: pgteal demo", "run it again: pgteal demo"),
            ("if its pgteal is at work; pgteal --help", "if its pgteal is at work; pgteal --help"),
            ("of pgteal.toml, then: pgteal proxy", "of pgteal.toml, then: pgteal --config a.toml proxy"),
        ] {
            assert_eq!(with_config(advice, "a.toml"), expected);
        }
        assert_eq!(quoted("/etc/pgteal/a.toml"), "/etc/pgteal/a.toml");
        assert_eq!(quoted("my own.toml"), "'my own.toml'");
    }
}
