//! Both sides against each other, the RFC's vectors and the reference client.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::scram::{ClientBinding, ScramClient};
use postgres_protocol::authentication::sasl;
use proptest::prelude::*;

const STORED: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

fn verifier() -> Verifier {
    Verifier::parse(STORED).unwrap()
}

fn quick(password: &[u8]) -> Verifier {
    Verifier::from_password(password, b"0123456789abcdef", 2)
}

/// RFC 7677, section 3, with the name the RFC uses. The vector of RFC 5802 is the same exchange with SHA-1, which PostgreSQL never
/// spoke.
#[test]
fn server_side_of_the_rfc_vector() {
    let mut server = ScramServer::new(b"user", verifier(), ServerBinding::None)
        .with_nonce("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0");
    let first = server.first(SCRAM_SHA_256, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO").unwrap();
    assert_eq!(
        first,
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    );
    let done = server
        .finish(
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        )
        .unwrap();
    assert_eq!(done.server_final, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    assert_eq!(done.keys.user(), b"user");
}

/// The client sends an empty name, so the RFC's proof cannot be repeated; the reference client is the oracle instead.
#[test]
fn the_reference_client_gets_in() {
    let bindings = [
        (ServerBinding::None, SCRAM_SHA_256, sasl::ChannelBinding::unsupported()),
        (ServerBinding::None, SCRAM_SHA_256, sasl::ChannelBinding::unrequested()),
        (
            ServerBinding::EndPoint(b"hash".to_vec()),
            SCRAM_SHA_256_PLUS,
            sasl::ChannelBinding::tls_server_end_point(b"hash".to_vec()),
        ),
    ];
    for (offered, mechanism, binding) in bindings {
        let mut client = sasl::ScramSha256::new(b"pencil", binding);
        let mut server = ScramServer::new(b"u", verifier(), offered);
        let first = server.first(mechanism, client.message()).unwrap();
        client.update(&first).unwrap();
        let done = server.finish(client.message()).unwrap();
        client.finish(&done.server_final).unwrap();
    }
}

fn exchange(mut client: ScramClient, mut server: ScramServer) -> Result<PassThrough, ScramError> {
    let first = server.first(client.mechanism(), &client.first())?;
    let reply = client.reply(&first)?;
    let done = server.finish(&reply)?;
    assert!(!client.is_done());
    client.finish(&done.server_final)?;
    assert!(client.is_done());
    Ok(done.keys)
}

#[test]
fn keys_of_one_login_open_another() {
    let end_point =
        |data: &[u8]| (ClientBinding::EndPoint(data.to_vec()), ServerBinding::EndPoint(data.to_vec()));
    let (client, server) = end_point(b"front");
    let keys =
        exchange(ScramClient::with_password(b"pencil", client), ScramServer::new(b"u", verifier(), server))
            .unwrap();
    // The second leg has its own nonces, certificate and binding.
    let (client, server) = end_point(b"back");
    exchange(ScramClient::with_keys(keys.clone(), client), ScramServer::new(b"u", verifier(), server))
        .unwrap();
    // A server whose stored password is another one is recognised before anything is sent.
    let other = Verifier::from_password(b"pencil", b"another salt 123", 4096);
    let refused = exchange(
        ScramClient::with_keys(keys, ClientBinding::Unsupported),
        ScramServer::new(b"u", other, ServerBinding::None),
    );
    assert_eq!(refused.unwrap_err(), ScramError::VerifierDiffers);
}

#[test]
fn who_must_not_get_in() {
    let none = || ServerBinding::None;
    let end_point = || ServerBinding::EndPoint(b"hash".to_vec());
    let client = |password: &[u8], binding| ScramClient::with_password(password, binding);
    let table = [
        (client(b"wrong", ClientBinding::Unsupported), none(), false, ScramError::WrongProof),
        (client(b"pencil", ClientBinding::Unsupported), none(), true, ScramError::WrongProof),
        (
            client(b"pencil", ClientBinding::EndPoint(b"other".to_vec())),
            end_point(),
            false,
            ScramError::Binding("check failed"),
        ),
        (
            client(b"pencil", ClientBinding::EndPoint(b"hash".to_vec())),
            none(),
            false,
            ScramError::MechanismNotOffered,
        ),
        (
            client(b"pencil", ClientBinding::NotOffered),
            end_point(),
            false,
            ScramError::Binding("the client supports it but thinks the server does not"),
        ),
        (
            client(b"pencil", ClientBinding::Unsupported).max_iterations(1),
            none(),
            false,
            ScramError::Iterations { iterations: 2, limit: 1 },
        ),
    ];
    for (client, offered, doomed, want) in table {
        let server = if doomed {
            ScramServer { verifier: quick(b"pencil"), ..ScramServer::doomed(b"u", b"s", offered) }
        } else {
            ScramServer::new(b"u", quick(b"pencil"), offered)
        };
        assert_eq!(exchange(client, server).unwrap_err(), want);
    }
}

#[test]
fn malformed_client_first_messages() {
    let table: &[(&str, &str)] = &[
        ("", "unexpected binding flag"),
        ("n", "attribute missing"),
        ("x,,n=,r=abc", "unexpected binding flag"),
        ("n,a=bob,n=,r=abc", "authorization identity is not supported"),
        ("n,,m=x,n=,r=abc", "unexpected attribute"),
        ("n,,n=", "attribute missing"),
        ("n,,n=,r=", "nonce is not printable"),
        ("n,,n=,r=a\u{7f}", "nonce is not printable"),
        ("n,,n=,r=abc,zzz", "invalid extension"),
        ("n,,n=,r=abc\0", "zero byte"),
    ];
    for (message, want) in table {
        let mut server = ScramServer::new(b"u", quick(b"x"), ServerBinding::None);
        assert_eq!(
            server.first(SCRAM_SHA_256, message.as_bytes()),
            Err(ScramError::Malformed(want)),
            "{message:?}"
        );
    }
}

#[test]
fn a_replayed_or_changed_final_message_is_refused() {
    let begin = || {
        let client = ScramClient::with_password(b"pencil", ClientBinding::Unsupported).with_nonce("cli");
        let mut client = client;
        let mut server = ScramServer::new(b"u", quick(b"pencil"), ServerBinding::None).with_nonce("srv");
        let first = server.first(SCRAM_SHA_256, &client.first()).unwrap();
        let reply = String::from_utf8(client.reply(&first).unwrap()).unwrap();
        (server, reply)
    };
    let (server, reply) = begin();
    assert!(server.finish(reply.as_bytes()).is_ok());
    let edits: [(&str, &str, ScramError); 4] = [
        ("r=clisrv", "r=clisrw", ScramError::Nonce),
        ("c=biws", "c=eSws", ScramError::Binding("check failed")),
        (",p=", ",q=", ScramError::Malformed("proof missing")),
        (",p=", ",x=1,p=", ScramError::WrongProof),
    ];
    for (from, to, want) in edits {
        let (server, reply) = begin();
        assert_eq!(server.finish(reply.replace(from, to).as_bytes()).unwrap_err(), want);
    }
    let (server, reply) = begin();
    let longer = format!("{reply}AAAA");
    assert!(matches!(server.finish(longer.as_bytes()), Err(ScramError::Malformed(_))));
}

#[test]
fn a_server_that_does_not_know_the_verifier_is_noticed() {
    let mut client = ScramClient::with_password(b"pencil", ClientBinding::Unsupported);
    let mut server = ScramServer::new(b"u", quick(b"pencil"), ServerBinding::None);
    let first = server.first(SCRAM_SHA_256, &client.first()).unwrap();
    client.reply(&first).unwrap();
    let forged = format!("v={}", STANDARD.encode([7; 32]));
    assert_eq!(client.finish(forged.as_bytes()), Err(ScramError::WrongServerSignature));
    assert_eq!(client.finish(b"e=unknown-user"), Err(ScramError::Server("unknown-user".into())));
    assert!(!client.is_done());
}

#[test]
fn server_first_messages_that_lie() {
    for (message, want) in [
        ("r=other,s=eA==,i=1", ScramError::Nonce),
        ("r=cli,s=eA==,i=1", ScramError::Nonce),
        ("r=clisrv,s=!,i=1", ScramError::Malformed("invalid base64")),
        ("r=clisrv,s=eA==,i=0", ScramError::Malformed("invalid iteration count")),
        ("r=clisrv,s=eA==,i=4294967295", ScramError::Iterations { iterations: u32::MAX, limit: 1_000_000 }),
        ("m=x,r=clisrv,s=eA==,i=1", ScramError::Malformed("unexpected attribute")),
    ] {
        let mut client = ScramClient::with_password(b"x", ClientBinding::Unsupported).with_nonce("cli");
        assert_eq!(client.reply(message.as_bytes()), Err(want), "{message}");
    }
}

proptest! {
    #[test]
    fn random_messages_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), text in "[nyp=,a-z]{0,20}[rci=,A-Za-z0-9+/]{0,60}") {
        for message in [bytes.as_slice(), text.as_bytes()] {
            let mut server = ScramServer::new(b"u", quick(b"x"), ServerBinding::EndPoint(vec![1]));
            let _ = server.first(SCRAM_SHA_256, message);
            let mut server = ScramServer::new(b"u", quick(b"x"), ServerBinding::None);
            server.first(SCRAM_SHA_256, b"n,,n=,r=a").unwrap();
            let _ = server.finish(message);
            let mut client = ScramClient::with_password(b"x", ClientBinding::Unsupported);
            let _ = client.reply(message);
            let _ = client.finish(message);
        }
    }

    #[test]
    fn every_password_logs_in_and_no_other(password in "\\PC{0,12}", other in "\\PC{0,12}") {
        let stored = quick(password.as_bytes());
        let run = |p: &str| exchange(
            ScramClient::with_password(p.as_bytes(), ClientBinding::Unsupported),
            ScramServer::new(b"u", stored.clone(), ServerBinding::None),
        );
        prop_assert!(run(&password).is_ok());
        if !stored.accepts_password(other.as_bytes()) {
            prop_assert_eq!(run(&other).unwrap_err(), ScramError::WrongProof);
        }
    }
}
