//! Lists of names that tenants choose, short whatever their number.

/// Maximum number of names that a list shows.
const MAX_SHOWN_NAMES: usize = 3;

/// The first names, and how many more there are: `a, b, c and 4 more`.
#[must_use]
pub fn short_list(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(MAX_SHOWN_NAMES);
    let first = Vec::from_iter(names.take(MAX_SHOWN_NAMES)).join(", ");
    match more {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_three_names_and_counts_the_others() {
        for (count, expected) in [
            (0, ""),
            (1, "n0"),
            (3, "n0, n1, n2"),
            (4, "n0, n1, n2 and 1 more"),
            (300, "n0, n1, n2 and 297 more"),
        ] {
            let names = (0..count).map(|i| format!("n{i}"));
            assert_eq!(short_list(names), expected);
        }
    }
}
