//! A client that speaks in single messages.

use std::time::Duration;

use bytes::BytesMut;
use pgteal_wire::frame;
use pgteal_wire::message::backend::ParameterStatus;
use pgteal_wire::message::rows::parse_data_row;
use pgteal_wire::startup::{ProtocolVersion, StartupMessage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::World;

pub struct Raw {
    pub stream: TcpStream,
    pub inbox: BytesMut,
}

impl Raw {
    pub async fn connect(world: &World, version: ProtocolVersion) -> (Self, Vec<(u8, Vec<u8>)>) {
        let startup = StartupMessage::new(version, [("user", "postgres"), ("database", "postgres")]);
        let mut raw = Self::open(world.port(), &startup).await;
        let greeting = raw.until(b'Z').await;
        (raw, greeting)
    }

    /// Sends a startup packet and reads nothing.
    pub async fn open(port: u16, startup: &StartupMessage) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(&startup.encode()).await.unwrap();
        Self { stream, inbox: BytesMut::new() }
    }

    pub async fn send(&mut self, build: impl FnOnce(&mut BytesMut)) {
        let mut out = BytesMut::new();
        build(&mut out);
        self.stream.write_all(&out).await.unwrap();
    }

    pub async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some(frame) = frame::take(&mut self.inbox, 1 << 20).unwrap() {
                return Some((frame.tag, frame.body().to_vec()));
            }
            let read =
                tokio::time::timeout(Duration::from_secs(10), self.stream.read_buf(&mut self.inbox)).await;
            if read.expect("the server says nothing").unwrap() == 0 {
                return None;
            }
        }
    }

    /// Everything up to a message with this tag.
    pub async fn until(&mut self, tag: u8) -> Vec<(u8, Vec<u8>)> {
        let mut all = Vec::new();
        loop {
            let message = self.next().await.unwrap_or_else(|| panic!("closed after {all:?}"));
            let last = message.0 == tag;
            all.push(message);
            if last {
                return all;
            }
        }
    }

    /// Nothing comes but parameter changes, which may come at any time.
    pub async fn quiet(&mut self) -> bool {
        while tokio::time::timeout(Duration::from_millis(200), self.stream.read_buf(&mut self.inbox))
            .await
            .is_ok()
        {}
        frame::Frames::new(&self.inbox, 1 << 20).all(|frame| frame.unwrap().tag == b'S')
    }
}

pub fn tags(messages: &[(u8, Vec<u8>)]) -> String {
    messages.iter().map(|(tag, _)| char::from(*tag)).filter(|tag| !matches!(tag, 'S' | 'N')).collect()
}

pub fn first_value(messages: &[(u8, Vec<u8>)]) -> String {
    let (_, body) = messages.iter().find(|(tag, _)| *tag == b'D').unwrap_or_else(|| panic!("{messages:?}"));
    String::from_utf8(parse_data_row(body).unwrap()[0].unwrap().to_vec()).unwrap()
}

pub fn parameter(messages: &[(u8, Vec<u8>)], name: &str) -> Option<String> {
    messages.iter().filter(|(tag, _)| *tag == b'S').find_map(|(_, body)| {
        let status = ParameterStatus::parse(body).unwrap();
        (status.name == name.as_bytes()).then(|| String::from_utf8(status.value.to_vec()).unwrap())
    })
}
