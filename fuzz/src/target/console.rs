//! The console's grammar: what is read means the same in other letters and with other spaces, and a command says its epoch.

use crate::command::{Command, parse};

pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let read = parse(text);
    assert_eq!(parse(&format!("\n {text} ;; ")).is_ok(), read.is_ok());
    let Ok(Some(command)) = read else { return };
    assert_eq!(parse(&format!("  {text};")).as_ref(), Ok(&Some(command.clone())));
    if !text.contains('\'') {
        assert_eq!(parse(&text.to_ascii_lowercase()).as_ref(), Ok(&Some(command.clone())));
    }
    let upper = text.to_ascii_uppercase();
    match command {
        Command::Hold { .. }
        | Command::Drain { .. }
        | Command::Settle { .. }
        | Command::Repoint { .. }
        | Command::Release { .. }
        | Command::Warm { .. }
        | Command::Cool { .. } => assert!(upper.contains("EPOCH")),
        _ => assert!(!upper.contains("EPOCH")),
    }
}
