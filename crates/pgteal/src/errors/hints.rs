//! What to do about a finding, by the hint that its check names.

/// Every hint and its advice, one line each.
pub const HINTS: &[(&str, &str)] = &[
    ("add-key", "give the table a primary key, or a unique index over NOT NULL columns"),
    (
        "allow-connections",
        "ALTER DATABASE ... ALLOW_CONNECTIONS true, or drop the database if nobody needs it",
    ),
    ("choose-versions", "name a green of the same or a newer version in [green]"),
    ("clear-foreign-object", "find out whose it is; if its deployment is gone, drop it"),
    ("create-tool-role", "make a superuser role of pgteal's own; `pgteal init` prints the SQL"),
    (
        "disable-subscription",
        "ALTER SUBSCRIPTION ... DISABLE before the switchover, and let green subscribe after it",
    ),
    ("empty-green", "give an empty server: nothing but what initdb makes"),
    (
        "end-prepared-transaction",
        "COMMIT PREPARED or ROLLBACK PREPARED it, and stop whoever prepares new ones",
    ),
    ("grant-bypassrls", "ALTER ROLE ... BYPASSRLS for pgteal's role"),
    ("install-extension", "install the extension's package for green's version"),
    ("log-or-waive-table", "make it LOGGED, or waive the finding if green may begin with it empty"),
    ("look-again", "settle what kept the check from looking, then: pgteal plan"),
    ("make-room", "give green a larger disk, or free some room"),
    ("move-large-objects", "move them into bytea columns, or waive the finding if nobody reads them"),
    ("move-out-of-tablespace", "ALTER ... SET TABLESPACE pg_default"),
    (
        "name-two-primaries",
        "name the primary of another cluster as green (and of production as blue) in pgteal.toml",
    ),
    ("raise-setting", "raise the setting; most of these need a restart"),
    ("remove-extension", "plan its data apart from pgteal; then drop the extension and run the checks again"),
    ("reset-replication-role", "ALTER ROLE or ALTER DATABASE ... RESET session_replication_role"),
    ("set-wal-level", "ALTER SYSTEM SET wal_level = logical, then restart at a time that suits you"),
    ("watch-slot", "raise or reset the setting, and watch the lag with: pgteal status --watch"),
];

/// The advice for a hint.
#[must_use]
pub fn hint(id: &str) -> Option<&'static str> {
    HINTS.iter().find(|(known, _)| *known == id).map(|(_, advice)| *advice)
}
