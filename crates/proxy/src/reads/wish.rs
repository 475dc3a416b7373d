//! Owns the reading of a client's wish for a route out of its startup packet: `pgteal.route`, as a parameter or in
//! `options`. What was read is taken out, so that no server sees it. Refuses to know what the routes are.

use pgteal_wire::startup::StartupMessage;

use crate::route::Route;

const NAME: &[u8] = b"pgteal.route";

/// Takes the client's wish out of its startup packet; the last one counts.
///
/// # Errors
/// The value, when it names no route.
pub(crate) fn take(startup: &mut StartupMessage) -> Result<Option<Route>, String> {
    let mut wish = None;
    if let Some(options) = startup.get("options").filter(|options| mentions(options)).map(<[u8]>::to_vec) {
        let (rest, value) = without(&options);
        wish = value;
        match rest.trim_ascii().is_empty() {
            true => startup.remove("options"),
            false => startup.set("options", rest),
        }
    }
    // Servers set what `options` says first.
    startup.params.retain(|param| {
        let is_wish = param.name.eq_ignore_ascii_case(NAME);
        if is_wish {
            wish = Some(param.value.clone());
        }
        !is_wish
    });
    let Some(value) = wish else { return Ok(None) };
    match value.to_ascii_lowercase().as_slice() {
        b"read" => Ok(Some(Route::Read)),
        b"write" => Ok(Some(Route::Write)),
        _ => Err(String::from_utf8_lossy(&value).into_owned()),
    }
}

fn mentions(options: &[u8]) -> bool {
    options.windows(NAME.len()).any(|window| window.eq_ignore_ascii_case(NAME))
}

/// The options without the wish, and the wish.
fn without(options: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
    let (mut kept, mut wish) = (Vec::new(), None);
    let mut words = words(options).into_iter().peekable();
    while let Some((raw, word)) = words.next() {
        // As `postgres` takes them: `-c name=value`, `-cname=value`, `--name=value`.
        let (setting, second) = if word == b"-c" {
            (words.peek().map(|(_, next)| next.clone()), true)
        } else {
            let rest = word.strip_prefix(b"-c").or_else(|| word.strip_prefix(b"--"));
            (rest.map(<[u8]>::to_vec), false)
        };
        if let Some(value) = setting.as_deref().and_then(wished) {
            wish = Some(value.to_vec());
            if second {
                words.next();
            }
            continue;
        }
        if !kept.is_empty() {
            kept.push(b' ');
        }
        kept.extend_from_slice(raw);
        // Its argument is no switch of its own.
        if second && let Some((raw, _)) = words.next() {
            kept.push(b' ');
            kept.extend_from_slice(raw);
        }
    }
    (kept, wish)
}

fn wished(setting: &[u8]) -> Option<&[u8]> {
    let (name, value) = setting.split_at_checked(NAME.len())?;
    if name.eq_ignore_ascii_case(NAME) { value.strip_prefix(b"=") } else { None }
}

/// The words of `options`, as they are written and as they are meant: a backslash takes the meaning from what follows
/// (PostgreSQL `src/backend/utils/init/postinit.c`, "pg_split_opts").
fn words(options: &[u8]) -> Vec<(&[u8], Vec<u8>)> {
    let mut words = Vec::new();
    let mut at = 0;
    let is_space = |byte: u8| byte.is_ascii_whitespace() || byte == 0x0b;
    while at < options.len() {
        let begins = at;
        let mut word = Vec::new();
        while let Some(byte) = options.get(at).copied().filter(|byte| !is_space(*byte)) {
            at += 1;
            let escaped = if byte == b'\\' { options.get(at).copied() } else { None };
            at += usize::from(escaped.is_some());
            if byte != b'\\' || escaped.is_some() {
                word.push(escaped.unwrap_or(byte));
            }
        }
        if at > begins {
            words.push((options.get(begins..at).unwrap_or_default(), word));
        } else {
            at += 1;
        }
    }
    words
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use pgteal_wire::startup::ProtocolVersion;

    use super::*;

    fn startup(params: &[(&str, &str)]) -> StartupMessage {
        StartupMessage::new(ProtocolVersion::V3_0, params.iter().copied())
    }

    #[test]
    fn the_wish_is_taken_out_and_nothing_else() {
        for (options, rest, wish) in [
            ("-c pgteal.route=read", None, Some(Route::Read)),
            ("-cpgteal.route=read", None, Some(Route::Read)),
            ("--pgteal.route=READ", None, Some(Route::Read)),
            ("  -c\tPgTeal.Route=write  ", None, Some(Route::Write)),
            ("-c work_mem=1MB -c pgteal.route=read", Some("-c work_mem=1MB"), Some(Route::Read)),
            ("-c pgteal.route=read -c a.b=c\\ d", Some("-c a.b=c\\ d"), Some(Route::Read)),
            ("-c pgteal.route=write --pgteal.route=read", None, Some(Route::Read)),
            ("-c pgteal\\.route=read", Some("-c pgteal\\.route=read"), None),
            ("-c search_path=pgteal.route=read", Some("-c search_path=pgteal.route=read"), None),
            ("-c -cpgteal.route=read", Some("-c -cpgteal.route=read"), None),
            ("-c work_mem=1MB", Some("-c work_mem=1MB"), None),
            ("pgteal.route", Some("pgteal.route"), None),
            ("-c pgteal.route", Some("-c pgteal.route"), None),
            ("", Some(""), None),
        ] {
            let mut startup = startup(&[("user", "app"), ("options", options)]);
            assert_eq!(take(&mut startup), Ok(wish), "{options}");
            assert_eq!(startup.get_str("options"), rest, "{options}");
            assert_eq!(startup.get_str("user"), Some("app"));
        }
    }

    #[test]
    fn it_may_be_a_parameter_of_its_own() {
        let mut named =
            startup(&[("user", "app"), ("PGTEAL.route", "read"), ("options", "--pgteal.route=write")]);
        assert_eq!(take(&mut named), Ok(Some(Route::Read)));
        assert_eq!(named, startup(&[("user", "app")]));
        assert_eq!(take(&mut named), Ok(None));
        for value in ["", "reads", "read,write"] {
            assert_eq!(take(&mut startup(&[("pgteal.route", value)])), Err(value.to_owned()));
        }
    }
}
