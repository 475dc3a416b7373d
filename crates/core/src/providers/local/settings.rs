//! Owns which of blue's settings green gets. Pure: refuses to know files and servers.

use std::collections::{BTreeMap, BTreeSet};

use crate::providers::LeftOut;

/// A setting that blue's files or command line give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BlueSetting {
    pub(super) name: String,
    pub(super) value: String,
    /// The unit of a bare number, e.g. `8kB`.
    pub(super) unit: String,
    /// Whether `value` is a number in that unit; otherwise it is the file's own text.
    pub(super) in_base_unit: bool,
}

/// A setting that green's version has.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct GreenSetting {
    pub(super) context: String,
    pub(super) vartype: String,
    pub(super) unit: String,
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
    pub(super) choices: Vec<String>,
}

/// What green has.
#[derive(Debug, Clone, Default)]
pub(super) struct GreenCatalogue {
    pub(super) settings: BTreeMap<String, GreenSetting>,
    /// Modules that its library directory holds; none when that cannot be known.
    pub(super) modules: Option<BTreeSet<String>>,
}

/// Settings that name places, addresses or the identity of one server, and what copying them would do.
const NEVER: [(&str, &str); 42] = [
    ("archive_cleanup_command", "it belongs to a standby"),
    ("archive_command", "two servers must not write to one archive"),
    ("archive_library", "two servers must not write to one archive"),
    ("archive_mode", "two servers must not write to one archive"),
    ("bonjour", "it announces one server"),
    ("bonjour_name", "it announces one server"),
    ("cluster_name", "it names one server"),
    ("config_file", "it is a path"),
    ("data_directory", "it is a path"),
    ("default_transaction_read_only", "pgteal sets it while it fences a server"),
    ("dynamic_library_path", "it is a path"),
    ("event_source", "it names one server"),
    ("external_pid_file", "it is a path"),
    ("extension_control_path", "it is a path"),
    ("hba_file", "it is a path"),
    ("hot_standby_feedback", "it belongs to a standby"),
    ("ident_file", "it is a path"),
    ("krb_server_keyfile", "it is a path"),
    ("listen_addresses", "green has its own address"),
    ("log_directory", "two servers must not write to one log"),
    ("port", "green has its own port"),
    ("primary_conninfo", "it belongs to a standby"),
    ("primary_slot_name", "it belongs to a standby"),
    ("promote_trigger_file", "it belongs to a standby"),
    ("recovery_end_command", "it belongs to a standby"),
    ("recovery_target", "it belongs to a recovery"),
    ("recovery_target_lsn", "it belongs to a recovery"),
    ("recovery_target_name", "it belongs to a recovery"),
    ("recovery_target_time", "it belongs to a recovery"),
    ("recovery_target_timeline", "it belongs to a recovery"),
    ("recovery_target_xid", "it belongs to a recovery"),
    ("restore_command", "it belongs to a standby"),
    ("session_replication_role", "it would switch triggers off"),
    ("ssl_passphrase_command", "it is a path"),
    ("stats_temp_directory", "it is a path"),
    ("sync_replication_slots", "it belongs to a standby"),
    ("synchronized_standby_slots", "green has no standby yet"),
    ("synchronous_standby_names", "green has no standby yet: every commit would wait for ever"),
    ("temp_tablespaces", "tablespaces are not carried"),
    ("default_tablespace", "tablespaces are not carried"),
    ("unix_socket_directories", "green has its own socket"),
    ("wal_level", "green needs logical"),
];

/// TLS is carried as files, not as settings that name files.
const TLS: [&str; 7] = [
    "ssl",
    "ssl_ca_file",
    "ssl_cert_file",
    "ssl_crl_dir",
    "ssl_crl_file",
    "ssl_dh_params_file",
    "ssl_key_file",
];

/// Settings that replication needs; green gets the larger of blue's value and ours.
const AT_LEAST: [&str; 5] = [
    "max_replication_slots",
    "max_wal_senders",
    "max_logical_replication_workers",
    "max_worker_processes",
    "max_active_replication_origins",
];

