//! Which user servers run as: PostgreSQL refuses root, so root hands over to `nobody`. Owns the hand-over of
//! processes and files. Refuses to know what is run.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::Command;

const USER: &str = "nobody";
const GROUP: &str = "nogroup";

/// A command that runs `program` as an ordinary user: `nobody` when we are root, else ourselves.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={USER}"), &format!("--regid={GROUP}"), "--clear-groups", "--"]);
    command.arg(program);
    command
}

/// Gives one file or directory to the user of [`command`].
pub(crate) fn give(path: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let uid = number("/etc/passwd", USER)?;
    let gid = number("/etc/group", GROUP)?;
    std::os::unix::fs::chown(path, Some(uid), Some(gid))
}

/// The number of a name in a file of the form `name:x:number:...`.
fn number(file: &str, name: &str) -> io::Result<u32> {
    let text = std::fs::read_to_string(file)?;
    let mut entries = text.lines().map(|line| line.split(':'));
    let found = entries.find_map(|mut fields| {
        let same = fields.next() == Some(name);
        if same { fields.nth(1).and_then(|number| number.parse().ok()) } else { None }
    });
    found.ok_or_else(|| io::Error::other(format!("{file} does not know {name}")))
}
