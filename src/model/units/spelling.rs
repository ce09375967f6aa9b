//! Suggestions for misspelled words.

/// The candidate closest to `given`, ignoring case and separators; `None` if none is close.
#[must_use]
pub fn did_you_mean<'a>(
    given: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let given = letters(given);
    let mistakes_max = given.chars().count().div_euclid(3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&given, &letters(candidate)), candidate))
        .filter(|(mistakes, _)| *mistakes <= mistakes_max)
        .min()
        .map(|(_, candidate)| candidate)
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
}
