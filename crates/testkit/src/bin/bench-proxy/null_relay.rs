//! The null relay: the least that anybody in the middle has to do. One thread, one epoll, one read and one write for
//! what comes in at either end. Owns pairs of sockets; refuses to know a protocol.
//!
//! It is the floor that proxies are measured against, so it is as good as it can be made: edge triggered; one buffer
//! for all, so that it stays in the cache; a read that does not fill the buffer has emptied the socket (epoll(7),
//! "Questions and answers"), so that none is tried in vain; and room to write is asked for only by who lacks it, because
//! a Unix socket tells of it whenever its other end has read.

use std::io::{Error, ErrorKind};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::{Errno, read, write};

/// Enough for any message of the queries and for COPY to move in large pieces.
const BUFFER: usize = 64 * 1024;
const EVENTS: usize = 256;
const LISTENER: u64 = u64::MAX;

/// What epoll tells of every socket.
const ALWAYS: EventFlags = EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::ET);

/// Where the other end is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// TCP port of 127.0.0.1 to listen on.
    #[arg(long)]
    listen: u16,
    /// TCP port of 127.0.0.1 to lead to.
    #[arg(long, required_unless_present = "socket")]
    port: Option<u16>,
    /// Unix socket to lead to.
    #[arg(long)]
    socket: Option<PathBuf>,
}

/// One socket, and what could not be written to it yet.
#[derive(Debug)]
struct End {
    fd: OwnedFd,
    readable: bool,
    /// The other side has closed or will send no more: only a read says when all of it has come.
    hung_up: bool,
    left: Vec<u8>,
    /// Whether epoll tells when there is room for it.
    waits: bool,
}

/// A client and its server; the number of an end tells which.
type Pair = [End; 2];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Ended,
}

/// Relays until the process is ended from outside.
pub(crate) fn run(args: &Args) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.listen)).context("listen")?;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut pairs: Vec<Option<Pair>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut buffer = vec![0; BUFFER];
    let mut events = Vec::with_capacity(EVENTS);
    loop {
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("epoll"),
        }
        // Used again only after this batch: its events of an ended pair must meet nobody.
        let mut ended = Vec::new();
        for event in events.drain(..) {
            let token = event.data.u64();
            if token == LISTENER {
                accept(args, &listener, &epoll, &mut pairs, &mut free)?;
                continue;
            }
            let (slot, end) = (usize::try_from(token / 2)?, usize::try_from(token % 2)?);
            let Some(Some(pair)) = pairs.get_mut(slot) else { continue };
            if turn(pair, end, event.flags, &mut buffer) == Fate::Open {
                for (end, number) in pair.iter_mut().zip(0..) {
                    end.ask_for_room(&epoll, token - token % 2 + number)?;
                }
            } else {
                pairs[slot] = None;
                ended.push(slot);
            }
        }
        free.append(&mut ended);
    }
}

fn accept(
    args: &Args,
    listener: &TcpListener,
    epoll: &OwnedFd,
    pairs: &mut Vec<Option<Pair>>,
    free: &mut Vec<usize>,
) -> Result<()> {
    loop {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error).context("accept"),
        };
        // On one machine a connect is done when it returns. A server that refuses costs this client alone.
        let Ok(server) = connect(args) else { continue };
        let pair = [End::new(tcp(client)?), End::new(server)];
        let slot = free.pop().unwrap_or_else(|| {
            pairs.push(None);
            pairs.len() - 1
        });
        for (number, end) in pair.iter().enumerate() {
            epoll::add(epoll, &end.fd, EventData::new_u64((slot * 2 + number) as u64), ALWAYS)?;
        }
        pairs[slot] = Some(pair);
    }
}

fn connect(args: &Args) -> Result<OwnedFd, Error> {
    if let Some(socket) = &args.socket {
        let stream = UnixStream::connect(socket)?;
        stream.set_nonblocking(true)?;
        return Ok(stream.into());
    }
    tcp(TcpStream::connect((Ipv4Addr::LOCALHOST, args.port.unwrap_or_default()))?)
}

fn tcp(stream: TcpStream) -> Result<OwnedFd, Error> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream.into())
}

/// Does what an event of one end makes possible, in both directions.
fn turn(pair: &mut Pair, number: usize, flags: EventFlags, buffer: &mut [u8]) -> Fate {
    let [client, server] = pair;
    let (end, other) = if number == 0 { (client, server) } else { (server, client) };
    end.hung_up |= flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
    end.readable |= flags.intersects(EventFlags::IN) || end.hung_up;
    // What waited for room in this end, and then what its partner still has for it.
    if flags.intersects(EventFlags::OUT) && !end.left.is_empty() && pump(other, end, buffer) == Fate::Ended {
        return Fate::Ended;
    }
    if end.readable { pump(end, other, buffer) } else { Fate::Open }
}

