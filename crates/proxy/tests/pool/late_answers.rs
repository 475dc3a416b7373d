//! What a server still had to say to a client that is gone is said to nobody.

use std::time::Duration;

use pgteal_proxy::{Config, Proxy};
use pgteal_testkit::wait_until;
use pgteal_wire::message::frontend::{put_query, put_terminate};
use pgteal_wire::message::put;
use pgteal_wire::startup::{ProtocolVersion, StartupMessage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::SimpleQueryMessage;

use super::world::console;
use super::world::raw::Raw;

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    put(&mut out, tag, |out| out.extend_from_slice(body));
    out.to_vec()
}

async fn read(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let tag = stream.read_u8().await.ok()?;
    let mut body = vec![0; stream.read_u32().await.ok()? as usize - 4];
    stream.read_exact(&mut body).await.ok()?;
    Some((tag, body))
}

/// Whether the proxy can know that something may be said late.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Late {
    AfterCopy,
    OutOfTheBlue,
}

/// A server behind a slow line. A COPY that fails before the Sync sent with it was read answers that Sync, too, and here the
/// line delivers that second answer late: one more ReadyForQuery. What
/// follows it comes when more is asked.
async fn serve(mut stream: TcpStream, late: Late) {
    let mut body = vec![0; stream.read_u32().await.unwrap() as usize - 4];
    stream.read_exact(&mut body).await.unwrap();
    let ready = || message(b'Z', b"I");
    let greeting = [
        message(b'R', &0u32.to_be_bytes()),
        message(b'S', b"default_transaction_read_only\0off\0"),
        message(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]),
        ready(),
    ];
    stream.write_all(&greeting.concat()).await.unwrap();
    let mut owed = if late == Late::OutOfTheBlue { ready() } else { Vec::new() };
    let mut behind = Vec::new();
    while let Some((tag, body)) = read(&mut stream).await {
        let text = String::from_utf8_lossy(&body).trim_end_matches('\0').to_owned();
        let mut out = Vec::new();
        if tag == b'Q' && text.starts_with("copy") {
            stream.write_all(&message(b'G', &[0, 0, 0])).await.unwrap();
            while read(&mut stream).await.is_some_and(|(tag, _)| tag != b'S') {}
            out = [message(b'E', b"SERROR\0VERROR\0C22P02\0Mbad row\0\0"), ready()].concat();
            owed = ready();
        } else if tag == b'Q' && text == "DISCARD ALL" {
            out = [message(b'C', b"DISCARD ALL\0"), ready()].concat();
            if !owed.is_empty() {
                behind = std::mem::replace(&mut out, std::mem::take(&mut owed));
            }
        } else if tag == b'Q' {
            let answer = [message(b'C', format!("{text}\0").as_bytes()), ready()].concat();
            out = [std::mem::take(&mut behind), answer].concat();
        }
        if stream.write_all(&out).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_answer_is_not_the_next_clients() {
    for late in [Late::AfterCopy, Late::OutOfTheBlue] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, late));
            }
        });
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "listen = [\"127.0.0.1:0\"]\nthreads = 1\nunix_dir = \"{dir}\"\nstate_file = \"{dir}/state.json\"\n\
             [blue]\nhost = \"127.0.0.1\"\nport = {port}\nsslmode = \"disable\"\n[auth]\nmethod = \"trust\"\n",
            dir = dir.path().display(),
        );
        let path = dir.path().join("proxy.toml");
        std::fs::write(&path, text).unwrap();
        let proxy = Proxy::start(Config::load(&path).unwrap()).await.unwrap();
        let console = console(proxy.socket().unwrap()).await;
        let startup = StartupMessage::new(ProtocolVersion::V3_0, [("user", "app"), ("database", "shop")]);
        let mut former = Raw::open(proxy.addresses()[0].port(), &startup).await;
        former.until(b'Z').await;
        if late == Late::AfterCopy {
            former.send(|out| put_query(out, "copy t from stdin")).await;
            former.until(b'G').await;
            let sent = [message(b'd', b"bad\n"), message(b'S', b"")].concat();
            former.send(|out| out.extend_from_slice(&sent)).await;
            former.until(b'Z').await;
        }
        former.send(put_terminate).await;
        drop(former);
        wait_until("the client to be gone", Duration::from_secs(10), async || {
            let state = console.simple_query("show state").await.unwrap();
            let state = state.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => {
                    Some(["clients", "busy"].map(|name| row.get(name).map(str::to_owned)))
                }
                _ => None,
            });
            let seen = state.unwrap();
            if seen == [Some("0".to_owned()), Some("0".to_owned())] {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .await
        .unwrap();
        let mut next = Raw::open(proxy.addresses()[0].port(), &startup).await;
        next.until(b'Z').await;
        next.send(|out| put_query(out, "select mine")).await;
        let answer = next.until(b'Z').await;
        assert_eq!(answer[0].1, b"select mine\0", "{late:?}: {answer:?}");
    }
}
