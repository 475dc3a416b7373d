//! Quoting of identifiers, literals and connection string values. Knows lexical rules only (PostgreSQL docs,
//! "Lexical Structure" and "Connection Strings").

/// An identifier, always in double quotes, so that no keyword list is needed.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `"schema"."name"`.
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

/// A string literal that means the same whatever `standard_conforming_strings` says.
pub fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') {
        format!("E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

/// A value of a libpq `key=value` connection string.
pub fn conninfo_value(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_quote() {
        assert_eq!(ident("Or\"der"), "\"Or\"\"der\"");
        assert_eq!(qualified("a.b", "c"), "\"a.b\".\"c\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\b'"), "E'a\\\\b'''");
        assert_eq!(conninfo_value("p'a\\s s"), "'p\\'a\\\\s s'");
    }
}
