//! Owns the making of a local cluster: directories, `initdb` in blue's image, access rules, settings, the tool's role.
//! Refuses to know how it is run afterwards. Whatever ends half-way stays marked as being made.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use pgteal_postgres::{ConnInfo, Purpose, Server, Session, quote};

use super::image::{self, Image};
use super::marker::{Marker, Stage};
use super::settings::{self, GreenCatalogue, GreenSetting};
use super::{Local, PROGRAM_LIMIT, hba};
use crate::providers::programs::{OsUser, run};
use crate::providers::{Headroom, LeftOut, Prepared, Result, file};

/// Whether a directory does not exist or holds nothing.
pub(super) fn is_vacant(dir: &Path) -> Result<bool> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(file("looking into", dir)(e)),
    }
}

/// Makes the cluster from nothing and leaves it stopped.
pub(super) async fn make(local: &Local, blue: &Server, headroom: Headroom) -> Result<Prepared> {
    let image = image::read(blue).await?;
    let owner = local.programs.owner()?;
    let made = missing(&[local.data_dir(), &local.config.unix_dir]);
    if let Some(parent) = local.data_dir().parent() {
        make_directories(parent, &made, &owner)?;
    }
    let mut marker = Marker {
        format: Marker::FORMAT,
        deployment: local.deployment.as_str().to_owned(),
        stage: Stage::Making,
        made: made.clone(),
        prepared: Prepared::default(),
    };
    marker.write(local.data_dir())?;
    make_directories(local.data_dir(), &made, &owner)?;
    make_directories(&local.config.unix_dir, &made, &owner)?;
    initdb(local, &image).await?;
    let making = BTreeMap::from([("listen_addresses".to_owned(), String::new())]);
    configure(local, &image, &owner, &making, true)?;
    local.launch(PROGRAM_LIMIT).await?;
    let catalogue = furnish(local, &image).await?;
    local.halt("fast", PROGRAM_LIMIT).await?;
    let (settings, prepared) = decide(local, &image, &catalogue, headroom).await?;
    configure(local, &image, &owner, &settings, false)?;
    marker.prepared = prepared;
    marker.stage = Stage::Ready;
    marker.write(local.data_dir())?;
    Ok(marker.prepared)
}

/// The directories on the way to `wanted` that do not exist yet, outermost first.
fn missing(wanted: &[&Path]) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = wanted.iter().flat_map(|w| w.ancestors()).map(Path::to_owned).collect();
    all.sort();
    all.dedup();
    all.retain(|path| !path.exists());
    all
}

fn make_directories(wanted: &Path, made: &[PathBuf], owner: &OsUser) -> Result<()> {
    for directory in made.iter().filter(|d| wanted.starts_with(d) && !d.exists()) {
        std::fs::create_dir(directory).map_err(file("making", directory))?;
        chown(directory, Some(owner.uid), Some(owner.gid)).map_err(file("giving away", directory))?;
    }
    if wanted.exists() && !made.iter().any(|d| d == wanted) && owner.uid != OsUser::of_process()?.uid {
        // An empty directory that the operator made must belong to the server's owner (initdb would refuse it).
        let empty = is_vacant(wanted)?;
        if empty {
            chown(wanted, Some(owner.uid), Some(owner.gid)).map_err(file("giving away", wanted))?;
        }
    }
    Ok(())
}

async fn initdb(local: &Local, image: &Image) -> Result<()> {
    let green = local.programs.version().await?;
    let mut command = local.programs.server("initdb");
    command.arg("-D").arg(local.data_dir());
    command.args(["-U", &image.bootstrap, "--auth-local=peer", "--auth-host=reject"]);
    command.args(["--encoding", &image.encoding]);
    command.args(["--wal-segsize", &(image.wal_segment_bytes >> 20).to_string()]);
    command.args(locale_arguments(image, green.major));
    if image.checksums {
        command.arg("--data-checksums");
    } else if green.major >= 18 {
        // On by default since 18.
        command.arg("--no-data-checksums");
    }
    run("initdb", command, PROGRAM_LIMIT).await.map(|_| ())
}

/// Blue's locale in the words of green's `initdb` (15 brought ICU as a provider, 17 the built-in one).
fn locale_arguments(image: &Image, green: u32) -> Vec<String> {
    let text = |key: &str| image.locale.get(key).and_then(|v| v.as_str()).map(str::to_owned);
    let mut arguments = Vec::new();
    arguments.extend(text("datcollate").map(|l| format!("--lc-collate={l}")));
    arguments.extend(text("datctype").map(|l| format!("--lc-ctype={l}")));
    let locale = text("datlocale").or_else(|| text("daticulocale"));
    match (text("datlocprovider").as_deref(), locale) {
        (Some("i"), Some(locale)) => {
            arguments.extend(["--locale-provider=icu".to_owned(), format!("--icu-locale={locale}")]);
            arguments.extend(text("daticurules").map(|r| format!("--icu-rules={r}")));
        }
        (Some("b"), Some(locale)) => {
            arguments.extend(["--locale-provider=builtin".to_owned(), format!("--builtin-locale={locale}")]);
        }
        _ if green >= 15 => arguments.push("--locale-provider=libc".to_owned()),
        _ => {}
    }
    arguments
}

