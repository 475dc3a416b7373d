//! Owns carrying the values of sequences from the side that serves to the one that will: far ahead long before the pause,
//! exactly where a gap would hurt. Refuses to know which side is which.
//!
//! In the pause nothing grows with the number of sequences but one look that is answered in one round trip.

use std::collections::HashMap;

use pgteal_postgres::Session;
use pgteal_postgres::sequence::{
    self, Ahead, Sequence, SequenceName, SequenceReader, SequenceValue, Watch, ahead_of, moved_past,
};

use super::Result;

/// Steps that a sequence is set ahead where its range has room: minutes of use at a thousand values a second.
pub const GAP: u32 = 100_000;

/// A gap takes at most this part of a sequence's range: of a `smallint` 32 values, of an `integer` all of [`GAP`].
const PART: i128 = 1000;
/// Below this a gap is not worth its hole.
const LEAST: u32 = 10;
/// From so many sequences on two sessions look at them: one takes some 2 us for each.
const MANY: usize = 500;

/// What was done ahead, and what is left for the pause.
#[derive(Debug, Clone)]
pub struct Carrier {
    watches: Vec<Watch>,
    names: HashMap<u32, SequenceName>,
    exact: Vec<SequenceName>,
    reader: SequenceReader,
    /// Sequences that the receiving side does not have.
    pub missing: Vec<SequenceName>,
    /// Sequences that were set now.
    pub advanced: usize,
}

/// What the pause did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settled {
    /// Sequences whose bound was checked.
    pub checked: usize,
    /// Of these, had run past their bound and were set exactly.
    pub repaired: usize,
    /// Sequences that are always set exactly.
    pub exact: usize,
}

impl Carrier {
    /// Sets the sequences of `to` ahead of those of `from` by up to `gap` steps, and makes both sessions ready for
    /// [`Carrier::settle`]. A sequence of `to` never goes back and is left alone while it is still half a gap ahead. With
    /// `gap` 0 every sequence is left for the pause: no holes, at the price of time there.
    pub async fn advance(from: &Session, to: &Session, gap: u32) -> Result<Self> {
        let serving = sequence::list(from).await?;
        let receiving: HashMap<SequenceName, Sequence> =
            sequence::list(to).await?.into_iter().map(|q| (q.name.clone(), q)).collect();
        let (mut ahead, mut exact, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        let (mut watches, mut names) = (Vec::new(), HashMap::new());
        for source in serving {
            let Some(target) = receiving.get(&source.name) else {
                missing.push(source.name);
                continue;
            };
            let Some(bound) = bound(&source, target, gap) else {
                exact.push(source.name);
                continue;
            };
            if bound.last_value != target.last_value || !target.is_called {
                ahead.push((source.name.clone(), bound));
            }
            watches.push(Watch { oid: source.oid, limit: bound.last_value, ascending: source.increment > 0 });
            names.insert(source.oid, source.name);
        }
        sequence::set(to, &ahead).await?;
        let reader = SequenceReader::new(&exact);
        reader.warm(from).await?;
        moved_past(from, &watches).await?;
        Ok(Self { watches, names, exact, reader, missing, advanced: ahead.len() })
    }

    /// Makes a second session of `from` ready for its part in [`Carrier::settle`].
    pub async fn warm_second(&self, second: &Session) -> Result<()> {
        if self.watches.len() >= MANY {
            moved_past(second, self.halves().1).await?;
        }
        Ok(())
    }

    fn halves(&self) -> (&[Watch], &[Watch]) {
        self.watches.split_at(self.watches.len() / 2)
    }

    /// In the pause, when nobody uses the sequences of `from` any more: sets those that ran past their bound, and those
    /// that are always exact.
    ///
    /// Where there are many, the second session looks at half of them meanwhile.
    pub async fn settle(&self, from: &Session, second: Option<&Session>, to: &Session) -> Result<Settled> {
        let past = match second {
            Some(second) if self.watches.len() >= MANY => {
                let (own, other) = self.halves();
                let (past, rest) = futures::join!(moved_past(from, own), moved_past(second, other));
                let rest = match rest {
                    Ok(rest) => rest,
                    // A session that was lost costs time and nothing else.
                    Err(_) => moved_past(from, other).await?,
                };
                [past?, rest].concat()
            }
            _ => moved_past(from, &self.watches).await?,
        };
        let names: Vec<SequenceName> = past.iter().filter_map(|oid| self.names.get(oid).cloned()).collect();
        copy(from, to, &names, &SequenceReader::new(&names)).await?;
        copy(from, to, &self.exact, &self.reader).await?;
        Ok(Settled { checked: self.watches.len(), repaired: names.len(), exact: self.exact.len() })
    }
}

async fn copy(from: &Session, to: &Session, names: &[SequenceName], reader: &SequenceReader) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let values = reader.read(from).await?;
    let pairs: Vec<(SequenceName, SequenceValue)> = names.iter().cloned().zip(values).collect();
    Ok(sequence::set(to, &pairs).await?)
}

