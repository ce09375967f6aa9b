//! Brokers that hang, lie, die and come back: nothing that is read is ever wrong, what other brokers hold stays fresh,
//! and all is well soon after the broker is.

mod hostile;
mod iterations;
mod network;
mod restarts;
mod texts;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use lagwise::kafka::ClientKind;
use lagwise::model::kafka::sweep_plan::SweepPlan;
use lagwise::model::units::newtypes::Moment;

use crate::Test;
use crate::sources::{Sources, plan_of, seen_in_outage};
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::unique;

/// The cases of every run.
pub(crate) const CASES: &[(&str, Test)] = &[
    (
        "faults::a_faulty_broker_affects_only_its_own_data",
        network::a_faulty_broker_affects_only_its_own_data,
    ),
    (
        "faults::a_coordinator_is_killed_and_comes_back",
        restarts::a_coordinator_is_killed_and_comes_back,
    ),
    (
        "faults::a_million_iterations_affect_only_their_cluster",
        iterations::a_million_iterations_affect_only_their_cluster,
    ),
    (
        "faults::texts_of_brokers_and_groups_are_only_text",
        texts::of_brokers_and_groups_are_only_text,
    ),
];

/// The long ones.
pub(crate) const LONG: &[(&str, Test)] = &[
    (
        "faults::every_kind_of_faulty_broker",
        network::every_kind_of_faulty_broker,
    ),
    (
        "faults::long_answers_leave_memory_and_time_to_others",
        hostile::answers_leave_memory_and_time_to_others,
    ),
    (
        "faults::each_broker_is_killed_in_turn",
        restarts::each_broker_is_killed_in_turn,
    ),
];

/// Maximum age of a complete reading of what other brokers hold while one is gone: half of what lagwise allows.
const MAX_AGE: Duration = Duration::from_secs(15);

/// Groups and topics without changes, spread over three brokers, with the facts that always hold for them.
pub(crate) struct Scene {
    pub(crate) plan: SweepPlan,
    /// As of [`crate::sources::seen`].
    pub(crate) truth: String,
    /// Each group with the broker that coordinates it, the topic that only this broker has, and its lag there.
    pub(crate) at: Vec<Place>,
}

/// A group and a topic that live on one broker alone.
pub(crate) struct Place {
    pub(crate) broker: usize,
    pub(crate) group: String,
    pub(crate) topic: String,
    pub(crate) lag: u64,
}

impl Scene {
    /// A group and a topic for each broker; `shared`, which every broker has a copy of, is read by all of them.
    pub(crate) fn set_up(kafka: &KafkaCluster) -> Result<Self> {
        let shared = unique("shared");
        kafka.create_topic(&shared, 3)?;
        kafka.produce_to(&shared, &[(0, 5), (1, 6), (2, 7)])?;
        let mut truth = format!("{shared}: 0..5 0..6 0..7\n");
        let mut at = Vec::new();
        for broker in 1..=kafka.brokers() {
            let (topic, group) = (unique("own"), kafka.group_on(broker)?);
            let id = i32::try_from(broker)?;
            kafka.create_topic_on(&topic, &[id, id])?;
            kafka.produce_to(&topic, &[(0, 10), (1, 10 * broker)])?;
            kafka.commit(&group, &topic, &[(0, 4), (1, 4)])?;
            kafka.commit(&group, &shared, &[(0, 1), (1, 1), (2, 1)])?;
            let most = 10 * broker;
            truth += &format!(
                "{group} {shared}: 1 1 1\n{group} {topic}: 4 4\n{topic}: 0..10 0..{most}\n"
            );
            let lag = u64::try_from(most + 10 - 8)?;
            at.push(Place {
                broker,
                group,
                topic,
                lag,
            });
        }
        let wanted: Vec<(&str, [&str; 2])> = at
            .iter()
            .map(|place| {
                (
                    place.group.as_str(),
                    [place.topic.as_str(), shared.as_str()],
                )
            })
            .collect();
        let wanted: Vec<(&str, &[&str])> = wanted
            .iter()
            .map(|(group, topics)| (*group, topics.as_slice()))
            .collect();
        Ok(Self {
            plan: plan_of(&wanted),
            truth,
            at,
        })
    }

    /// Runs one sweep with each client, which must report nothing that is not true. Returns what each client read.
    pub(crate) fn sweep(&self, sources: &mut Sources) -> Result<Vec<(ClientKind, String)>> {
        let mut all = Vec::new();
        for (client, observation) in sources.sweep(&self.plan)? {
            let seen = seen_in_outage(&observation);
            if let Some(wrong) = contradiction(&seen, &self.truth) {
                anyhow::bail!("{client:?} reports {wrong:?} instead of\n{}", self.truth);
            }
            all.push((client, seen));
        }
        Ok(all)
    }

    /// Checks that what is known of partitions on other brokers than this one is true, complete and recent.
    pub(crate) fn others_are_fresh(&self, sources: &Sources, gone: usize) -> Result<()> {
        for subject in &sources.each {
            for place in self.at.iter().filter(|place| place.broker != gone) {
                let group = subject.known.groups.get(place.group.as_str()).unwrap();
                let known = &group.topics[place.topic.as_str()];
                let complete = known.complete.as_ref();
                let fresh = complete.filter(|lag| Moment::now().since(&lag.read) <= MAX_AGE);
                let total = fresh.map(|lag| lag.total().map(|lag| lag.0));
                ensure!(
                    total == Some(Ok(place.lag)),
                    "{:?}: broker {}, which is well, has {total:?} instead of {}: {known:?}",
                    subject.client,
                    place.broker,
                    place.lag
                );
            }
        }
        Ok(())
    }
}

/// Whether nothing is unknown.
fn is_whole(seen: &str) -> bool {
    !seen.contains(['?', '!'])
}

/// The first fact of `seen` that is neither unknown nor as in `truth`.
fn contradiction(seen: &str, truth: &str) -> Option<String> {
    let facts: BTreeMap<&str, &str> = truth.lines().filter_map(|l| l.split_once(": ")).collect();
    // An answer that cannot be read is a code of the client's own, and as good as none.
    let unknowns = [
        "?",
        "!error_code",
        "no_answer",
        "unreachable",
        "leader_unknown",
        "error_code",
    ];
    let is_unknown = |said: &str| unknowns.contains(&said);
    let agrees = |said: &str, fact: &str| {
        let part = |said: &str, fact: &str| is_unknown(said) || said == fact;
        match (said.split_once(".."), fact.split_once("..")) {
            (Some(said), Some(fact)) => part(said.0, fact.0) && part(said.1, fact.1),
            _ => part(said, fact),
        }
    };
    seen.lines()
        .filter(|line| !line.starts_with("connection: "))
        .find(|line| {
            let Some((what, said)) = line.split_once(": ") else {
                return true;
            };
            let Some(fact) = facts.get(what) else {
                // A group of which nothing is known has a separate line.
                return !is_unknown(said);
            };
            let (said_of, facts_of) = (said.split(' '), fact.split(' '));
            !is_unknown(said)
                && (said_of.clone().count() != facts_of.clone().count()
                    || !said_of.zip(facts_of).all(|(said, fact)| agrees(said, fact)))
        })
        .map(str::to_owned)
}
