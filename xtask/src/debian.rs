//! Debian packages that the tests and the fetching of PostgreSQL need: installed when we are root, otherwise named
//! in one clear line. Refuses to know what they are needed for.

use crate::shell;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Where Debian says whether the installation of a server makes a cluster and starts it (pg_createcluster(1)).
const CREATE_CLUSTER: &str = "/etc/postgresql-common/createcluster.conf";
/// The last word on a setting counts.
const NO_CLUSTER: &str = "\ncreate_main_cluster = false\n";

/// The release whose source packages the project uses, whatever the machine's own release is, and the keys it is signed with.
const RELEASE: &str = "bookworm";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

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

/// Downloads the sources of `package`, as they are in the Debian release whose sources the project uses, into `place`. They
/// come from where this machine has its Debian packages from and are what Debian's signed index says; nothing of the machine's
/// own package lists is touched, so that anybody can.
pub(crate) fn source(package: &str, place: &Path) -> Result<()> {
    ensure!(shell::on_path("apt-get"), "{package}: its sources come by apt-get, which is not here");
    let mut look = Command::new("apt-get");
    look.args(["indextargets", "--format", "$(ORIGIN) $(COMPONENT) $(CODENAME) $(REPO_URI)"]);
    let known = shell::read(look.arg("Created-By: Packages"))?;
    let mirror = mirror(&known).context("this machine has no packages from Debian: run `apt-get update`")?;
    let lists = place.join("lists");
    for dir in [lists.join("partial"), place.join("archives/partial")] {
        fs::create_dir_all(dir)?;
    }
    let sources = place.join("sources.list");
    fs::write(&sources, format!("deb-src [signed-by={KEYRING}] {mirror} {RELEASE} main\n"))?;
    let apt = |args: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.arg("-q").current_dir(place).arg("-o").arg(format!("Dir::Etc::sourcelist={}", sources.display()));
        apt.args(["-o", "Dir::Etc::sourceparts=-", "-o", "APT::Sandbox::User=", "-o"]);
        apt.arg(format!("Dir::State::lists={}", lists.display())).arg("-o");
        apt.arg(format!("Dir::Cache={}", place.display())).args(args);
        shell::read(&mut apt).map(drop)
    };
    apt(&["update", "-o", "APT::Update::Error-Mode=any"])?;
    apt(&["source", "--download-only", package])
}

/// Where `known`, a line for each of a machine's package lists, says that Debian's own packages come from.
fn mirror(known: &str) -> Option<&str> {
    let lists = known.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lists.into_iter().find_map(|fields| match fields[..] {
        // Updates of a release are called by its name and a word; not each of their places has the release itself.
        ["Debian", "main", release, place] if !release.contains('-') => Some(place),
        _ => None,
    })
}

/// The program `name`, on the PATH or in the directory where Debian keeps servers' programs.
pub(crate) fn has_program(name: &str) -> bool {
    shell::on_path(name) || Path::new("/usr/sbin").join(name).is_file()
}

fn apt_install(packages: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command.args(["install", "-y", "-q", "--no-install-recommends"]).args(packages);
    command
}

#[cfg(test)]
mod tests {
    #[test]
    fn debians_own_packages_are_told_from_updates_and_from_other_peoples() {
        let known = "Else main bookworm http://else\nDebian main bookworm-security http://security\n\
                     Debian contrib bookworm http://contrib\nDebian main bookworm http://here/debian/\n";
        assert_eq!(super::mirror(known), Some("http://here/debian/"));
        assert_eq!(super::mirror("Else main bookworm http://else\n"), None);
    }
}