/// Sets every sequence of `to` to the value of `from`, also backwards: when nothing is known from before the pause.
/// Returns how many; those that `to` does not have are left out.
pub async fn carry_exactly(from: &Session, to: &Session) -> Result<usize> {
    let serving = sequence::list(from).await?;
    let receiving: Vec<SequenceName> = sequence::list(to).await?.into_iter().map(|q| q.name).collect();
    let present = serving.into_iter().filter(|q| receiving.contains(&q.name));
    let pairs: Vec<_> = present
        .map(|q| (q.name, SequenceValue { last_value: q.last_value, is_called: q.is_called }))
        .collect();
    sequence::set(to, &pairs).await?;
    Ok(pairs.len())
}

/// Whether every sequence of `to` is where that of `from` is, or beyond: what must hold when clients arrive.
pub async fn is_carried(from: &Session, to: &Session) -> Result<bool> {
    let receiving: HashMap<SequenceName, Sequence> =
        sequence::list(to).await?.into_iter().map(|q| (q.name.clone(), q)).collect();
    let holds = |source: &Sequence| {
        receiving.get(&source.name).is_some_and(|target| match (source.is_called, source.increment > 0) {
            (false, _) => true,
            _ if source.cycle => target.last_value == source.last_value && target.is_called,
            (true, true) => target.is_called && target.last_value >= source.last_value,
            (true, false) => target.is_called && target.last_value <= source.last_value,
        })
    };
    Ok(sequence::list(from).await?.iter().all(holds))
}

/// Where the target is to stand so that the source can go on for a while; none if it must be exact.
fn bound(source: &Sequence, target: &Sequence, gap: u32) -> Option<SequenceValue> {
    let range = i128::from(source.max) - i128::from(source.min);
    let gap = gap.min(u32::try_from(range / PART).unwrap_or(u32::MAX));
    if gap < LEAST {
        return None;
    }
    let Ahead::Set(wanted) = ahead_of(source, gap) else { return None };
    // How far the target is ahead already, in steps.
    let distance = i128::from(target.last_value) - i128::from(source.last_value);
    let steps = distance / i128::from(source.increment.max(1).max(-source.increment.min(0)));
    let steps = if source.increment > 0 { steps } else { -steps };
    let far = target.is_called && steps >= i128::from(gap / 2);
    Some(if far { SequenceValue { last_value: target.last_value, is_called: true } } else { wanted })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(last_value: i64, is_called: bool, increment: i64, (min, max): (i64, i64)) -> Sequence {
        Sequence {
            oid: 1,
            name: SequenceName::new("s", "q"),
            data_type: "bigint".to_owned(),
            start: 1,
            min,
            max,
            increment,
            cycle: false,
            cache: 1,
            unlogged: false,
            last_value,
            is_called,
        }
    }

    #[test]
    fn the_gap_follows_the_range_and_never_goes_back() {
        let (big, int, small) = ((1, i64::MAX), (1, i64::from(i32::MAX)), (1, 32_767));
        for (name, source, target, gap, expected) in [
            ("fresh", sequence(10, true, 1, big), sequence(1, false, 1, big), GAP, Some(100_010)),
            ("integer", sequence(10, true, 1, int), sequence(1, false, 1, int), GAP, Some(100_010)),
            ("smallint", sequence(10, true, 1, small), sequence(1, false, 1, small), GAP, Some(42)),
            (
                "smallint at its end",
                sequence(32_760, true, 1, small),
                sequence(1, false, 1, small),
                GAP,
                None,
            ),
            ("far enough", sequence(10, true, 1, big), sequence(60_000, true, 1, big), GAP, Some(60_000)),
            ("too near", sequence(10, true, 1, big), sequence(40_000, true, 1, big), GAP, Some(100_010)),
            ("far beyond", sequence(10, true, 1, big), sequence(900_000, true, 1, big), GAP, Some(900_000)),
            ("tiny range", sequence(1, true, 1, (1, 5000)), sequence(1, true, 1, (1, 5000)), GAP, None),
            ("no holes wanted", sequence(1, true, 1, big), sequence(1, true, 1, big), 0, None),
            (
                "descending",
                sequence(-5, true, -2, (i64::MIN, -1)),
                sequence(-1, true, -2, (i64::MIN, -1)),
                GAP,
                Some(-200_005),
            ),
        ] {
            assert_eq!(bound(&source, &target, gap).map(|v| v.last_value), expected, "{name}");
        }
    }
}
