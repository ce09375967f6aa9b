//! An HPA's annotations `lagwise.dev/...` -> settings of its metrics, and what is odd about them.
//!
//! `lagwise.dev/KEY` is for every metric of ours on the HPA. `lagwise.dev/KEY.NAME` is for those
//! whose selector names the group or the configured target `NAME`, and goes before it. A `NAME` that
//! does not fit (the part of an annotation's key after the slash has at most 63 characters) is given
//! a short one as a target of the configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use super::cap_mode::CapMode;
use super::{By, Settings, THREADS_MAX, TopicChoice};
use crate::model::findings::{Finding, FindingCode, suggestion};
use crate::model::settings::annotation_keys::{CEILING, PREFIX, USER_MAX, ZEROED_SINCE};
use crate::model::settings::cap_mode::NO_CEILING;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::names;
use crate::model::units::newtypes::{GroupId, Isolation, Lag, OffsetReset, TopicName};
use crate::model::units::partition_filter::{PARTITIONS, PartitionFilter};
use crate::model::units::quantity::Milli;
use crate::model::units::spelling::did_you_mean;
use crate::model::units::topic_pattern::{PATTERN, TopicPattern};

/// The annotations that lagwise writes itself, which set nothing.
const OWN: [&str; 3] = [CEILING, USER_MAX, ZEROED_SINCE];

/// What an annotation's value is written into, and how it is read.
struct Key {
    name: &'static str,
    allowed: &'static str,
    read: fn(&str, &mut Annotated) -> Option<()>,
}

/// What is set for one metric of ours, or for one group of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotated {
    /// The settings.
    pub settings: Settings,
    /// The group that is meant, where its name is no label value.
    pub group: Option<GroupId>,
    topics: Option<BTreeSet<TopicName>>,
    pattern: Option<TopicPattern>,
}

const DURATION: &str = "a duration with its unit, such as 90s, 10m or 7d";
const FLAG: &str = "true, false";
const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

const KEYS: [Key; 22] = [
    Key {
        name: "lag-per-replica",
        allowed: "a quantity above zero, such as 100 or 5k",
        read: |text, to| {
            let lag = Milli::parse(text).filter(|lag| *lag > Milli::default())?;
            to.settings.lag_per_replica = Some(lag);
            Some(())
        },
    },
    Key {
        name: "threads-per-replica",
        allowed: "a whole number from 1 to 10000",
        read: |text, to| {
            let threads = text
                .parse()
                .ok()
                .filter(|n: &NonZeroU32| n.get() <= THREADS_MAX)?;
            to.settings.threads = Some(threads);
            Some(())
        },
    },
    Key {
        name: "even",
        allowed: FLAG,
        read: |text, to| {
            to.settings.even = Some(flag(text)?);
            Some(())
        },
    },
    Key {
        name: "by",
        allowed: "partitions, lagging",
        read: |text, to| {
            to.settings.by = Some(match text {
                "partitions" => By::Partitions,
                "lagging" => By::Lagging,
                _ => return None,
            });
            Some(())
        },
    },
    Key {
        name: "topics",
        allowed: "topics between commas",
        read: |text, to| {
            let one = |topic: &str| {
                let name = names::topic(topic.trim()).ok()?;
                (!name.is_empty()).then(|| TopicName::from(name))
            };
            to.topics = Some(text.split(',').map(one).collect::<Option<_>>()?);
            Some(())
        },
    },
    Key {
        name: "topic-regex",
        allowed: PATTERN,
        read: |text, to| {
            to.pattern = Some(TopicPattern::parse(text).ok()?);
            Some(())
        },
    },
    Key {
        name: "partitions",
        allowed: PARTITIONS,
        read: |text, to| {
            to.settings.partitions = Some(PartitionFilter::parse(text).ok()?);
            Some(())
        },
    },
    Key {
        name: "offset-reset",
        allowed: "latest, earliest",
        read: |text, to| {
            to.settings.reset = Some(match text {
                "latest" => OffsetReset::Latest,
                "earliest" => OffsetReset::Earliest,
                _ => return None,
            });
            Some(())
        },
    },
    Key {
        name: "isolation",
        allowed: "read_uncommitted, read_committed",
        read: |text, to| {
            to.settings.isolation = Some(match text {
                "read_uncommitted" => Isolation::ReadUncommitted,
                "read_committed" => Isolation::ReadCommitted,
                _ => return None,
            });
            Some(())
        },
    },
    Key {
        name: "residual-max",
        allowed: "a whole number of messages",
        read: |text, to| {
            to.settings.lag.residual_max = Some(Lag(text.parse().ok()?));
            Some(())
        },
    },
    Key {
        name: "residual-after",
        allowed: DURATION,
        read: |text, to| {
            to.settings.lag.residual_after = Some(duration(text)?);
            Some(())
        },
    },
    Key {
        name: "stuck-after",
        allowed: DURATION,
        read: |text, to| {
            to.settings.lag.stuck_after = Some(duration(text)?);
            Some(())
        },
    },
    Key {
        name: "stuck-counts",
        allowed: FLAG,
        read: |text, to| {
            to.settings.lag.stuck_counts = Some(flag(text)?);
            Some(())
        },
    },
    Key {
        name: "forget-after",
        allowed: DURATION,
        read: |text, to| {
            to.settings.lag.forget_after = Some(duration(text)?);
            Some(())
        },
    },
    Key {
        name: "fallback-replicas",
        allowed: "a whole number from 1",
        read: |text, to| {
            to.settings.fallback_replicas = Some(text.parse().ok()?);
            Some(())
        },
    },
    Key {
        name: "fallback-after",
        allowed: DURATION,
        read: |text, to| {
            to.settings.fallback_after = Some(duration(text)?);
            Some(())
        },
    },
    Key {
        name: "scale-to-zero",
        allowed: FLAG,
        read: |text, to| {
            to.settings.scale_to_zero = Some(flag(text)?);
            Some(())
        },
    },
    Key {
        name: "cooldown",
        allowed: DURATION,
        read: |text, to| {
            to.settings.cooldown = Some(duration(text)?);
            Some(())
        },
    },
    Key {
        name: "paused",
        allowed: FLAG,
        // Read where something is written (see `cap`), as the next two: it sets nothing for a metric.
        read: |text, _| flag(text).map(drop),
    },
    Key {
        name: "cap",
        allowed: "advise, enforce",
        read: |text, _| CapMode::parse(text).map(drop),
    },
    Key {
        name: "max-replicas",
        allowed: "a whole number from 1 to 2147483647",
        read: |text, _| {
            let most = text.parse().ok()?;
            (1..=NO_CEILING).contains(&most).then_some(())
        },
    },
    Key {
        name: "consumer-group",
        allowed: names::GROUP,
        read: |text, to| {
            let name = names::group(text).ok().filter(|name| !name.is_empty())?;
            to.group = Some(GroupId::from(name));
            Some(())
        },
    },
];

