//! Counts with their nouns.

use std::fmt::Display;

/// A count with its noun, such as `1 group` or `2 groups`.
pub fn counted<N: Display + PartialEq + From<u8>>(count: N, noun: &str) -> String {
    let plural = if count == N::from(1) { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_has_a_singular_noun() {
        let all = [0u64, 1, 2, 21].map(|count| counted(count, "group"));
        assert_eq!(all, ["0 groups", "1 group", "2 groups", "21 groups"]);
        assert_eq!(counted(1usize, "HPA"), "1 HPA");
    }
}
