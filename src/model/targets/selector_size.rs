//! Limits of what one metric may select: the same for the metric of an HPA and for a request.

use crate::model::hpa::label;
use crate::model::hpa::selector::Selector;

/// Maximum number of consumer groups of one metric, counted per Kafka cluster.
pub const MAX_GROUPS: usize = 32;

/// Maximum number of topics that one metric names.
pub const MAX_TOPICS: usize = 256;

/// Why a selector is not read: one request would cost too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorTooLarge {
    #[error("the selector names {0} consumer groups: at most {MAX_GROUPS} per metric")]
    Groups(usize),
    #[error("the selector names {0} topics: at most {MAX_TOPICS} per metric")]
    Topics(usize),
}

/// Checks how much a selector selects on this number of Kafka clusters.
///
/// # Errors
/// The limit that it exceeds.
pub fn check_size(selector: &Selector, clusters: usize) -> Result<(), SelectorTooLarge> {
    let count = |key| selector.values(key).map_or(0, <[String]>::len);
    let groups = match selector.mentions(label::TARGET) {
        true => count(label::TARGET),
        false => count(label::GROUP).saturating_mul(clusters),
    };
    let topics = count(label::TOPIC);
    if groups > MAX_GROUPS {
        return Err(SelectorTooLarge::Groups(groups));
    }
    if topics > MAX_TOPICS {
        return Err(SelectorTooLarge::Topics(topics));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_groups_on_every_cluster_and_topics_once() {
        let list = |count: usize| {
            let names: Vec<_> = (0..count).map(|i| format!("n{i}")).collect();
            names.join(",")
        };
        let groups = |count| Err(SelectorTooLarge::Groups(count));
        for (selector, clusters, expected) in [
            (String::new(), 1, Ok(())),
            (format!("group in ({})", list(32)), 1, Ok(())),
            (format!("group in ({})", list(33)), 1, groups(33)),
            (format!("group in ({})", list(16)), 2, Ok(())),
            (format!("group in ({})", list(17)), 2, groups(34)),
            (format!("target in ({})", list(32)), 2, Ok(())),
            (format!("target in ({})", list(33)), 1, groups(33)),
            (format!("group=g,topic in ({})", list(256)), 9, Ok(())),
            (
                format!("group=g,topic in ({})", list(257)),
                1,
                Err(SelectorTooLarge::Topics(257)),
            ),
        ] {
            let selector = Selector::parse(&selector).unwrap();
            assert_eq!(check_size(&selector, clusters), expected, "{selector}");
        }
    }
}
