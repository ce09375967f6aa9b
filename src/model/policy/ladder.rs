//! The ladder: numbers of replicas that share the partitions evenly.

/// Minimum ratio of two neighbours that do not count as one.
const MIN_RATIO: f64 = 1.12;

/// The numbers ceil(`ceiling` / k), ascending, with neighbours at least 12 % apart.
///
/// A number between two of these does not help: the most heavily loaded replica still has to process as many partitions
/// as with the lower one.
pub(super) fn build_ladder(ceiling: u32) -> Vec<u32> {
    let mut ladder = Vec::new();
    let mut parts = 1u32;
    let mut last = f64::INFINITY;
    while parts <= ceiling {
        let replicas = ceiling.div_ceil(parts);
        if last / f64::from(replicas) >= MIN_RATIO {
            ladder.push(replicas);
            last = f64::from(replicas);
        }
        if replicas == 1 {
            break;
        }
        // The next k that makes the number smaller.
        parts = ceiling
            .div_ceil(replicas.saturating_sub(1))
            .max(parts.saturating_add(1));
    }
    ladder.reverse();
    ladder
}

/// Removes numbers outside the bounds from the ladder, and adds the lower bound.
pub(super) fn bound_ladder(ladder: &mut Vec<u32>, (fewest, most): (u32, u32)) {
    ladder.retain(|step| (fewest.saturating_add(1)..=most).contains(step));
    ladder.insert(0, fewest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_cut_the_ladder() {
        for (bounds, expected) in [
            ((1, 24), vec![1, 2, 3, 4, 5, 6, 8, 12, 24]),
            ((3, 10), vec![3, 4, 5, 6, 8]),
            ((7, 20), vec![7, 8, 12]),
            ((10, 10), vec![10]),
        ] {
            let mut ladder = build_ladder(24);
            bound_ladder(&mut ladder, bounds);
            assert_eq!(ladder, expected, "{bounds:?}");
        }
    }

    #[test]
    fn steps_are_even_and_apart() {
        assert_eq!(build_ladder(24), [1, 2, 3, 4, 5, 6, 8, 12, 24]);
        assert_eq!(build_ladder(23), [1, 2, 3, 4, 5, 6, 8, 12, 23]);
        assert_eq!(build_ladder(1), [1]);
        assert!(build_ladder(0).is_empty());
        for ceiling in 1..500 {
            let ladder = build_ladder(ceiling);
            assert_eq!(ladder.first(), Some(&1), "{ceiling}");
            assert_eq!(ladder.last(), Some(&ceiling), "{ceiling}");
            for pair in ladder.windows(2) {
                assert!(
                    f64::from(pair[1]) >= 1.119 * f64::from(pair[0]),
                    "{ladder:?}"
                );
            }
        }
    }
}
