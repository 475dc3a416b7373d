//! The first packets of a connection, answered as PostgreSQL 18 itself answers them: what each said is compared.

use std::path::Path;

use pgteal_proxy::config::AuthMethod;
use pgteal_wire::message::report::Fields;
use pgteal_wire::startup::{ProtocolVersion, SSL_REQUEST_PACKET, StartupMessage};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::front::Front;
use crate::servers::{Certs, Leg, server, server_config};

const GSS_REQUEST_PACKET: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];

fn startup(version: u32, params: &[(&[u8], &[u8])]) -> Vec<u8> {
    let params = [(&b"user"[..], &b"scram_user"[..])].into_iter().chain(params.iter().copied());
    StartupMessage::new(ProtocolVersion(version), params).encode()
}

/// What is answered to each packet, up to the first request to authenticate, error or end.
async fn answers(socket: &Path, packets: &[&[u8]]) -> Vec<String> {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let mut said = Vec::new();
    for packet in packets {
        stream.write_all(packet).await.unwrap();
        let mut tag = [0];
        if stream.read(&mut tag).await.unwrap() == 0 {
            said.push("end".into());
            return said;
        }
        while tag == *b"v" {
            said.push(format!("v{:?}", body(&mut stream).await));
            stream.read_exact(&mut tag).await.unwrap();
        }
        match tag {
            [b'R'] => said.push(format!("R{:?}", body(&mut stream).await)),
            [b'E'] => {
                let body = body(&mut stream).await;
                let fields = Fields::parse(&body).unwrap();
                said.push(format!("{} {}", fields.sqlstate(), fields.message()));
            }
            [byte] => {
                said.push(char::from(byte).to_string());
                continue;
            }
        }
        return said;
    }
    said
}

async fn body(stream: &mut UnixStream) -> Vec<u8> {
    let len = stream.read_u32().await.unwrap();
    let mut body = vec![0; usize::try_from(len).unwrap() - 4];
    stream.read_exact(&mut body).await.unwrap();
    body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_packets_are_answered_as_the_server_answers_them() {
    let certs = Certs::new();
    let cluster = server(18, &certs).await;
    let config = server_config(&cluster, Leg::Unix, &certs);
    let front = Front::start(AuthMethod::Verifier, &config, &certs).await;
    let own = front.socket();
    let direct = cluster.socket_dir().join(format!(".s.PGSQL.{}", cluster.port()));
    let options: &[(&[u8], &[u8])] = &[(b"_pq_.a", b"1"), (b"_pq_.\xff", b"")];
    let mut table = Vec::new();
    for version in [3 << 16, 3 << 16 | 1, 3 << 16 | 2, 3 << 16 | 3, 3 << 16 | 9999, 4 << 16] {
        table.push(vec![startup(version, &[])]);
        table.push(vec![startup(version, options)]);
    }
    let (ssl, gss) = (SSL_REQUEST_PACKET.to_vec(), GSS_REQUEST_PACKET.to_vec());
    let session = startup(3 << 16, &[(b"x.\xe4", b"\xff"), (b"database", b"\xff")]);
    table.push(vec![session.clone()]);
    table.push(vec![ssl.clone(), session.clone()]);
    table.push(vec![gss.clone(), session.clone()]);
    table.push(vec![ssl.clone(), gss.clone(), session.clone()]);
    table.push(vec![gss.clone(), ssl.clone(), session.clone()]);
    table.push(vec![ssl.clone(), ssl.clone(), session.clone()]);
    table.push(vec![gss.clone(), gss.clone(), session.clone()]);
    for packets in &table {
        let packets: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
        let (ours, theirs) = (answers(&own, &packets).await, answers(&direct, &packets).await);
        assert_eq!(ours, theirs, "{packets:?}");
    }
    // A server would go on like this for ever, until its login timeout; here each is asked once.
    let asked: [&[u8]; 3] = [&ssl, &gss, &ssl];
    let refused = "0A000 unsupported frontend protocol 1234.5679: server supports 3.0 to 3.2";
    assert_eq!(answers(&own, &asked).await, ["N", "N", refused]);
}