/// Moves bytes until none are left to read or no room is left to write. A closed end ends the pair: PostgreSQL's
/// protocol knows no half of a connection.
fn pump(from: &mut End, to: &mut End, buffer: &mut [u8]) -> Fate {
    loop {
        if !to.left.is_empty() {
            match put(to) {
                Fate::Ended => return Fate::Ended,
                Fate::Open if !to.left.is_empty() => return Fate::Open,
                Fate::Open => {}
            }
        }
        if !from.readable {
            return Fate::Open;
        }
        let got = match read(&from.fd, &mut *buffer) {
            Ok(0) => return Fate::Ended,
            Ok(got) => got,
            Err(Errno::AGAIN) => {
                from.readable = false;
                return Fate::Open;
            }
            Err(Errno::INTR) => continue,
            Err(_) => return Fate::Ended,
        };
        from.readable = got == buffer.len() || from.hung_up;
        let wrote = match write(&to.fd, &buffer[..got]) {
            Ok(wrote) => wrote,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(_) => return Fate::Ended,
        };
        to.left.extend_from_slice(&buffer[wrote..got]);
    }
}

/// Writes what is left; what still does not fit waits for the next event.
fn put(to: &mut End) -> Fate {
    match write(&to.fd, &to.left) {
        Ok(wrote) => {
            to.left.drain(..wrote);
            Fate::Open
        }
        Err(Errno::AGAIN | Errno::INTR) => Fate::Open,
        Err(_) => Fate::Ended,
    }
}

impl End {
    fn new(fd: OwnedFd) -> End {
        End { fd, readable: false, hung_up: false, left: Vec::new(), waits: false }
    }

    /// Asks to be told of room, or no longer. Whoever asks anew is told at once if there is some.
    fn ask_for_room(&mut self, epoll: &OwnedFd, token: u64) -> Result<(), Errno> {
        if self.waits == self.left.is_empty() {
            self.waits = !self.waits;
            let flags = if self.waits { ALWAYS | EventFlags::OUT } else { ALWAYS };
            epoll::modify(epoll, &self.fd, EventData::new_u64(token), flags)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::time::Duration;

    /// Two pairs of sockets: what a client and a server hold, and between them what the relay holds.
    fn world() -> (UnixStream, Pair, UnixStream) {
        let (client, left) = UnixStream::pair().unwrap();
        let (right, server) = UnixStream::pair().unwrap();
        for stream in [&left, &right] {
            stream.set_nonblocking(true).unwrap();
        }
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        (client, [End::new(left.into()), End::new(right.into())], server)
    }

    #[test]
    fn every_byte_arrives_also_when_the_other_side_does_not_read() {
        let (mut client, mut pair, mut server) = world();
        server.set_nonblocking(true).unwrap();
        let mut buffer = vec![0; BUFFER];
        let sent: Vec<u8> = (0..2_000_000_u32).map(|n| (n % 251) as u8).collect();
        let wanted = sent.clone();
        let writer = std::thread::spawn(move || {
            client.write_all(&sent).unwrap();
            client
        });
        while pair[1].left.is_empty() {
            assert_eq!(turn(&mut pair, 0, EventFlags::IN, &mut buffer), Fate::Open);
        }
        assert!(pair[1].left.len() <= BUFFER, "what cannot be written is not read");
        let (mut got, mut piece) = (Vec::new(), vec![0; 10_000]);
        let began = std::time::Instant::now();
        while got.len() < wanted.len() {
            assert!(began.elapsed().as_secs() < 20, "{} of {} bytes in 20 s", got.len(), wanted.len());
            match server.read(&mut piece) {
                Ok(read) => got.extend_from_slice(&piece[..read]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            // As edges come: room at one end, bytes at the other.
            assert_eq!(turn(&mut pair, 1, EventFlags::OUT, &mut buffer), Fate::Open);
            assert_eq!(turn(&mut pair, 0, EventFlags::IN, &mut buffer), Fate::Open);
        }
        assert!(got == wanted, "bytes differ");
        drop(writer.join().unwrap());
    }

    #[test]
    fn the_last_words_arrive_before_the_end() {
        let (mut client, mut pair, server) = world();
        let mut buffer = vec![0; BUFFER];
        (&server).write_all(b"FATAL").unwrap();
        drop(server);
        assert_eq!(turn(&mut pair, 1, EventFlags::IN | EventFlags::RDHUP, &mut buffer), Fate::Ended);
        drop(pair);
        let mut said = String::new();
        client.read_to_string(&mut said).unwrap();
        assert_eq!(said, "FATAL");
    }
}
