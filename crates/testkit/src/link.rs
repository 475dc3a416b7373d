//! A TCP link that can be made bad: slow, narrow, cut, frozen. Owns every connection that goes through it. Refuses to
//! know what the bytes mean.

mod pump;

use pump::pump;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// More connections at once than this are refused: a test that leaks them should see it.
const MAX_CONNECTIONS: u64 = 2_000;

/// How a link is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Both ends of every connection get a reset, new connections too: a host that is up without the service.
    Reset,
    /// Bytes vanish and nobody is told: a pulled cable. Connections that saw this stay deaf after `heal`, as TCP
    /// would after it gave up; new ones, also those that are waiting, work then.
    Silent,
}

/// The state of a link, watched by every connection.
#[derive(Debug, Clone, Copy, Default)]
struct Weather {
    delay: Duration,
    bytes_per_second: Option<u64>,
    cut: Option<Cut>,
    frozen: bool,
    /// Raised by every cut, so that one that is healed at once still hits all connections of its time.
    cuts: u64,
    /// How the last one was.
    last_cut: Option<Cut>,
}

/// What has gone through a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Connections open now.
    pub open: u64,
    /// Bytes delivered from the clients to the target.
    pub bytes_to_target: u64,
    /// Bytes delivered from the target to the clients.
    pub bytes_to_client: u64,
}

#[derive(Debug, Default)]
struct Tally {
    accepted: AtomicU64,
    open: AtomicU64,
    to_target: AtomicU64,
    to_client: AtomicU64,
}

/// A listener on 127.0.0.1 that forwards to one target. Ends, with all its connections, when dropped.
#[derive(Debug)]
pub struct Link {
    port: u16,
    weather: watch::Sender<Weather>,
    tally: Arc<Tally>,
    listener: JoinHandle<()>,
}

impl Link {
    /// A good link to a port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port can be listened on.
    pub async fn to_port(port: u16) -> io::Result<Self> {
        Self::to(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await
    }

    /// A good link to `target`, which need not listen yet.
    ///
    /// # Errors
    /// When no port can be listened on.
    pub async fn to(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let (weather, watcher) = watch::channel(Weather::default());
        let tally = Arc::new(Tally::default());
        let listener = tokio::spawn(listen(listener, target, watcher, Arc::clone(&tally)));
        Ok(Self { port, weather, tally, listener })
    }

    /// The port on 127.0.0.1 to connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Delays each byte, in each direction, by this much; the throughput stays, up to 1 MiB on the way.
    pub fn delay(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.delay = delay);
    }

    /// Lets at most this many bytes a second through, in each direction of each connection; `None` is no limit.
    pub fn rate(&self, bytes_per_second: Option<u64>) {
        self.weather
            .send_modify(|weather| weather.bytes_per_second = bytes_per_second.map(|rate| rate.max(1)));
    }

    /// Cuts the link until `heal`.
    pub fn cut(&self, how: Cut) {
        self.weather.send_modify(|weather| {
            weather.cut = Some(how);
            weather.cuts += 1;
            weather.last_cut = Some(how);
        });
    }

    /// Holds every byte back until `heal`, then goes on with none lost: a path that stalls.
    pub fn freeze(&self) {
        self.weather.send_modify(|weather| weather.frozen = true);
    }

    /// Ends a cut, a freeze, a delay and a rate.
    pub fn heal(&self) {
        self.weather.send_modify(|weather| {
            *weather = Weather { cuts: weather.cuts, last_cut: weather.last_cut, ..Weather::default() }
        });
    }

    /// What has gone through so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            accepted: read(&self.tally.accepted),
            open: read(&self.tally.open),
            bytes_to_target: read(&self.tally.to_target),
            bytes_to_client: read(&self.tally.to_client),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Connections end when they see the sender of the weather gone.
        self.listener.abort();
    }
}

async fn listen(
    listener: TcpListener,
    target: SocketAddr,
    weather: watch::Receiver<Weather>,
    tally: Arc<Tally>,
) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: give others time to close theirs.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        tally.accepted.fetch_add(1, Ordering::Relaxed);
        if tally.open.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            tally.open.fetch_sub(1, Ordering::Relaxed);
            reset(&client);
            continue;
        }
        let (weather, tally) = (weather.clone(), Arc::clone(&tally));
        tokio::spawn(async move {
            connection(client, target, weather, &tally).await;
            tally.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn connection(
    mut client: TcpStream,
    target: SocketAddr,
    mut weather: watch::Receiver<Weather>,
    tally: &Tally,
) {
    let cuts = weather.borrow().cuts;
    // A new connection over a frozen or silent link gets no further than its own kernel's handshake.
    let passable = |now: &Weather| now.cut == Some(Cut::Reset) || (now.cut.is_none() && !now.frozen);
    let Ok(now) = weather.wait_for(passable).await.map(|now| *now) else {
        return;
    };
    if now.cut == Some(Cut::Reset) {
        return reset(&client);
    }
    let Ok(mut server) = TcpStream::connect(target).await else {
        return reset(&client);
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let end = relay(&mut client, &mut server, &weather, cuts, tally).await;
    match end {
        End::Closed => {}
        End::Broken => {
            reset(&client);
            reset(&server);
        }
        // Deaf until the link goes: the ends must find out by themselves.
        End::Deaf => while weather.changed().await.is_ok() {},
    }
}

/// How a connection ended.
enum End {
    /// Both ends closed it.
    Closed,
    /// One end reset it, or the link was cut with a reset or dropped.
    Broken,
    /// The link was cut without a word.
    Deaf,
}

async fn relay(
    client: &mut TcpStream,
    server: &mut TcpStream,
    weather: &watch::Receiver<Weather>,
    cuts: u64,
    tally: &Tally,
) -> End {
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let forth = pump(from_client, to_server, weather.clone(), &tally.to_target);
    let back = pump(from_server, to_client, weather.clone(), &tally.to_client);
    let mut watcher = weather.clone();
    tokio::select! {
        both = async { tokio::try_join!(forth, back) } => if both.is_ok() { End::Closed } else { End::Broken },
        cut = watcher.wait_for(|now| now.cuts != cuts) => match cut.map(|now| now.last_cut) {
            Ok(Some(Cut::Silent)) => End::Deaf,
            _ => End::Broken,
        },
    }
}

/// Makes the coming close a reset.
fn reset(stream: &TcpStream) {
    // An end that is gone already needs no reset.
    let _ = stream.set_zero_linger();
}
