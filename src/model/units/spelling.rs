//! Suggestions for misspelled words.

/// The candidate closest to `given`, ignoring case and separators; `None` if none is close.
#[must_use]
pub fn did_you_mean<'a>(
    given: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    closest(given, candidates, 1).pop()
}

/// Returns at most `most` candidates that are close to `given`, ignoring case and separators, the closest first.
#[must_use]
pub fn closest<'a>(
    given: &str,
    candidates: impl IntoIterator<Item = &'a str>,
    most: usize,
) -> Vec<&'a str> {
    let given = letters(given);
    let length = given.chars().count();
    let mistakes_max = length.div_euclid(3).max(1);
    let mistakes = |candidate: &str| {
        let candidate = letters(candidate);
        // A cheap test first: the distance takes time in proportion to both lengths.
        let is_close = candidate.chars().count().abs_diff(length) <= mistakes_max;
        let mistakes = is_close.then(|| strsim::osa_distance(&given, &candidate));
        mistakes.filter(|mistakes| *mistakes <= mistakes_max)
    };
    let candidates = candidates.into_iter();
    let close = candidates.filter_map(|candidate| Some((mistakes(candidate)?, candidate)));
    let mut close: Vec<_> = close.collect();
    close.sort_unstable();
    close.truncate(most);
    close.into_iter().map(|(_, candidate)| candidate).collect()
}

/// Normalises a word, so that `maxStaleness`, `max-staleness` and `max_staleness` are equal.
fn letters(word: &str) -> String {
    word.chars()
        .filter(|c| c.is_alphanumeric() || *c == '.')
        .flat_map(char::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_similar_words_only() {
        let keys = ["interval", "deadline", "max_staleness"];
        for (given, meant) in [
            ("intervall", Some("interval")),
            ("inetrval", Some("interval")),
            ("maxStaleness", Some("max_staleness")),
            ("max-staleness", Some("max_staleness")),
            ("dead_line", Some("deadline")),
            ("timeout", None),
            ("", None),
        ] {
            assert_eq!(did_you_mean(given, keys), meant, "{given}");
        }
    }

    #[test]
    fn the_closest_come_first() {
        let groups = ["orders-eu", "orders", "Orders.v2", "payments", "order"];
        assert_eq!(closest("ordres", groups, 9), ["orders", "order"]);
        assert_eq!(closest("orders_eu", groups, 1), ["orders-eu"]);
    }
}
