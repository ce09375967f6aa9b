//! What a person is told of an HPA by an event on it: once while its cause lasts, and never more than
//! so many in a time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::incidents::{LagEvent, LagEventKind};
use crate::model::findings::{Finding, FindingSubject, Severity};
use crate::model::hpa::key::HpaKey;
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::{Origin, Targets};
use crate::model::units::newtypes::{ClusterName, GroupId, TopicName};

/// Why a person is told something. The text of each stays the same while the cause does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A finding; it lasts until it is none any more.
    Finding(Finding),
    /// Something befell the lag of a group that the HPA scales by.
    Lag {
        /// The cluster.
        cluster: ClusterName,
        /// The group.
        group: GroupId,
        /// The topic; `None` where it is about the whole group.
        topic: Option<TopicName>,
        /// What.
        what: Befallen,
    },
    /// `maxReplicas` is held to this ceiling, a higher one than before.
    CapRaised(u32),
    /// `maxReplicas` is held to this ceiling, a lower one than before or the first.
    CapLowered(u32),
    /// `maxReplicas` is the user's alone again.
    CapReleased,
    /// Somebody keeps undoing the cap.
    CapFought,
    /// The workload was set to zero replicas.
    ScaledToZero,
    /// The workload was woken with so many replicas.
    Woken(u32),
}

/// What befell the lag of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Befallen {
    /// Retention overtook the group.
    OffsetsLost,
    /// The topic was recreated or truncated under the group's commits.
    TopicRecreated,
    /// The group's commits vanished.
    CommitsVanished,
    /// No partition that is behind gets any further.
    GroupStuck,
}

impl Befallen {
    /// `None` for what concerns single partitions only.
    fn of(kind: LagEventKind) -> Option<Self> {
        match kind {
            LagEventKind::Lost(_) => Some(Befallen::OffsetsLost),
            LagEventKind::Replaced => Some(Befallen::TopicRecreated),
            LagEventKind::Forgotten => Some(Befallen::CommitsVanished),
            LagEventKind::GroupStuck => Some(Befallen::GroupStuck),
            LagEventKind::Stuck => None,
        }
    }
}

impl Cause {
    /// The event's reason, in CamelCase as Kubernetes has them.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Cause::Finding(finding) => finding.kind().reason(),
            Cause::Lag { what, .. } => match what {
                Befallen::OffsetsLost => "OffsetsLost",
                Befallen::TopicRecreated => "TopicRecreated",
                Befallen::CommitsVanished => "CommitsVanished",
                Befallen::GroupStuck => "GroupStuck",
            },
            Cause::CapRaised(_) => "CapRaised",
            Cause::CapLowered(_) => "CapLowered",
            Cause::CapReleased => "CapReleased",
            Cause::CapFought => "CapFought",
            Cause::ScaledToZero => "ScaledToZero",
            Cause::Woken(_) => "Woken",
        }
    }

    /// Whether something has to be done about it.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        match self {
            Cause::Finding(_) | Cause::Lag { .. } | Cause::CapFought => true,
            Cause::CapRaised(_)
            | Cause::CapLowered(_)
            | Cause::CapReleased
            | Cause::ScaledToZero
            | Cause::Woken(_) => false,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Finding(finding) => {
                let kind = finding.kind();
                write!(f, "{}: {finding}. {}", kind.code(), kind.fix())
            }
            Cause::Lag {
                cluster,
                group,
                topic,
                what,
            } => {
                write!(f, "group {group:?} on Kafka cluster {cluster:?}")?;
                if let Some(topic) = topic {
                    write!(f, ", topic {topic:?}")?;
                }
                f.write_str(match what {
                    Befallen::OffsetsLost => {
                        ": retention overtook the group, unread messages are gone"
                    }
                    Befallen::TopicRecreated => {
                        ": the topic was recreated or truncated, lag is unknown until the group commits again"
                    }
                    Befallen::CommitsVanished => {
                        ": the group's commits vanished, lag is measured from the last ones known"
                    }
                    Befallen::GroupStuck => {
                        ": the group gets no further on any partition that is behind"
                    }
                })
            }
            Cause::CapRaised(ceiling) | Cause::CapLowered(ceiling) => {
                write!(f, "maxReplicas is held to the ceiling {ceiling}")
            }
            Cause::CapReleased => f.write_str("maxReplicas is the user's alone again"),
            Cause::CapFought => f.write_str(
                "somebody keeps undoing the ceiling, so that it is written ever more rarely: have them leave spec.maxReplicas alone, or set lagwise.dev/cap: advise",
            ),
            Cause::ScaledToZero => {
                f.write_str("no work for as long as the cooldown: scaled to zero")
            }
            Cause::Woken(replicas) => write!(f, "woken from zero with {replicas} replicas"),
        }
    }
}

/// What is told of which HPA.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Notice {
    /// The HPA.
    pub hpa: HpaKey,
    /// Why.
    pub cause: Cause,
}