fn flag(text: &str) -> Option<bool> {
    text.parse().ok()
}

fn duration(text: &str) -> Option<Duration> {
    let duration = humantime::parse_duration(text).ok()?;
    (duration > Duration::ZERO && duration <= DURATION_MAX).then_some(duration)
}

/// An HPA's annotations of ours, read.
#[derive(Debug, Default)]
pub struct Annotations {
    every: Annotated,
    named: BTreeMap<String, Annotated>,
    keys: BTreeMap<String, String>,
}

impl Annotations {
    /// Reads those that begin with [`PREFIX`]. What cannot be used is a finding about `hpa`, and the
    /// default applies.
    #[must_use]
    pub fn read(
        hpa: &HpaKey,
        annotations: &BTreeMap<String, String>,
        findings: &mut BTreeSet<Finding>,
    ) -> Self {
        let mut read = Self::default();
        let ours = annotations
            .iter()
            .filter(|(key, _)| !OWN.contains(&key.as_str()))
            .filter_map(|(key, value)| Some((key, key.strip_prefix(PREFIX)?, value)));
        for (annotation, rest, value) in ours {
            // No key of ours has a dot, and a group's name may.
            let (name, suffix) = match rest.split_once('.') {
                Some((name, suffix)) => (name, Some(suffix)),
                None => (rest, None),
            };
            let Some(key) = KEYS.iter().find(|key| key.name == name) else {
                let meant = did_you_mean(name, KEYS.iter().map(|key| key.name));
                let message = format!(
                    "unknown annotation {annotation}{}",
                    suggestion(PREFIX, meant)
                );
                findings.insert(Finding::new(FindingCode::UnknownAnnotation, hpa, message));
                continue;
            };
            let into = match suffix {
                Some(suffix) => {
                    read.keys.insert(suffix.to_owned(), annotation.clone());
                    read.named.entry(suffix.to_owned()).or_default()
                }
                None => &mut read.every,
            };
            if (key.read)(value.trim(), into).is_none() {
                let message = format!(
                    "annotation {annotation}: {:?} is invalid, so the default applies; allowed: {}",
                    shortened(value),
                    key.allowed
                );
                findings.insert(Finding::new(FindingCode::BadAnnotation, hpa, message));
            }
        }
        let all = read.named.values_mut().chain([&mut read.every]);
        for annotated in all {
            if annotated.topics.is_some() && annotated.pattern.is_some() {
                findings.insert(Finding::new(
                    FindingCode::TopicsTwice,
                    hpa,
                    "annotations lagwise.dev/topics and lagwise.dev/topic-regex are both set; only the list of topics applies",
                ));
            }
            let named = annotated.topics.take().map(TopicChoice::Named);
            let matching = annotated.pattern.take().map(TopicChoice::Matching);
            annotated.settings.topics = named.or(matching);
        }
        read
    }

