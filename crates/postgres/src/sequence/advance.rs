//! How far ahead a sequence can be set, by its type and bounds. Pure arithmetic, no server.

use serde::Serialize;

use super::{Sequence, SequenceValue};

/// What to do with a sequence before the pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Ahead {
    /// Set the other server's to this value now; in the pause it is enough to know that this one has not passed it.
    Set(SequenceValue),
    /// It cycles, or its end is too near for a gap: carry the exact value in the pause.
    Exact,
}

/// The value `gap` steps further than where the sequence stands. A gap is taken only if afterwards at least as much room
/// is left as the gap took; otherwise the sequence is near its end and every value counts.
pub fn ahead_of(sequence: &Sequence, gap: u32) -> Ahead {
    if sequence.cycle || sequence.increment == 0 {
        return Ahead::Exact;
    }
    let (last, step) = (i128::from(sequence.last_value), i128::from(sequence.increment));
    let distance = step * i128::from(gap);
    let (target, reserve) = (last + distance, last + 2 * distance);
    let fits =
        if step > 0 { reserve <= i128::from(sequence.max) } else { reserve >= i128::from(sequence.min) };
    match i64::try_from(target) {
        Ok(last_value) if fits => Ahead::Set(SequenceValue { last_value, is_called: true }),
        _ => Ahead::Exact,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::SequenceName;

    fn sequence(last_value: i64, increment: i64, min: i64, max: i64, cycle: bool) -> Sequence {
        Sequence {
            oid: 1,
            name: SequenceName::new("s", "q"),
            data_type: "bigint".to_owned(),
            start: 1,
            min,
            max,
            increment,
            cycle,
            cache: 1,
            unlogged: false,
            last_value,
            is_called: true,
        }
    }

    #[test]
    fn a_gap_is_taken_where_there_is_room() {
        let set = |last_value| Ahead::Set(SequenceValue { last_value, is_called: true });
        let int_max = i64::from(i32::MAX);
        for (name, q, gap, expected) in [
            ("plain", sequence(10, 1, 1, i64::MAX, false), 100_000, set(100_010)),
            ("by ten", sequence(10, 10, 1, i64::MAX, false), 1000, set(10_010)),
            ("descending", sequence(-5, -1, i64::MIN, -1, false), 1000, set(-1005)),
            ("smallint", sequence(10, 1, 1, 32_767, false), 100_000, Ahead::Exact),
            ("integer, room", sequence(10, 1, 1, int_max, false), 100_000, set(100_010)),
            (
                "integer, near its end",
                sequence(int_max - 150_000, 1, 1, int_max, false),
                100_000,
                Ahead::Exact,
            ),
            ("exactly enough", sequence(0, 1, 0, 200, false), 100, set(100)),
            ("one too few", sequence(1, 1, 0, 200, false), 100, Ahead::Exact),
            ("bigint at its end", sequence(i64::MAX - 1, 1, 1, i64::MAX, false), 100, Ahead::Exact),
            ("huge steps", sequence(0, i64::MAX / 4, 0, i64::MAX, false), 100, Ahead::Exact),
            ("lowest", sequence(i64::MIN, -1, i64::MIN, -1, false), 1, Ahead::Exact),
            ("cycle", sequence(10, 1, 1, i64::MAX, true), 100, Ahead::Exact),
        ] {
            assert_eq!(ahead_of(&q, gap), expected, "{name}");
        }
    }
}
