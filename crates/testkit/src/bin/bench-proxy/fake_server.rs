//! A stand-in for a server that has room for ten thousand sessions, which no small machine's PostgreSQL has: lets
//! everybody in, says what an 18 says at login and answers every query alike. Owns no data; refuses to know who asks.

use std::io::Result;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use crate::frames;

/// What a server of version 18 reports at login (PostgreSQL docs, "Asynchronous Operations").
const REPORTED: [(&str, &str); 15] = [
    ("in_hot_standby", "off"),
    ("integer_datetimes", "on"),
    ("TimeZone", "Etc/UTC"),
    ("IntervalStyle", "postgres"),
    ("search_path", "\"$user\", public"),
    ("is_superuser", "on"),
    ("application_name", ""),
    ("default_transaction_read_only", "off"),
    ("scram_iterations", "4096"),
    ("DateStyle", "ISO, MDY"),
    ("standard_conforming_strings", "on"),
    ("session_authorization", "postgres"),
    ("client_encoding", "UTF8"),
    ("server_version", "18.0"),
    ("server_encoding", "UTF8"),
];

/// Requests for encryption that come before a startup packet (PostgreSQL docs, "Message Formats").
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

/// Where to listen.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// TCP port of 127.0.0.1.
    #[arg(long)]
    port: u16,
    /// Unix socket.
    #[arg(long)]
    socket: PathBuf,
}

/// Serves until the process is ended from outside.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let socket = UnixListener::bind(&args.socket)?;
    // Like PostgreSQL's own: whoever reaches the directory may connect, PgBouncer under another user too.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(&args.socket, open)?;
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)).await?;
    let mut pid = 0_u32;
    loop {
        pid += 1;
        tokio::select! {
            client = port.accept() => {
                let client = client?.0;
                client.set_nodelay(true)?;
                drop(tokio::spawn(serve(client, pid)));
            }
            client = socket.accept() => drop(tokio::spawn(serve(client?.0, pid))),
        }
    }
}

/// One session; how it ends is nobody's business.
async fn serve(mut client: impl AsyncRead + AsyncWrite + Unpin, pid: u32) -> Result<()> {
    loop {
        let packet = frames::packet(&mut client).await?;
        match (&packet[..]).read_u32().await? {
            SSL_REQUEST | GSS_REQUEST => client.write_all(b"N").await?,
            _ => break,
        }
    }
    client.write_all(&welcome(pid)).await?;
    loop {
        let (tag, body) = frames::message(&mut client).await?;
        let mut out = Vec::new();
        if tag == b'X' {
            return Ok(());
        }
        answer(tag, &body, &mut out);
        client.write_all(&out).await?;
    }
}

/// From `AuthenticationOk` to the first `ReadyForQuery`.
fn welcome(pid: u32) -> Vec<u8> {
    let mut out = Vec::new();
    frames::put(&mut out, b'R', &0_u32.to_be_bytes());
    for (name, value) in REPORTED {
        frames::put(&mut out, b'S', format!("{name}\0{value}\0").as_bytes());
    }
    frames::put(&mut out, b'K', &[pid.to_be_bytes(), (!pid).to_be_bytes()].concat());
    frames::put(&mut out, b'Z', b"I");
    out
}

fn answer(tag: u8, body: &[u8], out: &mut Vec<u8>) {
    match tag {
        b'Q' => {
            if body.get(..6).is_some_and(|word| word.eq_ignore_ascii_case(b"select")) {
                // One column `n` of type int4, as text, with one row: 1.
                let column = b"\0\x01n\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0";
                frames::put(out, b'T', column);
                frames::put(out, b'D', b"\0\x01\0\0\0\x011");
                frames::put(out, b'C', b"SELECT 1\0");
            } else {
                let word = body.split(|byte| b" ;\0".contains(byte)).next().unwrap_or_default();
                frames::put(out, b'C', &[word, b"\0"].concat());
            }
            frames::put(out, b'Z', b"I");
        }
        b'P' => frames::put(out, b'1', b""),
        b'B' => frames::put(out, b'2', b""),
        b'C' => frames::put(out, b'3', b""),
        b'D' => frames::put(out, b'n', b""),
        b'E' => frames::put(out, b'C', b"SELECT 0\0"),
        b'S' => frames::put(out, b'Z', b"I"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_driver_logs_in_and_gets_its_row() {
        let (client, server) = tokio::io::duplex(1 << 16);
        tokio::spawn(serve(server, 7));
        let mut config = tokio_postgres::Config::new();
        config.user("u").ssl_mode(tokio_postgres::config::SslMode::Disable);
        let (client, connection) = config.connect_raw(client, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let rows = client.simple_query("SELECT 1").await.unwrap();
        let found = rows.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get("n"),
            _ => None,
        });
        assert_eq!(found, Some("1"));
        client.batch_execute("DISCARD ALL").await.unwrap();
    }
}