    /// What is set for a metric, of which the selector names the group or target `name`.
    #[must_use]
    pub fn of(&self, name: Option<&str>) -> Annotated {
        let Some(named) = name.and_then(|name| self.named.get(name)) else {
            return self.every.clone();
        };
        let named = named.clone();
        Annotated {
            settings: named.settings.over(&self.every.settings),
            group: named.group.or_else(|| self.every.group.clone()),
            ..Annotated::default()
        }
    }

    /// The annotations for names that are not among these.
    pub fn strays<'a>(&'a self, names: &'a BTreeSet<String>) -> impl Iterator<Item = &'a String> {
        let strays = self
            .keys
            .iter()
            .filter(|(suffix, _)| !names.contains(*suffix));
        strays.map(|(_, annotation)| annotation)
    }

    /// Whether some metric is to have its workload scaled to zero.
    #[must_use]
    pub fn scale_to_zero(&self) -> bool {
        let mut all = self.named.values().chain([&self.every]);
        all.any(|annotated| annotated.settings.scale_to_zero())
    }

    /// Whether a fallback's time is set and its replicas are not, for the metrics of `name`.
    #[must_use]
    pub fn lacks_fallback_replicas(&self, name: Option<&str>) -> bool {
        let settings = self.of(name).settings;
        settings.fallback_after.is_some() && settings.fallback_replicas.is_none()
    }
}

