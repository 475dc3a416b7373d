//! Debian packages that the tests and the fetching of PostgreSQL need: installed when we are root, otherwise named
//! in one clear line. Refuses to know what they are needed for.

use crate::shell;
use anyhow::{Context, Result, bail};
use std::fs;
use std::process::Command;

/// Where Debian says whether the installation of a server makes a cluster and starts it (pg_createcluster(1)).
const CREATE_CLUSTER: &str = "/etc/postgresql-common/createcluster.conf";
/// The last word on a setting counts.
const NO_CLUSTER: &str = "\ncreate_main_cluster = false\n";

/// Makes sure that `packages` get installed, or says what the user has to run.
pub(crate) fn install(packages: &[&str], why: &str) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if !shell::on_path("apt-get") {
        bail!("{why}: install what Debian calls {list}, then run this command again");
    }
    if !shell::is_root() {
        bail!("{why}: run `sudo apt-get install -y {list}`, then run this command again");
    }
    eprintln!("installing Debian packages: {list} ({why})");
    if shell::run(&mut apt_install(packages)).is_ok() {
        return Ok(());
    }
    // A fresh machine has no package lists, or lists that name versions no longer served.
    shell::run(Command::new("apt-get").args(["update", "-q"]))?;
    shell::run(&mut apt_install(packages))
}

/// Makes sure that Debian's PostgreSQL of `major` gets installed, or says what the user has to run. Only its programs are
/// wanted: no cluster is made and no server started, and what the machine does at the next installation stays as it was.
pub(crate) fn install_server(major: u16, why: &str) -> Result<()> {
    let package = format!("postgresql-{major}");
    if !shell::is_root() {
        return install(&[&package], why);
    }
    // Brings the file, and no server.
    install(&["postgresql-common"], why)?;
    let write = |text: &str| fs::write(CREATE_CLUSTER, text).with_context(|| CREATE_CLUSTER.to_owned());
    let before = fs::read_to_string(CREATE_CLUSTER).with_context(|| CREATE_CLUSTER.to_owned())?;
    write(&format!("{before}{NO_CLUSTER}"))?;
    let installed = install(&[&package], why);
    write(&before)?;
    installed
}

/// The program `name`, on the PATH or in the directory where Debian keeps servers' programs.
pub(crate) fn has_program(name: &str) -> bool {
    shell::on_path(name) || std::path::Path::new("/usr/sbin").join(name).is_file()
}

fn apt_install(packages: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command.args(["install", "-y", "-q", "--no-install-recommends"]).args(packages);
    command
}
