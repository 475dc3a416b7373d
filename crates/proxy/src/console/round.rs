//! Owns a round of telling sessions to warm, and the collecting of their answers: all at once while clients are held,
//! in turns while they work.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::pace::{BREATH, Pace};
use crate::registry::{Command, Entry, WarmAnswer, WarmState};
use crate::route::Side;
use crate::shared::Shared;

/// A transaction open for longer than this is not waited for.
const LONG: Duration = Duration::from_millis(500);
/// How often the list of those that are waited for is looked at again.
const LOOK: Duration = Duration::from_millis(20);
/// A session that has not begun to open so long after it was told is in a transaction, most likely: others have their
/// turn meanwhile.
const GRACE: Duration = Duration::from_millis(100);

/// What came of telling sessions to warm.
#[derive(Debug, Default)]
pub(super) struct Warmed {
    pub(super) warm: usize,
    pub(super) pinned: usize,
    pub(super) failed: usize,
    pub(super) failed_reason: String,
}

/// A session that was told and is at it.
#[derive(Debug)]
struct Turn {
    entry: Arc<Entry>,
    since: Instant,
}

impl Turn {
    fn is_under_way(&self) -> bool {
        !self.entry.mailbox.is_closed()
            && (self.since.elapsed() < GRACE || self.entry.details().warm == WarmState::Opening)
    }
}

#[derive(Debug)]
struct Round<'a> {
    shared: &'a Shared,
    side: Side,
    untold: std::slice::Iter<'a, Arc<Entry>>,
    unanswered: HashMap<u64, &'a Arc<Entry>>,
    turns: HashMap<u64, Turn>,
    /// Dropped when everybody is told, so that the answers end with the last session.
    reply: Option<mpsc::Sender<(u64, WarmAnswer)>>,
    /// `None`: all at once.
    pace: Option<Pace>,
    warmed: Warmed,
}

/// Tells sessions, and waits for their answers; not for sessions in a long transaction, and no longer than `limit`. By
/// its end everybody is told, unless the warming was called off meanwhile.
pub(super) async fn tell(
    shared: &Shared,
    entries: &[Arc<Entry>],
    side: Side,
    limit: Duration,
    pace: Option<Pace>,
) -> Warmed {
    let deadline = Instant::now() + limit;
    let (reply, mut answers) = mpsc::channel(entries.len().max(1));
    let mut round = Round {
        shared,
        side,
        untold: entries.iter(),
        unanswered: entries.iter().map(|entry| (entry.id, entry)).collect(),
        turns: HashMap::new(),
        reply: Some(reply),
        pace,
        warmed: Warmed::default(),
    };
    while !round.unanswered.is_empty() && Instant::now() < deadline {
        let at_once = round.at_once();
        round.tell_up_to(at_once);
        let look = if round.reply.is_some() { BREATH } else { LOOK };
        match tokio::time::timeout_at(deadline.min(Instant::now() + look), answers.recv()).await {
            Ok(Some((id, answer))) => {
                if let Some(breath) = round.answered(id, answer, at_once) {
                    tokio::time::sleep(breath).await;
                }
            }
            Ok(None) => break,
            Err(_) if round.waits_only_for_long_ones() => break,
            Err(_) => {}
        }
    }
    round.tell_up_to(usize::MAX);
    round.warmed
}

impl Round<'_> {
    /// How many turns there may be now.
    fn at_once(&mut self) -> usize {
        self.turns.retain(|_, turn| turn.is_under_way());
        match &self.pace {
            // Clients wait: what is to be done is done now.
            Some(pace) if !self.shared.gate.is_closed() => {
                let running = self.turns.values().map(|turn| turn.since.elapsed()).max().unwrap_or_default();
                pace.at_once(self.untold.len(), running, Instant::now())
            }
            _ => usize::MAX,
        }
    }

    fn tell_up_to(&mut self, at_once: usize) {
        while self.turns.len() < at_once {
            let Some(reply) = &self.reply else { return };
            let is_on = self.shared.warm_side() == Some(self.side);
            let Some(entry) = self.untold.next() else {
                self.reply = None;
                return;
            };
            if !is_on {
                // Called off: who was not told is not waited for.
                self.unanswered.remove(&entry.id);
                continue;
            }
            entry.tell(Command::Warm { side: self.side, reply: Some(reply.clone()) });
            if self.shared.warm_side() != Some(self.side) {
                // Just now: its own word may have come before ours.
                entry.tell(Command::Cool);
            }
            if self.inside(entry) < GRACE {
                self.turns.insert(entry.id, Turn { entry: Arc::clone(entry), since: Instant::now() });
            }
        }
    }

    /// Takes an answer; says how long to wait before the next is told.
    fn answered(&mut self, id: u64, answer: WarmAnswer, at_once: usize) -> Option<Duration> {
        self.unanswered.remove(&id);
        match answer {
            WarmAnswer::Ready => self.warmed.warm += 1,
            WarmAnswer::Pinned => self.warmed.pinned += 1,
            WarmAnswer::Failed(why) => {
                self.warmed.failed += 1;
                self.warmed.failed_reason = why;
            }
        }
        let took = self.turns.remove(&id)?.since.elapsed();
        let pace = self.pace.as_mut()?;
        pace.ended(took);
        self.reply.as_ref()?;
        pace.breath(took, at_once)
    }

    fn inside(&self, entry: &Entry) -> Duration {
        Duration::from_micros(entry.inside_for(self.shared.registry.now()).unwrap_or(0))
    }

    fn waits_only_for_long_ones(&self) -> bool {
        self.reply.is_none() && self.unanswered.values().all(|entry| self.inside(entry) > LONG)
    }
}