/// Writes the four files that make a fresh data directory ours.
fn configure(
    local: &Local,
    image: &Image,
    owner: &OsUser,
    settings: &BTreeMap<String, String>,
    making: bool,
) -> Result<()> {
    let data = local.data_dir();
    let mut settings = settings.clone();
    settings.insert("port".to_owned(), local.config.port.to_string());
    settings
        .insert("unix_socket_directories".to_owned(), local.config.unix_dir.to_string_lossy().into_owned());
    if let Some(tls) = image.tls.as_ref().filter(|_| !making) {
        settings.insert("ssl".to_owned(), "on".to_owned());
        for (setting, name, content) in &tls.files {
            write(&data.join(name), content, owner)?;
            settings.insert((*setting).to_owned(), (*name).to_owned());
        }
    }
    write(&data.join("pgteal.conf"), &settings::render(&settings), owner)?;
    let main = data.join("postgresql.conf");
    let mut text = std::fs::read_to_string(&main).map_err(file("reading", &main))?;
    if !text.contains("include 'pgteal.conf'") {
        text.push_str("\ninclude 'pgteal.conf'  # written by pgteal\n");
        write(&main, &text, owner)?;
    }
    let bootstrap = making.then_some(image.bootstrap.as_str());
    let old = image.tool_verifier.as_ref().is_some_and(|v| v.starts_with("md5"));
    let method = local.config.password.as_ref().map(|_| if old { "md5" } else { "scram-sha-256" });
    let rules = hba::compose(&image.hba, &image.tool_role, bootstrap, method);
    write(&data.join("pg_hba.conf"), &rules, owner)?;
    let mut users = vec![OsUser::of_process()?.name, owner.name.clone()];
    users.dedup();
    let mut roles = vec![image.tool_role.as_str()];
    roles.extend(bootstrap.filter(|b| *b != image.tool_role));
    write(&data.join("pg_ident.conf"), &hba::compose_ident(&image.ident, &users, &roles), owner)
}

fn write(path: &Path, text: &str, owner: &OsUser) -> Result<()> {
    let put = || {
        std::fs::write(path, text)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        chown(path, Some(owner.uid), Some(owner.gid))?;
        std::fs::File::open(path)?.sync_all()
    };
    put().map_err(file("writing", path))
}

/// Makes the tool's role and reads what green's version knows.
async fn furnish(local: &Local, image: &Image) -> Result<GreenCatalogue> {
    let socket = local.config.unix_dir.to_string_lossy();
    let info = ConnInfo::at(socket, local.config.port, &image.bootstrap).with_database("postgres");
    let server = Server::new("green", info).map_err(pgteal_postgres::Error::from)?;
    let session = server.connect("postgres", Purpose::control("provider")).await?;
    let role = |name: &str, verifier: &Option<String>, verb: &str| {
        let password = verifier.as_ref().map_or_else(|| "NULL".to_owned(), |v| quote::literal(v));
        format!(
            "{verb} ROLE {} SUPERUSER LOGIN REPLICATION BYPASSRLS PASSWORD {password};",
            quote::ident(name)
        )
    };
    let mut sql = role(&image.bootstrap, &image.bootstrap_verifier, "ALTER");
    if image.tool_role != image.bootstrap {
        sql.push_str(&role(&image.tool_role, &image.tool_verifier, "CREATE"));
    }
    session.batch_unlogged("making the tool's role", &sql).await?;
    catalogue(&session, local).await
}

async fn catalogue(session: &Session, local: &Local) -> Result<GreenCatalogue> {
    let sql = "select name, context, vartype, coalesce(unit, ''), min_val::float8, max_val::float8,
        coalesce(enumvals, '{}') from pg_settings";
    let rows = session.query("reading which settings there are", sql, &[]).await?;
    let mut settings = BTreeMap::new();
    for row in rows {
        let setting = GreenSetting {
            context: row.get(1)?,
            vartype: row.get(2)?,
            unit: row.get(3)?,
            min: row.get(4)?,
            max: row.get(5)?,
            choices: row.get(6)?,
        };
        settings.insert(row.get(0)?, setting);
    }
    let directory = local.programs.directory("--pkglibdir").await;
    let modules = directory.and_then(|d| std::fs::read_dir(d).ok()).map(|entries| {
        let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
        names.filter_map(|n| n.strip_suffix(".so").map(str::to_owned)).collect::<BTreeSet<_>>()
    });
    Ok(GreenCatalogue { settings, modules })
}

/// The final settings, and what to tell about them.
async fn decide(
    local: &Local,
    image: &Image,
    catalogue: &GreenCatalogue,
    headroom: Headroom,
) -> Result<(BTreeMap<String, String>, Prepared)> {
    let (carried, mut left_out) = settings::choose(&image.settings, catalogue);
    left_out.extend(image.left_out.iter().cloned());
    let major = local.programs.version().await?.major;
    let mut all = carried.clone();
    all.extend(settings::ours(headroom.databases, headroom.copy_workers, major, &carried));
    for (name, value) in &local.config.parameters {
        let ours = ["port", "listen_addresses", "unix_socket_directories", "wal_level", "data_directory"];
        if ours.contains(&name.as_str()) {
            let why = "pgteal decides it".to_owned();
            left_out.push(LeftOut { name: name.clone(), value: value.clone(), why });
        } else {
            all.insert(name.clone(), value.clone());
        }
    }
    all.insert("listen_addresses".to_owned(), local.config.listen.clone());
    Ok((all, Prepared { carried: carried.into_iter().collect(), left_out }))
}
