//! How many members of a group can have work at once, and how many replicas that bounds.

use super::types::Replicas;

/// Useful parallelism: the most members that can be given a partition.
///
/// `partitions` are the partition counts of the topics that the group reads. With one topic that
/// is its partitions. With several it is the largest count, since the assignor is taken to be
/// `range`, every client's default: it deals out each topic by itself, always beginning with the
/// same members, so members beyond the largest topic get nothing.
#[must_use]
pub fn useful_parallelism(partitions: impl IntoIterator<Item = u32>) -> Replicas {
    Replicas(partitions.into_iter().max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for (partitions, expected) in [
            (vec![12], 12),
            (vec![12, 4], 12),
            (vec![4, 4, 4], 4),
            (vec![], 0),
        ] {
            assert_eq!(useful_parallelism(partitions), Replicas(expected));
        }
    }
}
