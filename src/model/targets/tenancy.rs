//! Tenancy: the namespaces that may use a consumer group and its topics, so that one tenant of the cluster does not
//! read another's lag.

use super::watch_key::WatchKey;
use crate::model::units::glob::Glob;

/// Groups and topics that some namespaces may use. An empty list of patterns matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    pub namespaces: Vec<Glob>,
    pub clusters: Vec<Glob>,
    pub groups: Vec<Glob>,
    pub topics: Vec<Glob>,
}

impl Grant {
    fn is_for(&self, namespace: &str, key: &WatchKey) -> bool {
        any(&self.namespaces, namespace)
            && any(&self.clusters, key.cluster.as_str())
            && any(&self.groups, key.group.as_str())
    }

    fn covers_topics(&self, key: &WatchKey) -> bool {
        let unbounded = self.topics.is_empty() || self.topics.iter().any(Glob::is_any);
        let mut named = key.topics.iter();
        unbounded
            || (!key.topics.is_empty() && named.all(|topic| any(&self.topics, topic.as_str())))
    }
}

fn any(patterns: &[Glob], name: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(name))
}

/// All grants; without any, every namespace may use everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tenancy(pub Vec<Grant>);

/// Why a namespace may not use a group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TenancyError {
    /// No grant is for the group.
    #[error(
        "namespace {namespace:?} may not ask for group {group:?} on Kafka cluster {cluster:?}: \
         no entry of tenancy in the configuration of lagwise lets it"
    )]
    Group {
        namespace: String,
        group: String,
        cluster: String,
    },
    /// A grant covers some topics of the group only, and the request names others or none.
    #[error(
        "namespace {namespace:?} may ask for group {group:?} on some topics only: name them with \
         the label topic, as tenancy in the configuration of lagwise allows"
    )]
    Topics { namespace: String, group: String },
}

impl Tenancy {
    /// Checks that the namespace may use all of these keys. One grant has to cover each key completely.
    ///
    /// # Errors
    /// The first key that it may not use.
    pub fn check<'i>(
        &self,
        namespace: &str,
        keys: impl IntoIterator<Item = &'i WatchKey>,
    ) -> Result<(), TenancyError> {
        if self.0.is_empty() {
            return Ok(());
        }
        for key in keys {
            let mut grants = self
                .0
                .iter()
                .filter(|g| g.is_for(namespace, key))
                .peekable();
            if grants.peek().is_none() {
                return Err(TenancyError::Group {
                    namespace: namespace.to_owned(),
                    group: key.group.to_string(),
                    cluster: key.cluster.to_string(),
                });
            }
            if !grants.any(|grant| grant.covers_topics(key)) {
                return Err(TenancyError::Topics {
                    namespace: namespace.to_owned(),
                    group: key.group.to_string(),
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
    fn a_pattern_matches_whole_names() {
        for (pattern, name, matches) in [
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
            assert_eq!(
                Glob::new(pattern).matches(name),
                matches,
                "{pattern} {name}"
            );
        }
        assert!(Glob::new("*").is_any() && Glob::new("**").is_any());
        assert!(!Glob::new("").is_any() && !Glob::new("a*").is_any());
    }

    fn key(cluster: &str, group: &str, topics: &[&str]) -> WatchKey {
        WatchKey {
            cluster: cluster.into(),
            group: group.into(),
            topics: topics.iter().map(|t| (*t).into()).collect(),
        }
    }

    fn globs(patterns: &[&str]) -> Vec<Glob> {
        patterns.iter().copied().map(Glob::new).collect()
    }

    #[test]
    fn a_grant_covers_its_groups_and_topics() {
        let tenancy = Tenancy(vec![
            Grant {
                namespaces: globs(&["shop", "shop-*"]),
                clusters: globs(&["main"]),
                groups: globs(&["shop.*"]),
                topics: globs(&["orders", "pay*"]),
            },
            Grant {
                namespaces: globs(&["platform"]),
                ..Grant::default()
            },
        ]);
        let group = |code| match code {
            Ok(()) => "ok",
            Err(TenancyError::Group { .. }) => "group",
            Err(TenancyError::Topics { .. }) => "topics",
        };
        for (namespace, query, expected) in [
            ("platform", key("any", "any", &[]), "ok"),
            ("shop", key("main", "shop.a", &["orders"]), "ok"),
            (
                "shop-eu",
                key("main", "shop.a", &["orders", "payments"]),
                "ok",
            ),
            ("shop", key("main", "shop.a", &["orders", "hr"]), "topics"),
            // The metric of all topics of the group would include topics that the namespace may not see.
            ("shop", key("main", "shop.a", &[]), "topics"),
            ("shop", key("main", "hr.a", &["orders"]), "group"),
            ("shop", key("other", "shop.a", &["orders"]), "group"),
            ("hr", key("main", "shop.a", &["orders"]), "group"),
        ] {
            let found = tenancy.check(namespace, std::slice::from_ref(&query));
            assert_eq!(group(found), expected, "{namespace} {query:?}");
            assert_eq!(Tenancy::default().check(namespace, &[query]), Ok(()));
        }
        let mixed = [
            key("main", "shop.a", &["orders"]),
            key("main", "hr", &["orders"]),
        ];
        assert_eq!(group(tenancy.check("shop", &mixed)), "group");
    }

    proptest! {
        #[test]
        fn a_pattern_matches_as_a_naive_match_does(pattern in "[ab*]{0,6}", name in "[ab]{0,8}") {
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
