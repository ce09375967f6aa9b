//! Which namespaces may name which consumer groups and topics: so that one tenant of the cluster
//! does not read another's lag.

use super::WatchKey;
use crate::model::units::glob::Glob;

/// What some namespaces may name. An empty list of patterns fits everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// The namespaces.
    pub namespaces: Vec<Glob>,
    /// The Kafka clusters.
    pub clusters: Vec<Glob>,
    /// The consumer groups.
    pub groups: Vec<Glob>,
    /// The topics.
    pub topics: Vec<Glob>,
}

impl Grant {
    fn is_for(&self, namespace: &str, interest: &WatchKey) -> bool {
        any(&self.namespaces, namespace)
            && any(&self.clusters, interest.cluster.as_str())
            && any(&self.groups, interest.group.as_str())
    }

    fn covers_topics(&self, interest: &WatchKey) -> bool {
        let unbounded = self.topics.is_empty() || self.topics.iter().any(Glob::is_any);
        let mut named = interest.topics.iter();
        unbounded
            || (!interest.topics.is_empty() && named.all(|topic| any(&self.topics, topic.as_str())))
    }
}

fn any(patterns: &[Glob], name: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(name))
}

/// All grants; without any, every namespace may name everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tenancy(pub Vec<Grant>);

/// Why a namespace may not ask.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TenancyError {
    /// No grant is for the group.
    #[error(
        "namespace {namespace:?} may not ask for group {group:?} on Kafka cluster {cluster:?}: \
         no entry of tenancy in the configuration of lagwise lets it"
    )]
    Group {
        /// The namespace.
        namespace: String,
        /// The group.
        group: String,
        /// The cluster.
        cluster: String,
    },
    /// A grant is for the group, but for some topics only, and others were or might be meant.
    #[error(
        "namespace {namespace:?} may ask for group {group:?} on some topics only: name them with \
         the label topic, as tenancy in the configuration of lagwise allows"
    )]
    Topics {
        /// The namespace.
        namespace: String,
        /// The group.
        group: String,
    },
}

impl Tenancy {
    /// Whether the namespace may ask for all of these; each by one grant.
    ///
    /// # Errors
    /// The first that it may not ask for.
    pub fn check<'i>(
        &self,
        namespace: &str,
        interests: impl IntoIterator<Item = &'i WatchKey>,
    ) -> Result<(), TenancyError> {
        if self.0.is_empty() {
            return Ok(());
        }
        for interest in interests {
            let mut grants = self
                .0
                .iter()
                .filter(|g| g.is_for(namespace, interest))
                .peekable();
            if grants.peek().is_none() {
                return Err(TenancyError::Group {
                    namespace: namespace.to_owned(),
                    group: interest.group.to_string(),
                    cluster: interest.cluster.to_string(),
                });
            }
            if !grants.any(|grant| grant.covers_topics(interest)) {
                return Err(TenancyError::Topics {
                    namespace: namespace.to_owned(),
                    group: interest.group.to_string(),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, fits) in [
            ("shop", "shop", true),
            ("shop", "shop2", false),
            ("shop*", "shop", true),
            ("shop*", "shop-eu", true),
            ("shop*", "my-shop", false),
            ("*shop", "my-shop", true),
            ("*shop", "shop-1", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*aa*aa*", "aaa", false),
            ("*aa*aa*", "aaaa", true),
            ("*", "", true),
            ("**", "x", true),
            ("", "", true),
            ("", "x", false),
            ("größe*", "größe.1", true),
        ] {
            assert_eq!(Glob::new(pattern).matches(name), fits, "{pattern} {name}");
        }
        assert!(Glob::new("*").is_any() && Glob::new("**").is_any());
        assert!(!Glob::new("").is_any() && !Glob::new("a*").is_any());
    }

    fn interest(cluster: &str, group: &str, topics: &[&str]) -> WatchKey {
        WatchKey {
            cluster: cluster.into(),
            group: group.into(),
            topics: topics.iter().map(|t| (*t).into()).collect(),
        }
    }

    fn list(patterns: &[&str]) -> Vec<Glob> {
        patterns.iter().copied().map(Glob::new).collect()
    }

    #[test]
    fn grants() {
        let tenancy = Tenancy(vec![
            Grant {
                namespaces: list(&["shop", "shop-*"]),
                clusters: list(&["main"]),
                groups: list(&["shop.*"]),
                topics: list(&["orders", "pay*"]),
            },
            Grant {
                namespaces: list(&["platform"]),
                ..Grant::default()
            },
        ]);
        let group = |code| match code {
            Ok(()) => "ok",
            Err(TenancyError::Group { .. }) => "group",
            Err(TenancyError::Topics { .. }) => "topics",
        };
        for (namespace, wanted, expected) in [
            ("platform", interest("any", "any", &[]), "ok"),
            ("shop", interest("main", "shop.a", &["orders"]), "ok"),
            (
                "shop-eu",
                interest("main", "shop.a", &["orders", "payments"]),
                "ok",
            ),
            (
                "shop",
                interest("main", "shop.a", &["orders", "hr"]),
                "topics",
            ),
            // Every topic of the group would be more than what it may see.
            ("shop", interest("main", "shop.a", &[]), "topics"),
            ("shop", interest("main", "hr.a", &["orders"]), "group"),
            ("shop", interest("other", "shop.a", &["orders"]), "group"),
            ("hr", interest("main", "shop.a", &["orders"]), "group"),
        ] {
            let found = tenancy.check(namespace, std::slice::from_ref(&wanted));
            assert_eq!(group(found), expected, "{namespace} {wanted:?}");
            assert_eq!(Tenancy::default().check(namespace, &[wanted]), Ok(()));
        }
        let mixed = [
            interest("main", "shop.a", &["orders"]),
            interest("main", "hr", &["orders"]),
        ];
        assert_eq!(group(tenancy.check("shop", &mixed)), "group");
    }

    proptest! {
        #[test]
        fn fits_as_a_naive_match_does(pattern in "[ab*]{0,6}", name in "[ab]{0,8}") {
            fn naive(pattern: &[u8], name: &[u8]) -> bool {
                match (pattern.split_first(), name.split_first()) {
                    (None, None) => true,
                    (Some((b'*', rest)), _) if naive(rest, name) => true,
                    (Some((b'*', _)), Some((_, after))) => naive(pattern, after),
                    (Some((a, rest)), Some((b, after))) => a == b && naive(rest, after),
                    _ => false,
                }
            }
            let expected = naive(pattern.as_bytes(), name.as_bytes());
            prop_assert_eq!(Glob::new(pattern).matches(&name), expected);
        }
    }
}