/// Sorts blue's settings into those green gets, by name, and those it does not.
pub(super) fn choose(
    blue: &[BlueSetting],
    green: &GreenCatalogue,
) -> (BTreeMap<String, String>, Vec<LeftOut>) {
    let (mut carried, mut left_out) = (BTreeMap::new(), Vec::new());
    for setting in blue.iter().filter(|s| !TLS.contains(&s.name.as_str())) {
        match judge(setting, green) {
            Ok((value, missing)) => {
                left_out.extend(missing);
                carried.insert(setting.name.clone(), value);
            }
            Err(why) => {
                left_out.push(LeftOut { name: setting.name.clone(), value: setting.value.clone(), why })
            }
        }
    }
    (carried, left_out)
}

type Judged = Result<(String, Vec<LeftOut>), String>;

fn judge(setting: &BlueSetting, green: &GreenCatalogue) -> Judged {
    if let Some((_, why)) = NEVER.iter().find(|(name, _)| *name == setting.name) {
        return Err((*why).to_owned());
    }
    if setting.name.ends_with("_preload_libraries") {
        return modules(setting, green);
    }
    let Some(known) = green.settings.get(&setting.name) else {
        // A name with a dot belongs to a module, which may be loaded later; any server accepts it.
        return if setting.name.contains('.') {
            Ok((setting.value.clone(), Vec::new()))
        } else {
            Err("green's version has no such setting".to_owned())
        };
    };
    if known.context == "internal" {
        return Err("it is fixed when a cluster is made".to_owned());
    }
    match known.vartype.as_str() {
        "enum"
            if !known.choices.iter().any(|c| c.eq_ignore_ascii_case(&setting.value))
                && !is_boolean(&setting.value) =>
        {
            Err(format!("green's version knows only {}", known.choices.join(", ")))
        }
        "integer" | "real" if setting.in_base_unit => in_range(setting, known),
        _ => Ok((setting.value.clone(), Vec::new())),
    }
}

/// Many enumerations also take the spellings of a truth value, which the catalogue does not list.
fn is_boolean(value: &str) -> bool {
    ["on", "off", "true", "false", "yes", "no", "1", "0"].iter().any(|b| b.eq_ignore_ascii_case(value))
}

fn in_range(setting: &BlueSetting, known: &GreenSetting) -> Judged {
    if setting.unit != known.unit {
        return Err(format!("its unit changed from `{}` to `{}`", setting.unit, known.unit));
    }
    let Ok(number) = setting.value.parse::<f64>() else { return Err("it is not a number".to_owned()) };
    if known.min.is_some_and(|min| number < min) || known.max.is_some_and(|max| number > max) {
        let bound = |b: Option<f64>| b.map_or_else(|| "?".to_owned(), |b| b.to_string());
        return Err(format!("green's version takes {} to {}", bound(known.min), bound(known.max)));
    }
    Ok((setting.value.clone(), Vec::new()))
}

fn modules(setting: &BlueSetting, green: &GreenCatalogue) -> Judged {
    let wanted =
        setting.value.split(',').map(|m| m.trim().trim_matches(['"', '\''])).filter(|m| !m.is_empty());
    let (mut kept, mut missing) = (Vec::new(), Vec::new());
    for module in wanted {
        let file = module.rsplit('/').next().unwrap_or(module).trim_end_matches(".so");
        if green.modules.as_ref().is_none_or(|all| all.contains(file)) {
            kept.push(module.to_owned());
        } else {
            let why = format!("green's distribution has no module {file}");
            missing.push(LeftOut { name: setting.name.clone(), value: module.to_owned(), why });
        }
    }
    Ok((kept.join(", "), missing))
}

/// What replication needs on green, whatever blue has: each stream is a slot, a sender and a worker, each table being
/// copied another worker and origin, and there is room for rehearsals and for what operators run beside.
pub(super) fn ours(
    databases: u32,
    copy_workers: u32,
    major: u32,
    carried: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let streams = databases.saturating_mul(1 + copy_workers) + 8;
    let mut ours = BTreeMap::new();
    for name in AT_LEAST {
        if name == "max_active_replication_origins" && major < 18 {
            continue;
        }
        let of_blue = carried.get(name).and_then(|v| v.parse::<u32>().ok()).unwrap_or(0);
        let need = if name == "max_worker_processes" { streams + 8 } else { streams };
        ours.insert(name.to_owned(), need.max(of_blue).to_string());
    }
    ours.insert("wal_level".to_owned(), "logical".to_owned());
    ours.insert("max_sync_workers_per_subscription".to_owned(), copy_workers.max(1).to_string());
    // Else a worker that ended waits 5 s before it starts again, also in a switchover.
    ours.insert("wal_retrieve_retry_interval".to_owned(), "100".to_owned());
    if major >= 18 {
        ours.insert("idle_replication_slot_timeout".to_owned(), "0".to_owned());
    }
    ours
}

