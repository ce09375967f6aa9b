//! The rights that lagwise uses in Kafka, each proven by the results of a sweep.

use std::collections::BTreeMap;

use super::{CheckLine, KafkaFacts, PreflightProblem, some_of};
use crate::model::diagnostics::kafka_service::{KafkaAccess, KafkaRight};
use crate::model::kafka::fault::Fault;
use crate::model::kafka::observation::Observation;
use crate::model::units::counted::counted;

/// What one right is needed for, and on which groups or topics it was proven or not.
struct RightTally {
    check: &'static str,
    noun: &'static str,
    proven: Vec<String>,
    problems: BTreeMap<(PreflightProblem, Fault), Vec<String>>,
}

impl RightTally {
    fn new(check: &'static str, noun: &'static str) -> Self {
        Self {
            check,
            noun,
            proven: Vec::new(),
            problems: BTreeMap::new(),
        }
    }

    fn record(&mut self, name: &str, fault: Option<Fault>) {
        match fault {
            None => self.proven.push(name.to_owned()),
            Some(fault) => {
                let key = (problem_of(fault), fault);
                self.problems.entry(key).or_default().push(name.to_owned());
            }
        }
    }

    fn into_lines(self, section: &str, access: &KafkaAccess) -> Vec<CheckLine> {
        let Self {
            check,
            noun,
            proven,
            problems,
        } = self;
        let problems = problems.into_iter().map(|((problem, fault), names)| {
            let message = format!("{noun} {}: {fault}", some_of(&names));
            let right = match problem {
                PreflightProblem::KafkaGroupDenied => Some(KafkaRight::DescribeGroup),
                PreflightProblem::KafkaTopicDenied => Some(KafkaRight::DescribeTopic),
                _ => None,
            };
            let mut line = CheckLine::problem(section, check, problem, message);
            if let Some(right) = right {
                // A group may have members on a topic that lagwise may not describe: its name is unknown.
                let known = if right.resource().0 == noun {
                    &names[..]
                } else {
                    &[]
                };
                line = line.with_remedy(access.grant(right, known));
            }
            line.with_details(names)
        });
        let mut lines: Vec<_> = problems.collect();
        if !proven.is_empty() {
            let message = counted(proven.len(), noun);
            let line = CheckLine::passed(section, check, message);
            lines.insert(0, line.with_details(proven));
        }
        lines
    }
}

fn problem_of(fault: Fault) -> PreflightProblem {
    match fault {
        Fault::GroupDenied => PreflightProblem::KafkaGroupDenied,
        Fault::TopicDenied => PreflightProblem::KafkaTopicDenied,
        Fault::TopicMissing => PreflightProblem::KafkaTopicMissing,
        Fault::TooManyGroups => PreflightProblem::KafkaTooManyGroups,
        fault if fault.is_connection() => PreflightProblem::KafkaBrokerUnreachable,
        _ => PreflightProblem::KafkaUnread,
    }
}

pub(super) fn check(section: &str, facts: &KafkaFacts) -> Vec<CheckLine> {
    let mut lines = Vec::new();
    if let Some(listed) = &facts.listed {
        lines.push(match listed.faults.first() {
            None => {
                let message = format!("{} visible", counted(listed.count, "group"));
                CheckLine::passed(section, "list groups", message)
            }
            Some(fault) => {
                let problem = match fault.is_missing_right() {
                    true => PreflightProblem::KafkaGroupsUnlisted,
                    false => PreflightProblem::KafkaListFailed,
                };
                let line = CheckLine::problem(section, "list groups", problem, fault.to_string());
                match problem {
                    PreflightProblem::KafkaGroupsUnlisted => {
                        let grant = facts.access.grant(KafkaRight::DescribeCluster, &[]);
                        line.with_remedy(format!("{} {grant}", problem.remedy()).into())
                    }
                    _ => line,
                }
            }
        });
    }
    let Some(observation) = &facts.observation else {
        return lines;
    };
    if observation.groups.is_empty() {
        let message = "no group is asked for, so the rights to read one are not proven";
        let problem = PreflightProblem::KafkaNothingProven;
        lines.push(CheckLine::problem(section, "rights", problem, message));
        return lines;
    }
    for tally in tallies(observation) {
        lines.extend(tally.into_lines(section, &facts.access));
    }
    // Brokers leave out the topics of a group that the login may not describe, without an error.
    let is_read = observation
        .groups
        .iter()
        .any(|group| group.committed.is_ok());
    if is_read && observation.topics.is_empty() {
        let message = "the groups have no committed offset on a topic that this login sees, so the right to read topics is \
                       not proven: they never committed, or Describe on their topics is missing";
        let problem = PreflightProblem::KafkaNothingProven;
        lines.push(CheckLine::problem(section, "rights", problem, message));
    }
    if facts.is_sample {
        let sample = observation.groups.first();
        let sample = sample.map_or("", |group| group.plan.group.as_str());
        let message = format!(
            "no group is asked for; the rights are proven for {sample}, the first that is listed"
        );
        let problem = PreflightProblem::KafkaNothingProven;
        lines.push(CheckLine::problem(section, "rights", problem, message));
    }
    lines
}

fn tallies(observation: &Observation) -> [RightTally; 4] {
    let mut fetch = RightTally::new("fetch offsets", "group");
    let mut describe = RightTally::new("describe groups", "group");
    let mut topics = RightTally::new("describe topics", "topic");
    let mut ends = RightTally::new("list offsets", "topic");
    for group in &observation.groups {
        let name = group.plan.group.as_str();
        let fault = match &group.committed {
            Err(fault) => Some(*fault),
            Ok(columns) => {
                let mut readings = columns.values().flat_map(|column| column.iter());
                readings.find_map(Result::err)
            }
        };
        fetch.record(name, fault);
        match &group.description {
            Ok(_) => describe.record(name, None),
            // Not requested, or not supported by the broker.
            Err(Fault::Unsupported) => {}
            Err(fault) => describe.record(name, Some(*fault)),
        }
    }
    for (topic, log) in &observation.topics {
        let name = topic.as_str();
        match log {
            Err(fault) => topics.record(name, Some(*fault)),
            Ok(log) => {
                topics.record(name, None);
                ends.record(name, log.ends.iter().find_map(|end| end.err()));
            }
        }
    }
    [describe, fetch, topics, ends]
}
