//! Selection of partitions by number.

use std::fmt;
use std::ops::RangeInclusive;

/// Syntax of a partition filter, for error messages.
pub const PARTITIONS: &str = "partition numbers and ranges, such as 0-5,9";

/// Set of partition numbers that count, applied to every topic of a target. It reduces lag and useful
/// parallelism alike. Displayed in canonical form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionFilter(Vec<(u32, u32)>);

impl PartitionFilter {
    /// Parses comma-separated numbers and inclusive ranges such as `0-5,9`.
    ///
    /// # Errors
    /// The reason why it is invalid.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut ranges = text
            .split(',')
            .map(|part| range(part.trim()))
            .collect::<Result<Vec<_>, _>>()?;
        ranges.sort_unstable();
        let mut joined: Vec<(u32, u32)> = Vec::new();
        for (first, last) in ranges {
            match joined.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => joined.push((first, last)),
            }
        }
        Ok(Self(joined))
    }

    /// Whether the partition is selected.
    #[must_use]
    pub fn contains(&self, partition: usize) -> bool {
        u32::try_from(partition).is_ok_and(|p| self.ranges().any(|range| range.contains(&p)))
    }

    /// Number of selected partitions of a topic with `partitions` partitions.
    #[must_use]
    pub fn count(&self, partitions: u32) -> u32 {
        let below = |(first, last): &(u32, u32)| {
            let end = last.saturating_add(1).min(partitions);
            end.saturating_sub(*first)
        };
        self.0.iter().map(below).fold(0, u32::saturating_add)
    }

    fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u32>> {
        self.0.iter().map(|(first, last)| *first..=*last)
    }
}

/// The partitions that count of a topic with `partitions` partitions: those of the filter, or all without one.
pub fn counted_partitions(
    filter: Option<&PartitionFilter>,
    partitions: usize,
) -> impl Iterator<Item = usize> {
    (0..partitions).filter(move |partition| filter.is_none_or(|f| f.contains(*partition)))
}

fn range(part: &str) -> Result<(u32, u32), String> {
    let number = |text: &str| {
        let digits = text.trim();
        // Kafka counts partitions in a signed 32-bit number.
        match digits.parse::<u32>() {
            Ok(n) if i32::try_from(n).is_ok() && digits.starts_with(|c: char| c != '+') => Ok(n),
            _ => Err(format!("{digits:?} is not a partition number")),
        }
    };
    let (first, last) = match part.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(part)?, number(part)?),
    };
    if first > last {
        return Err(format!("{part:?} ends before it begins"));
    }
    Ok((first, last))
}

impl fmt::Display for PartitionFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (first, last)) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match first == last {
                true => write!(f, "{first}"),
                false => write!(f, "{first}-{last}"),
            }?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_and_joins_ranges() {
        for (text, canonical) in [
            ("0-5,9", "0-5,9"),
            ("9, 0 - 5", "0-5,9"),
            ("3", "3"),
            ("0-2,2-4,5,7", "0-5,7"),
            ("2147483647", "2147483647"),
        ] {
            assert_eq!(PartitionFilter::parse(text).unwrap().to_string(), canonical);
        }
        for bad in [
            "",
            ",",
            "1,",
            "a",
            "-1",
            "5-2",
            "1-",
            "2147483648",
            "+1",
            "1-2-3",
        ] {
            assert!(PartitionFilter::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn the_count_equals_that_of_the_selected_partitions(
            ranges in proptest::collection::vec((0u32..40, 0u32..10), 1..6),
            partitions in 0u32..60,
        ) {
            let parts: Vec<_> = ranges.iter().map(|(a, n)| format!("{a}-{}", a + n)).collect();
            let filter = PartitionFilter::parse(&parts.join(",")).unwrap();
            let had = (0..partitions as usize).filter(|p| filter.contains(*p)).count();
            prop_assert_eq!(filter.count(partitions) as usize, had);
            prop_assert_eq!(PartitionFilter::parse(&filter.to_string()).unwrap(), filter);
        }
    }
}
