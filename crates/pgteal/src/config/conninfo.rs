//! The little that the configuration must know of connection strings: whether one holds a password, and the string
//! without it. Everything else about them is known below.

/// A connection string without its password, and the password.
///
/// Understands URIs (`postgresql://user:password@host/db?password=...`) and `key=value` strings, as described in the
/// PostgreSQL documentation, section "Connection Strings" of libpq.
#[must_use]
pub fn split_password(conninfo: &str) -> (String, Option<String>) {
    if conninfo.starts_with("postgresql://") || conninfo.starts_with("postgres://") {
        split_uri(conninfo)
    } else {
        split_pairs(conninfo)
    }
}

/// The connection string as it may be shown.
#[must_use]
pub fn hide_password(conninfo: &str) -> String {
    split_password(conninfo).0
}

fn split_uri(uri: &str) -> (String, Option<String>) {
    let (mut password, mut shown) = (None, uri.to_owned());
    let start = uri.find("://").map_or(0, |at| at + 3);
    let end = uri[start..].find(['/', '?']).map_or(uri.len(), |at| start + at);
    // A password may itself hold an unescaped '@'; the last one ends the user part.
    if let Some(at) = uri[start..end].rfind('@')
        && let Some(colon) = uri[start..start + at].find(':')
    {
        password = Some(decode(&uri[start + colon + 1..start + at]));
        shown = format!("{}{}", &uri[..start + colon], &uri[start + at..]);
    }
    if let Some((base, query)) = shown.clone().split_once('?') {
        let (secret, kept): (Vec<&str>, Vec<&str>) = query
            .split('&')
            .partition(|pair| pair.starts_with("password=") || pair.starts_with("sslpassword="));
        if let Some(value) = secret.iter().find_map(|pair| pair.strip_prefix("password=")) {
            password = Some(decode(value));
        }
        shown = if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
    }
    (shown, password)
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let hex = (bytes[at] == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten()
            .and_then(|pair| std::str::from_utf8(pair).ok())
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match hex {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn split_pairs(text: &str) -> (String, Option<String>) {
    let (mut kept, mut password) = (Vec::new(), None);
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (pair, key, value, after) = next_pair(rest);
        match key {
            "password" => password = Some(value),
            "sslpassword" => {}
            _ => kept.push(pair),
        }
        rest = after.trim_start();
    }
    (kept.join(" "), password)
}

/// The first `key = 'value'` of a non-empty text: as written, its key, its value unquoted, and what follows.
fn next_pair(text: &str) -> (&str, &str, String, &str) {
    let Some(equals) = text.find('=') else { return (text, text.trim(), String::new(), "") };
    let key = text[..equals].trim();
    let lead = text[equals + 1..].len() - text[equals + 1..].trim_start().len();
    let start = equals + 1 + lead;
    let quoted = text[start..].starts_with('\'');
    let (mut value, mut escaped, mut end) = (String::new(), false, text.len());
    for (at, c) in text[start..].char_indices().skip(usize::from(quoted)) {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '\'' if quoted => {
                end = start + at + 1;
                break;
            }
            c if !quoted && c.is_whitespace() => {
                end = start + at;
                break;
            }
            c => value.push(c),
        }
    }
    (text[..end].trim_end(), key, value, &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_split_off() {
        for (written, shown, password) in [
            ("postgresql://u:pw@h:5432/db", "postgresql://u@h:5432/db", Some("pw")),
            ("postgres://u:p%40w@h/db?sslmode=require", "postgres://u@h/db?sslmode=require", Some("p@w")),
            ("postgres://u:a@b@h/db", "postgres://u@h/db", Some("a@b")),
            ("postgres://u@h/db?password=x&sslmode=prefer", "postgres://u@h/db?sslmode=prefer", Some("x")),
            ("postgres:///db?host=/tmp&user=u", "postgres:///db?host=/tmp&user=u", None),
            ("host=h user=u password=pw port=1", "host=h user=u port=1", Some("pw")),
            ("host=h password = 'a b\\'c' user=u", "host=h user=u", Some("a b'c")),
            ("host=h user=u", "host=h user=u", None),
            ("", "", None),
            ("nonsense", "nonsense", None),
        ] {
            let (kept, found) = split_password(written);
            assert_eq!((kept.as_str(), found.as_deref()), (shown, password), "{written}");
        }
    }
}
