//! Both sides of SCRAM against whatever the other says: nobody gets in who does not know the password, and no server is
//! believed that does not know the verifier.

use std::sync::LazyLock;

use pgteal_wire::scram::{ClientBinding, ScramClient, ScramServer, ServerBinding, Verifier};

static VERIFIER: LazyLock<Verifier> =
    LazyLock::new(|| Verifier::from_password(b"secret", b"0123456789abcdef", 2));

fn server(offered: ServerBinding) -> ScramServer {
    ScramServer::new(b"user", VERIFIER.clone(), offered)
}

fn offered(flags: u8) -> ServerBinding {
    if flags & 2 == 0 { ServerBinding::None } else { ServerBinding::EndPoint(b"hash".to_vec()) }
}

fn binding(flags: u8) -> ClientBinding {
    match flags & 12 {
        0 => ClientBinding::Unsupported,
        4 => ClientBinding::NotOffered,
        _ => ClientBinding::EndPoint(b"hash".to_vec()),
    }
}

pub fn run(bytes: &[u8]) {
    let Some((&[flags, at], said)) = bytes.split_first_chunk::<2>() else { return };
    let (first, second) = said.split_at(usize::from(at).min(said.len()));
    if let Ok(text) = std::str::from_utf8(said)
        && let Some(verifier) = Verifier::parse(text)
    {
        assert_eq!(Verifier::parse(&verifier.encode()).as_ref(), Some(&verifier));
    }
    if flags & 1 == 0 {
        let mut server = server(offered(flags));
        let mechanism = if flags & 16 == 0 { "SCRAM-SHA-256" } else { "SCRAM-SHA-256-PLUS" };
        let Ok(challenge) = server.first(mechanism, first) else { return };
        // The nonce of its challenge, where the bytes leave room for it: else nothing past it is ever reached.
        let challenge = String::from_utf8_lossy(&challenge).into_owned();
        let nonce = challenge.split(',').next().unwrap_or_default();
        let second = String::from_utf8_lossy(second).replace("NONCE", nonce);
        assert!(server.finish(second.as_bytes()).is_err(), "let in by {second:?}");
    } else {
        let mut client = ScramClient::with_password(b"other", binding(flags)).max_iterations(64);
        let own = String::from_utf8_lossy(&client.first()).into_owned();
        let nonce = own.rsplit_once("r=").map(|(_, nonce)| nonce).unwrap_or_default();
        let first = String::from_utf8_lossy(first).replace("NONCE", nonce);
        if client.reply(first.as_bytes()).is_ok() {
            assert!(client.finish(second).is_err() && !client.is_done(), "believed {second:?}");
        }
    }
}