/// The beginning of a value, so that no finding grows with it.
fn shortened(value: &str) -> String {
    let mut short: String = value.chars().take(60).collect();
    if short.len() < value.len() {
        short.push_str("...");
    }
    short
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(annotations: &[(&str, &str)]) -> (Annotations, Vec<String>) {
        let map = annotations
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let mut findings = BTreeSet::new();
        let read = Annotations::read(&HpaKey::new("shop", "a"), &map, &mut findings);
        (read, findings.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn every_key_is_read() {
        let (annotations, findings) = read(&[
            ("lagwise.dev/lag-per-replica", "5k"),
            ("lagwise.dev/threads-per-replica", "4"),
            ("lagwise.dev/even", "true"),
            ("lagwise.dev/by", "lagging"),
            ("lagwise.dev/topics", "orders, payments"),
            ("lagwise.dev/topic-regex.b", "orders-.*"),
            ("lagwise.dev/partitions", "0-5,9"),
            ("lagwise.dev/offset-reset", "earliest"),
            ("lagwise.dev/isolation", "read_committed"),
            ("lagwise.dev/residual-max", "0"),
            ("lagwise.dev/residual-after", "1m"),
            ("lagwise.dev/stuck-after", "2m"),
            ("lagwise.dev/stuck-counts", "false"),
            ("lagwise.dev/forget-after", "7d"),
            ("lagwise.dev/fallback-replicas", "3"),
            ("lagwise.dev/fallback-after", "15m"),
            ("lagwise.dev/scale-to-zero", "true"),
            ("lagwise.dev/cooldown", "90s"),
            ("lagwise.dev/cap", "enforce"),
            ("lagwise.dev/max-replicas", "30"),
            ("lagwise.dev/ceiling", "6"),
            ("lagwise.dev/user-max-replicas", "30"),
            ("lagwise.dev/consumer-group", "Orders Group/1"),
            ("lagwise.dev/zeroed-since", "2026-01-01T00:00:00Z"),
            ("other.dev/even", "maybe"),
            ("kubectl.kubernetes.io/last-applied-configuration", "{}"),
        ]);
        assert!(findings.is_empty(), "{findings:?}");
        let Annotated {
            settings, group, ..
        } = annotations.of(None);
        assert_eq!(settings.lag_per_replica, Some(Milli::from_units(5000)));
        assert_eq!((settings.threads().get(), settings.even()), (4, true));
        assert_eq!(settings.by(), By::Lagging);
        assert_eq!(
            (settings.scale_to_zero(), settings.cooldown()),
            (true, Duration::from_secs(90))
        );
        assert_eq!(
            settings.named_topics(),
            ["orders".into(), "payments".into()].into()
        );
        assert_eq!(settings.partitions.unwrap().to_string(), "0-5,9");
        assert_eq!(settings.reset, Some(OffsetReset::Earliest));
        assert_eq!(settings.isolation, Some(Isolation::ReadCommitted));
        assert_eq!(settings.lag.residual_max, Some(Lag(0)));
        assert_eq!(settings.lag.residual_after, Some(Duration::from_secs(60)));
        assert_eq!(settings.lag.stuck_after, Some(Duration::from_secs(120)));
        assert_eq!(settings.lag.stuck_counts, Some(false));
        assert_eq!(
            settings.lag.forget_after,
            Some(Duration::from_secs(7 * 86_400))
        );
        assert_eq!(settings.fallback_replicas.map(NonZeroU32::get), Some(3));
        assert_eq!(settings.fallback_after, Some(Duration::from_secs(900)));
        assert_eq!(group, Some("Orders Group/1".into()));
        let of_b = annotations.of(Some("b")).settings;
        assert_eq!(of_b.pattern().unwrap().as_str(), "orders-.*");
    }

    #[test]
    fn what_names_a_group_goes_before_what_is_for_all() {
        let (annotations, findings) = read(&[
            ("lagwise.dev/even", "true"),
            ("lagwise.dev/threads-per-replica", "2"),
            ("lagwise.dev/even.my.group_v2", "false"),
        ]);
        assert!(findings.is_empty());
        let even = |name| {
            let settings = annotations.of(name).settings;
            (settings.even(), settings.threads().get())
        };
        assert_eq!(even(None), (true, 2));
        assert_eq!(even(Some("other")), (true, 2));
        assert_eq!(even(Some("my.group_v2")), (false, 2));
        let names: BTreeSet<String> = ["other".to_owned()].into();
        assert_eq!(
            annotations.strays(&names).collect::<Vec<_>>(),
            ["lagwise.dev/even.my.group_v2"]
        );
    }

    #[test]
    fn what_cannot_be_used_is_a_finding_and_the_default_applies() {
        for (key, value) in [
            ("threads-per-replica", "0"),
            ("threads-per-replica", "-1"),
            ("threads-per-replica", "10001"),
            ("even", "yes"),
            ("by", "lag"),
            ("topics", ""),
            ("topics", "a,,b"),
            ("topics", "a/b"),
            ("topic-regex", "("),
            ("partitions", "5-2"),
            ("offset-reset", "smallest"),
            ("isolation", "committed"),
            ("residual-max", "many"),
            ("residual-after", "5"),
            ("stuck-after", "0s"),
            ("forget-after", "999y"),
            ("fallback-replicas", "0"),
            ("fallback-after", ""),
            ("consumer-group", ""),
            ("scale-to-zero", "1"),
            ("paused", "yes"),
            ("cap", "enforced"),
            ("max-replicas", "0"),
            ("cooldown", "300"),
        ] {
            let (annotations, findings) = read(&[(&format!("{PREFIX}{key}"), value)]);
            let [finding] = findings.as_slice() else {
                panic!("{key}: {findings:?}");
            };
            let named = format!("annotation lagwise.dev/{key}: {value:?}");
            assert!(finding.contains(&named), "{finding}");
            assert_eq!(annotations.of(None), Annotated::default(), "{key}");
        }
        let (_, findings) = read(&[("lagwise.dev/even", &"x".repeat(100_000))]);
        assert!(findings[0].len() < 300);
    }

    #[test]
    fn an_unknown_key_is_a_finding_that_says_what_was_meant() {
        for (key, meant) in [
            ("lagwise.dev/evenn", " (did you mean lagwise.dev/even?)"),
            (
                "lagwise.dev/threads_per_replica",
                " (did you mean lagwise.dev/threads-per-replica?)",
            ),
            ("lagwise.dev/evn.g", " (did you mean lagwise.dev/even?)"),
            ("lagwise.dev/", ""),
            ("lagwise.dev/colour", ""),
        ] {
            let (_, findings) = read(&[(key, "true")]);
            assert_eq!(findings.len(), 1);
            assert!(
                findings[0].ends_with(&format!("{key}{meant}")),
                "{findings:?}"
            );
        }
    }

    #[test]
    fn a_list_goes_before_a_pattern() {
        let (annotations, findings) = read(&[
            ("lagwise.dev/topics", "a"),
            ("lagwise.dev/topic-regex", "b.*"),
        ]);
        assert_eq!(findings.len(), 1);
        assert_eq!(
            annotations.of(None).settings.named_topics(),
            ["a".into()].into()
        );
    }

    proptest! {
        #[test]
        fn no_annotation_makes_it_panic(
            pairs in proptest::collection::btree_map("(lagwise\\.dev/)?[a-z.-]{0,24}", "\\PC{0,20}", 0..6),
            key in 0usize..KEYS.len(), value in "\\PC{0,20}|[0-9a-z,_ -]{0,12}",
        ) {
            let mut pairs = pairs;
            pairs.insert(format!("{PREFIX}{}", KEYS[key].name), value);
            let mut findings = BTreeSet::new();
            let read = Annotations::read(&HpaKey::new("n", "h"), &pairs, &mut findings);
            let _ = read.of(Some("g"));
            prop_assert!(findings.iter().all(|f| !f.to_string().is_empty()));
        }
    }
}
