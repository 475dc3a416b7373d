//! The rows a session may still revise or delete. Owns the choice among them, the same while running and when the
//! oracle works the run out again; refuses to know what the rows hold.

use crate::book::Thing;
use crate::op::Op;
use crate::record::Outcome;

/// The rows of one session whose existence is certain, by kind.
#[derive(Debug, Clone, Default)]
pub(crate) struct Live {
    rows: [Vec<i64>; Thing::ALL.len()],
}

impl Live {
    pub(crate) fn count(&self, thing: Thing) -> usize {
        self.rows[thing as usize].len()
    }

    pub(crate) fn pick(&self, thing: Thing, pick: u64) -> Option<i64> {
        let rows = &self.rows[thing as usize];
        let index = (pick as usize).checked_rem(rows.len())?;
        rows.get(index).copied()
    }

    /// Takes in how transaction `seq` ended. After an unknown outcome its row is left alone for good: nobody can say
    /// yet whether it exists, and the oracle will.
    pub(crate) fn settle(&mut self, seq: i64, op: Op, outcome: Outcome) {
        match (op, outcome) {
            (_, Outcome::Failed(_)) | (Op::Transfer { .. } | Op::Browse, _) => {}
            (Op::Create(thing), Outcome::Acked) => self.rows[thing as usize].push(seq),
            (Op::Create(_), Outcome::Unknown(_)) | (Op::Revise(..), Outcome::Acked) => {}
            (Op::Delete(thing, row), _) | (Op::Revise(thing, row), Outcome::Unknown(_)) => {
                let rows = &mut self.rows[thing as usize];
                if let Some(index) = rows.iter().position(|other| *other == row) {
                    rows.swap_remove(index);
                }
            }
        }
    }
}
