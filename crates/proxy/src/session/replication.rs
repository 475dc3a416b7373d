//! Owns what is different about a replication connection: when it is inside the gate, and that it cannot be carried.
//! Refuses to know what is replicated.

use pgteal_wire::message::tag::front;

use super::Session;

impl Session {
    /// Whether the message belongs to a replication stream, which no gate holds: it carries no transaction of the client's.
    pub(super) fn streams(&self, tag: u8) -> bool {
        self.replication
            && self.tracker.streaming()
            && matches!(tag, front::COPY_DATA | front::COPY_DONE | front::COPY_FAIL)
    }

    /// A replication connection is inside the gate while it speaks, and outside while it streams.
    pub(super) fn stream_or_not(&mut self) {
        let streams = self.tracker.streaming();
        if streams {
            self.leave_gate();
        }
        let what = if streams { "a replication stream" } else { "a replication connection" };
        self.entry.details().pins = vec![what.into()];
    }
}