/// `name = 'value'` lines.
pub(super) fn render(settings: &BTreeMap<String, String>) -> String {
    let line = |(name, value): (&String, &String)| {
        format!("{name} = '{}'\n", value.replace('\\', "\\\\").replace('\'', "''"))
    };
    settings.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue() -> GreenCatalogue {
        let setting = |vartype: &str, unit: &str, max: Option<f64>, choices: &[&str]| GreenSetting {
            context: "user".to_owned(),
            vartype: vartype.to_owned(),
            unit: unit.to_owned(),
            min: Some(16.0),
            max,
            choices: choices.iter().map(|c| (*c).to_owned()).collect(),
        };
        let settings = [
            ("shared_buffers", setting("integer", "8kB", Some(1e9), &[])),
            ("work_mem", setting("integer", "kB", Some(1000.0), &[])),
            ("log_statement", setting("enum", "", None, &["none", "ddl"])),
            ("search_path", setting("string", "", None, &[])),
        ];
        GreenCatalogue {
            settings: settings.into_iter().map(|(n, s)| (n.to_owned(), s)).collect(),
            modules: Some(BTreeSet::from(["pg_stat_statements".to_owned()])),
        }
    }

    fn check(name: &str, value: &str, unit: &str, expected: Result<&str, &str>) {
        let blue = BlueSetting {
            name: name.to_owned(),
            value: value.to_owned(),
            unit: unit.to_owned(),
            in_base_unit: true,
        };
        let (carried, left_out) = choose(&[blue], &catalogue());
        match expected {
            Ok(kept) => assert_eq!(carried.get(name).map(String::as_str), Some(kept), "{name}"),
            Err(why) => assert!(left_out[0].why.contains(why), "{name}: {}", left_out[0].why),
        }
    }

    #[test]
    fn settings_go_over_only_where_they_mean_the_same() {
        check("shared_buffers", "16384", "8kB", Ok("16384"));
        check("work_mem", "4096", "kB", Err("takes 16 to 1000"));
        check("work_mem", "100", "MB", Err("unit changed"));
        check("log_statement", "DDL", "", Ok("DDL"));
        check("log_statement", "all", "", Err("knows only none, ddl"));
        check("port", "5432", "", Err("its own port"));
        check("archive_command", "cp %p /a", "", Err("one archive"));
        check("old_snapshot_threshold", "1", "", Err("no such setting"));
        check("auto_explain.log_min_duration", "10", "", Ok("10"));
        check("shared_preload_libraries", "pg_stat_statements", "", Ok("pg_stat_statements"));
        check("search_path", "a, 'b'", "", Ok("a, 'b'"));
    }

    #[test]
    fn a_missing_module_is_left_out_alone() {
        let blue = BlueSetting {
            name: "shared_preload_libraries".to_owned(),
            value: "pg_stat_statements, timescaledb".to_owned(),
            unit: String::new(),
            in_base_unit: true,
        };
        let (carried, left_out) = choose(&[blue], &catalogue());
        assert_eq!(carried["shared_preload_libraries"], "pg_stat_statements");
        assert_eq!(left_out[0].value, "timescaledb");
    }

    #[test]
    fn replication_gets_the_larger_number() {
        let carried = BTreeMap::from([("max_wal_senders".to_owned(), "500".to_owned())]);
        let ours = ours(3, 2, 18, &carried);
        assert_eq!(ours["max_wal_senders"], "500");
        assert_eq!(ours["max_replication_slots"], "17");
        assert!(ours.contains_key("max_active_replication_origins"));
        assert!(!super::ours(3, 2, 17, &carried).contains_key("max_active_replication_origins"));
    }

    #[test]
    fn values_are_quoted() {
        let settings = BTreeMap::from([("a".to_owned(), r"it's C:\x".to_owned())]);
        assert_eq!(render(&settings), "a = 'it''s C:\\\\x'\n");
    }
}
