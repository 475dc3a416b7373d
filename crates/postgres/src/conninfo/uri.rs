//! The URI grammar (PostgreSQL docs, "Connection URIs"). Knows no key but the ones a URI has places for.

use super::ConnInfoError;

const SCHEMES: [&str; 2] = ["postgresql://", "postgres://"];

pub(super) fn is_uri(text: &str) -> bool {
    SCHEMES.iter().any(|s| text.starts_with(s))
}

/// `postgresql://user:password@host:port/dbname?key=value&..` as keys and values; what is empty is left out.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>, ConnInfoError> {
    let rest = SCHEMES.iter().find_map(|s| text.strip_prefix(s)).unwrap_or(text);
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(a, q)| (a, Some(q)));
    let (authority, dbname) = rest.split_once('/').unwrap_or((rest, ""));
    let (userinfo, hostspec) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = userinfo.split_once(':').map_or((userinfo, None), |(u, p)| (u, Some(p)));
    if hostspec.contains(',') {
        return Err(ConnInfoError::SeveralHosts("host".to_owned()));
    }
    let (host, port) = split_host(hostspec)?;
    let mut pairs = Vec::new();
    for (key, value) in [
        ("user", user),
        ("password", password.unwrap_or("")),
        ("host", host),
        ("port", port),
        ("dbname", dbname),
    ] {
        if !value.is_empty() {
            pairs.push((key.to_owned(), decode(key, value)?));
        }
    }
    for pair in query.into_iter().flat_map(|q| q.split('&')).filter(|p| !p.is_empty()) {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| ConnInfoError::Syntax("a URI parameter has no `=`".to_owned()))?;
        let (key, value) = (decode("parameter", key)?, decode(key, value)?);
        match (key.as_str(), value.as_str()) {
            // JDBC's spelling, which libpq takes too.
            ("ssl", "true") => pairs.push(("sslmode".to_owned(), "require".to_owned())),
            _ => pairs.push((key, value)),
        }
    }
    Ok(pairs)
}

fn split_host(spec: &str) -> Result<(&str, &str), ConnInfoError> {
    if let Some(rest) = spec.strip_prefix('[') {
        let (host, after) = rest
            .split_once(']')
            .ok_or_else(|| ConnInfoError::Syntax("an IPv6 address misses its `]`".to_owned()))?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, port)),
            None if after.is_empty() => Ok((host, "")),
            None => Err(ConnInfoError::Syntax("text after the `]` of an IPv6 address".to_owned())),
        };
    }
    Ok(spec.split_once(':').unwrap_or((spec, "")))
}

fn decode(key: &str, text: &str) -> Result<String, ConnInfoError> {
    let bad =
        || ConnInfoError::Syntax(format!("`{key}` has a `%` that two hexadecimal digits do not follow"));
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b != b'%' {
            out.push(b);
            continue;
        }
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        let (high, low) = (digit(bytes.next()).ok_or_else(bad)?, digit(bytes.next()).ok_or_else(bad)?);
        let byte = u8::try_from(high * 16 + low).map_err(|_| bad())?;
        if byte == 0 {
            return Err(ConnInfoError::Syntax(format!("`{key}` contains %00")));
        }
        out.push(byte);
    }
    String::from_utf8(out).map_err(|_| ConnInfoError::Syntax(format!("`{key}` is not UTF-8")))
}
