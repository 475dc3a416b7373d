//! Owns the list of connections that are no sessions yet: who comes, how far each has got, and how many may keep everybody
//! waiting. Refuses to let anybody in.
//!
//! Connections cost an attacker nothing, and a client that means it says who it is at once. So when there are too many that do
//! not say it, the oldest of them go, once they have had the time that anybody needs; those that wait for us, for a server or
//! for the gate stay.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pgteal_wire::startup::StartupMessage;
use tokio::sync::Notify;

/// How long a client may take for its first packets while there are too many.
const TO_GREET: Duration = Duration::from_secs(3);
/// How long to prove who it is, which may have to wait for a server's answer.
const TO_PROVE: Duration = Duration::from_secs(15);

/// Who comes, as the startup packet says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Named {
    pub(crate) user: String,
    pub(crate) database: String,
    pub(crate) application_name: String,
}

impl Named {
    pub(crate) fn of(startup: &StartupMessage) -> Self {
        let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
        Self {
            user: text(startup.get("user")),
            database: text(startup.database()),
            application_name: text(startup.get("application_name")),
        }
    }
}

/// How far a connection has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its startup packet is not there.
    Greeting,
    /// It waits before the gate.
    Held,
    /// It is to prove who it is.
    Proving,
    /// It has, and its server is asked.
    Opening,
}

impl Stage {
    /// How long it may last while there are too many; `None` when it is not the client who is waited for.
    const fn patience(self) -> Option<Duration> {
        match self {
            Self::Greeting => Some(TO_GREET),
            Self::Proving => Some(TO_PROVE),
            Self::Held | Self::Opening => None,
        }
    }
}

/// One connection.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    pub(crate) client_addr: String,
    pub(crate) named: Named,
    stage: Stage,
    pub(crate) since: Instant,
    out: Arc<Notify>,
}

/// All of them, by the ids that they will have as sessions: the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Lobby {
    guests: Mutex<BTreeMap<u64, Guest>>,
}

impl Lobby {
    /// Lets a connection be seen here, for as long as the answer lives.
    pub(crate) fn enter(self: &Arc<Self>, id: u64, client_addr: String) -> Seat {
        let out = Arc::new(Notify::new());
        let (stage, since) = (Stage::Greeting, Instant::now());
        let guest = Guest { client_addr, named: Named::default(), stage, since, out: Arc::clone(&out) };
        self.guests().insert(id, guest);
        Seat { lobby: Arc::clone(self), id, out }
    }

    /// Those who wait before the gate.
    pub(crate) fn held(&self) -> Vec<(u64, Guest)> {
        let guests = self.guests();
        let held = guests.iter().filter(|(_, guest)| guest.stage == Stage::Held);
        held.map(|(id, guest)| (*id, guest.clone())).collect()
    }

    /// How many wait before the gate.
    pub(crate) fn count_held(&self) -> usize {
        self.guests().values().filter(|guest| guest.stage == Stage::Held).count()
    }

    pub(crate) fn len(&self) -> usize {
        self.guests().len()
    }

    /// Shows out as many as there are too many, the oldest of those that have not said who they are for too long. Answers how
    /// many.
    pub(crate) fn thin_out(&self, most: usize, now: Instant) -> usize {
        let guests = self.guests();
        let of_clients = guests.values().filter(|guest| guest.stage.patience().is_some());
        let too_many = of_clients.clone().count().saturating_sub(most);
        let late = of_clients
            .filter(|guest| guest.stage.patience().is_some_and(|patience| now >= guest.since + patience));
        let gone: Vec<_> = late.take(too_many).collect();
        gone.iter().for_each(|guest| guest.out.notify_one());
        gone.len()
    }

    fn guests(&self) -> MutexGuard<'_, BTreeMap<u64, Guest>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place in the lobby.
#[derive(Debug)]
pub(crate) struct Seat {
    lobby: Arc<Lobby>,
    id: u64,
    out: Arc<Notify>,
}

impl Seat {
    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    /// Says who it is.
    pub(crate) fn is(&self, named: Named) {
        self.change(|guest| guest.named = named);
    }

    /// Says whose connection a load balancer passes on.
    pub(crate) fn comes_from(&self, client_addr: String) {
        self.change(|guest| guest.client_addr = client_addr);
    }

    /// Says how far it has got.
    pub(crate) fn reaches(&self, stage: Stage) {
        self.change(|guest| {
            if guest.stage != stage {
                (guest.stage, guest.since) = (stage, Instant::now());
            }
        });
    }

    /// Ready when it is shown out.
    pub(crate) fn shown_out(&self) -> impl Future<Output = ()> + use<> {
        let out = Arc::clone(&self.out);
        async move { out.notified().await }
    }

    fn change(&self, change: impl FnOnce(&mut Guest)) {
        if let Some(guest) = self.lobby.guests().get_mut(&self.id) {
            change(guest);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.lobby.guests().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn the_oldest_that_say_nothing_go_when_there_are_too_many() {
        let lobby = Arc::new(Lobby::default());
        let seats: Vec<_> = (1..=6).map(|id| lobby.enter(id, String::new())).collect();
        seats[0].reaches(Stage::Held);
        seats[1].reaches(Stage::Opening);
        seats[2].reaches(Stage::Proving);
        let gone = || seats.iter().map(|seat| seat.shown_out().now_or_never().is_some()).collect::<Vec<_>>();
        let now = Instant::now();
        assert_eq!(lobby.thin_out(1, now), 0, "nobody had time yet");
        let late = now + TO_GREET;
        assert_eq!(lobby.thin_out(4, late), 0, "not too many");
        assert_eq!(lobby.thin_out(2, late), 2);
        assert_eq!(gone(), [false, false, false, true, true, false]);
        assert_eq!(lobby.thin_out(0, now + TO_PROVE), 4);
        assert_eq!(gone(), [false, false, true, true, true, true]);
        drop(seats);
        assert_eq!(lobby.len(), 0);
    }
}
