//! Compact column of committed offsets, eight bytes each, because they are most of a snapshot. Decoders
//! write into it, and the snapshot keeps the same allocation.

use super::fault::Fault;
use crate::model::units::newtypes::Offset;

/// Committed offsets of a group on a topic, by partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommittedOffsets(Box<[i64]>);

/// Encodes "no committed offset". Valid offsets are not negative, and brokers use negative ones for this.
const NONE: i64 = -1;

/// Encodes the faults of [`NAMED`], in their order downwards from here.
const FIRST_NAMED: i64 = -2;

/// Encodes error codes, downwards from here.
const FIRST_CODE: i64 = -1_000_000;

const NAMED: [Fault; 18] = [
    Fault::NoAnswer,
    Fault::Unreachable,
    Fault::Login,
    Fault::Tls,
    Fault::NameResolution,
    Fault::LeaderUnknown,
    Fault::CoordinatorUnavailable,
    Fault::TopicMissing,
    Fault::PartitionMissing,
    Fault::TopicDenied,
    Fault::GroupDenied,
    Fault::CommitBeyondEnd,
    Fault::LogReplaced,
    Fault::TooManyGroups,
    Fault::Client,
    Fault::Unsupported,
    Fault::OverBudget,
    Fault::HostNotAllowed,
];

type Cell = Result<Option<Offset>, Fault>;

impl CommittedOffsets {
    /// A column with the same value for every partition.
    #[must_use]
    pub fn filled(partitions: usize, reading: Result<Option<Offset>, Fault>) -> Self {
        Self(vec![encode(reading); partitions].into())
    }

    /// Sets the value of a partition; ignores one beyond the last.
    pub fn set(&mut self, partition: usize, reading: Result<Option<Offset>, Fault>) {
        if let Some(cell) = self.0.get_mut(partition) {
            *cell = encode(reading);
        }
    }

    /// Appends partitions with this value until there are `partitions`.
    pub fn grow(&mut self, partitions: usize, reading: Result<Option<Offset>, Fault>) {
        if self.0.len() < partitions {
            let mut cells = std::mem::take(&mut self.0).into_vec();
            cells.resize(partitions, encode(reading));
            self.0 = cells.into();
        }
    }

    /// The number of partitions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no partition.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a partition is known to have a committed offset.
    #[must_use]
    pub fn has_commits(&self) -> bool {
        self.0.iter().any(|cell| *cell >= 0)
    }

    /// Value of a partition; `None` beyond the last.
    #[must_use]
    pub fn get(&self, partition: usize) -> Option<Result<Option<Offset>, Fault>> {
        self.0.get(partition).copied().map(decode)
    }

    /// Values of all partitions, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Result<Option<Offset>, Fault>> {
        self.0.iter().copied().map(decode)
    }
}

impl FromIterator<Cell> for CommittedOffsets {
    fn from_iter<I: IntoIterator<Item = Cell>>(readings: I) -> Self {
        Self(readings.into_iter().map(encode).collect())
    }
}

fn encode(reading: Cell) -> i64 {
    let down = |first: i64, steps: i64| first.saturating_sub(steps);
    match reading {
        Ok(Some(Offset(at))) if at >= 0 => at,
        Ok(_) => NONE,
        Err(Fault::Code(code)) => {
            let steps = i64::from(code).saturating_sub(i64::from(i32::MIN));
            down(FIRST_CODE, steps)
        }
        Err(fault) => {
            let named = NAMED.iter().position(|named| *named == fault);
            let steps = named.and_then(|index| i64::try_from(index).ok());
            down(FIRST_NAMED, steps.unwrap_or(0))
        }
    }
}

fn decode(packed: i64) -> Cell {
    match packed {
        0.. => Ok(Some(Offset(packed))),
        NONE => Ok(None),
        _ if packed <= FIRST_CODE => {
            let steps = FIRST_CODE.saturating_sub(packed);
            let code = steps.saturating_add(i64::from(i32::MIN));
            Err(Fault::Code(i32::try_from(code).unwrap_or(i32::MAX)))
        }
        _ => {
            let index = usize::try_from(FIRST_NAMED.saturating_sub(packed)).ok();
            let named = index.and_then(|index| NAMED.get(index));
            Err(named.copied().unwrap_or(Fault::NoAnswer))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_survive_the_encoding() {
        let mut readings: Vec<Cell> = NAMED.iter().map(|fault| Err(*fault)).collect();
        for code in [i32::MIN, -1, 0, 1, 7, i32::MAX] {
            readings.push(Err(Fault::Code(code)));
        }
        readings.extend([Ok(None), Ok(Some(Offset(0))), Ok(Some(Offset(i64::MAX)))]);
        let column: CommittedOffsets = readings.iter().copied().collect();
        assert_eq!(column.iter().collect::<Vec<_>>(), readings);
        assert_eq!(column.get(readings.len()), None);
    }

    #[test]
    fn partitions_can_be_set_and_added() {
        let mut column = CommittedOffsets::filled(2, Err(Fault::NoAnswer));
        column.set(1, Ok(Some(Offset(7))));
        column.set(2, Ok(None));
        column.grow(3, Err(Fault::PartitionMissing));
        column.grow(1, Ok(None));
        assert_eq!(
            column.iter().collect::<Vec<_>>(),
            [
                Err(Fault::NoAnswer),
                Ok(Some(Offset(7))),
                Err(Fault::PartitionMissing)
            ]
        );
    }

    #[test]
    fn a_negative_offset_is_none() {
        let column: CommittedOffsets = [Ok(Some(Offset(-1001))), Ok(Some(Offset(i64::MIN)))]
            .into_iter()
            .collect();
        assert!(column.iter().all(|commit| commit == Ok(None)));
    }

    #[test]
    fn every_fault_has_an_encoding() {
        // A new fault needs an encoding. Without its arm, this match does not compile.
        for fault in NAMED {
            match fault {
                Fault::NoAnswer
                | Fault::Unreachable
                | Fault::Login
                | Fault::Tls
                | Fault::NameResolution
                | Fault::HostNotAllowed
                | Fault::LeaderUnknown
                | Fault::CoordinatorUnavailable
                | Fault::TopicMissing
                | Fault::PartitionMissing
                | Fault::TopicDenied
                | Fault::GroupDenied
                | Fault::CommitBeyondEnd
                | Fault::LogReplaced
                | Fault::TooManyGroups
                | Fault::OverBudget
                | Fault::Client
                | Fault::Unsupported
                | Fault::Code(_) => {}
            }
        }
    }
}
