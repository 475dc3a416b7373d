//! Owns the list of connections that are no sessions yet: who comes, and how far each has got. Refuses to let anybody in.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pgteal_wire::startup::StartupMessage;

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

/// One connection.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    pub(crate) client_addr: String,
    pub(crate) named: Named,
    /// Since when it waits before the gate; `None` while it does not.
    pub(crate) held_since: Option<Instant>,
}

/// All of them, by the ids that they will have as sessions.
#[derive(Debug, Default)]
pub(crate) struct Lobby {
    guests: Mutex<BTreeMap<u64, Guest>>,
}

impl Lobby {
    /// Lets a connection be seen here, for as long as the answer lives.
    pub(crate) fn enter(self: &Arc<Self>, id: u64, client_addr: String) -> Seat {
        let guest = Guest { client_addr, named: Named::default(), held_since: None };
        self.guests().insert(id, guest);
        Seat { lobby: Arc::clone(self), id }
    }

    /// Those who wait before the gate.
    pub(crate) fn held(&self) -> Vec<(u64, Guest)> {
        let guests = self.guests();
        let held = guests.iter().filter(|(_, guest)| guest.held_since.is_some());
        held.map(|(id, guest)| (*id, guest.clone())).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.guests().len()
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
}

impl Seat {
    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    /// Says who it is.
    pub(crate) fn is(&self, named: Named) {
        self.change(|guest| guest.named = named);
    }

    /// Says whether it waits before the gate.
    pub(crate) fn held(&self, held: bool) {
        self.change(|guest| guest.held_since = held.then(Instant::now));
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