/// What lasts that a person should be told of: findings that are more than good to know, each on every
/// HPA that it is about.
#[must_use]
pub fn lasting(snapshot: &LagSnapshot) -> BTreeSet<Notice> {
    let findings = snapshot.all_findings();
    let mut serious = findings
        .filter(|finding| finding.kind().severity() > Severity::Info)
        .peekable();
    if serious.peek().is_none() {
        return BTreeSet::new();
    }
    let by_group = by_group(&snapshot.targets);
    let mut all = BTreeSet::new();
    for finding in serious {
        let cause = Cause::Finding(finding.clone());
        let notice = |hpa: HpaKey| Notice {
            hpa,
            cause: cause.clone(),
        };
        match finding.about() {
            FindingSubject::Hpa(shown) => all.extend(
                shown
                    .split_once('/')
                    .map(|(namespace, name)| notice((Arc::from(namespace), Arc::from(name)))),
            ),
            FindingSubject::Group(cluster, group) => {
                let hpas = by_group.get(&(cluster, group));
                all.extend(hpas.into_iter().flatten().cloned().map(notice));
            }
        }
    }
    all
}

/// What the events of a cluster's groups are to the HPAs that scale by them.
#[must_use]
pub fn befallen(cluster: &ClusterName, events: &[LagEvent], targets: &Targets) -> Vec<Notice> {
    if events.is_empty() {
        return Vec::new();
    }
    let by_group = by_group(targets);
    let notices = events.iter().flat_map(|event| {
        let what = Befallen::of(event.kind);
        let hpas = by_group.get(&(cluster, &event.group));
        let told = what.zip(hpas).into_iter();
        told.flat_map(move |(what, hpas)| {
            hpas.iter().map(move |hpa| Notice {
                hpa: hpa.clone(),
                cause: Cause::Lag {
                    cluster: cluster.clone(),
                    group: event.group.clone(),
                    topic: event.topic.clone(),
                    what,
                },
            })
        })
    });
    notices.collect()
}

fn by_group(targets: &Targets) -> BTreeMap<(&ClusterName, &GroupId), BTreeSet<HpaKey>> {
    let mut all: BTreeMap<_, BTreeSet<HpaKey>> = BTreeMap::new();
    for target in &targets.all {
        if let Origin::Hpa { namespace, name } = &target.origin {
            let group = (&target.interest.cluster, &target.interest.group);
            let hpas = all.entry(group).or_default();
            hpas.insert((Arc::clone(namespace), Arc::clone(name)));
        }
    }
    all
}

/// Of one HPA so many at once, and then one in this time.
const OF_ONE: (u32, Duration) = (10, Duration::from_secs(60));

/// Of all HPAs.
const OF_ALL: (u32, Duration) = (50, Duration::from_secs(1));

/// What happened that waits to be told, at most.
const WAITING_MAX: usize = 500;

/// Which notices are to be told next: each once while it lasts, and not too many at a time.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    lasting: BTreeSet<Notice>,
    told: BTreeSet<Notice>,
    waiting: VecDeque<Notice>,
    of_all: Rate,
    of_one: BTreeMap<HpaKey, Rate>,
}

impl Ledger {
    /// What lasts now. What has ended is told again if it begins again.
    pub fn observe(&mut self, lasting: BTreeSet<Notice>) {
        self.told.retain(|notice| lasting.contains(notice));
        self.lasting = lasting;
    }

    /// Something happened. `false` where too much waits already, and it is not told.
    pub fn happened(&mut self, notice: Notice) -> bool {
        let fits = self.waiting.len() < WAITING_MAX;
        if fits {
            self.waiting.push_back(notice);
        }
        fits
    }

    /// What is to be told now, if anything is and may be.
    pub fn next(&mut self, now: Instant) -> Option<Notice> {
        self.of_one.retain(|_, rate| !rate.is_rested(now));
        if !self.of_all.allows(OF_ALL, now) {
            return None;
        }
        let of_one = &self.of_one;
        let may = |notice: &Notice| {
            let rate = of_one.get(&notice.hpa);
            rate.is_none_or(|rate| rate.allows(OF_ONE, now))
        };
        let next = match self.waiting.iter().position(may) {
            Some(place) => self.waiting.remove(place)?,
            None => {
                let mut untold = self.lasting.difference(&self.told);
                let next = untold.find(|notice| may(notice))?.clone();
                self.told.insert(next.clone());
                next
            }
        };
        self.of_all.take(OF_ALL, now);
        self.of_one
            .entry(next.hpa.clone())
            .or_default()
            .take(OF_ONE, now);
        Some(next)
    }

    /// It could not be told: what lasts is to be told later.
    pub fn untold(&mut self, notice: &Notice) {
        self.told.remove(notice);
    }
}

/// How much of a rate is used up.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    /// When everything that was taken is made up for.
    rested: Option<Instant>,
}

impl Rate {
    fn after(self, (_, every): (u32, Duration), now: Instant) -> Option<Instant> {
        self.rested
            .map_or(now, |rested| rested.max(now))
            .checked_add(every)
    }

    fn allows(&self, rate: (u32, Duration), now: Instant) -> bool {
        let (burst, every) = rate;
        let after = self.after(rate, now);
        after.is_some_and(|after| {
            after.saturating_duration_since(now) <= every.saturating_mul(burst)
        })
    }

    fn take(&mut self, rate: (u32, Duration), now: Instant) {
        self.rested = self.after(rate, now);
    }

    fn is_rested(&self, now: Instant) -> bool {
        self.rested.is_none_or(|rested| rested <= now)
    }
}

#[cfg(test)]
mod tests;
