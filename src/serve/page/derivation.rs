//! The derivation of a replica count, as `lagwise explain` prints it.

use super::format;
use super::html::Html;
use super::partitions;
use crate::model::diagnostics::explain::{Derivation, Explanation, GroupPart, TopicPart};
use crate::model::kafka::group::GroupDescription;
use crate::model::snapshot::LagSnapshot;
use crate::model::units::quantity::Milli;
use crate::model::units::untrusted_text::Printable;

/// Writes the derivation of each metric.
pub(super) fn write(html: &mut Html, explanation: &Explanation, snapshot: &LagSnapshot) {
    for metric in &explanation.metrics {
        html.element("details", &[("open", &""), ("class", &"metric")], |html| {
            html.element("summary", &[], |html| {
                html.text_element("code", &[], Printable::name(&metric.metric));
                html.text(" ");
                html.text_element("code", &[], Printable::message(&metric.selector));
            });
            write_steps(html, metric);
            write_policy(html, metric);
            for group in &metric.groups {
                write_group(html, group, snapshot);
            }
        });
    }
    if !explanation.not_knowable.is_empty() {
        html.element("details", &[], |html| {
            html.text_element("summary", &[], "What lagwise cannot know");
            html.element("ul", &[], |html| {
                for sentence in &explanation.not_knowable {
                    html.text_element("li", &[], Printable::message(sentence));
                }
            });
        });
    }
}

fn write_steps(html: &mut Html, metric: &Derivation) {
    let milli = |number: Option<Milli>| format::or_unknown(number.map(|number| number.to_string()));
    html.element("dl", &[("class", &"steps")], |html| {
        let mut step = |title: &str, text: String| {
            html.text_element("dt", &[], title);
            html.text_element("dd", &[], Printable::message(&text));
        };
        step("lag", format::or_unknown(metric.lag.map(format::count)));
        step("lag per replica", milli(metric.lag_per_replica));
        step("worth", replicas(metric.uncapped_replicas));
        step("replica ceiling", format::number(metric.ceiling));
        step("desired", replicas(metric.desired_replicas));
        step("value served", milli(metric.value));
        if let Some(because) = &metric.because {
            step("rule", because.clone());
        }
        if let Some(at_ceiling) = &metric.at_ceiling {
            step("at the ceiling", at_ceiling.clone());
        }
        if let Some(refusal) = &metric.refusal {
            step("no value", refusal.clone());
        }
    });
}

/// Writes how the scaling policy and the hold made the number of replicas.
fn write_policy(html: &mut Html, metric: &Derivation) {
    let sentences = metric.policy.as_ref().map(|policy| &policy.because);
    let Some(sentences) = sentences.filter(|sentences| !sentences.is_empty()) else {
        return;
    };
    html.element("ul", &[("class", &"policy")], |html| {
        for sentence in sentences {
            html.text_element("li", &[], Printable::message(sentence));
        }
    });
}

fn replicas(count: Option<u32>) -> String {
    match count {
        Some(1) => "1 replica".to_owned(),
        count => format!("{} replicas", format::number(count)),
    }
}

fn write_group(html: &mut Html, group: &GroupPart, snapshot: &LagSnapshot) {
    let cluster = snapshot.clusters.get(&group.cluster);
    let reading = cluster.and_then(|cluster| cluster.groups.get(&group.group));
    let description = reading.and_then(|reading| reading.description.as_deref());
    html.element("section", &[("class", &"group")], |html| {
        html.element("h3", &[], |html| {
            html.text("Group ");
            html.text_element("code", &[], &group.group);
            html.text(" on Kafka cluster ");
            html.text_element("code", &[], &group.cluster);
        });
        html.element("dl", &[("class", &"steps")], |html| {
            let mut step = |title: &str, text: String| {
                html.text_element("dt", &[], title);
                html.text_element("dd", &[], Printable::message(&text));
            };
            let members = group.members.map(|members| members.to_string());
            step("members", format::or_unknown(members));
            step("assignor", format::or_unknown(group.assignor.clone()));
            step("lag", format::or_unknown(group.lag.map(format::count)));
            let useful = format::number(group.useful_parallelism);
            step(
                "useful parallelism",
                match &group.because {
                    Some(because) => format!("{useful}: {because}"),
                    None => useful,
                },
            );
            step("threads per replica", group.threads.to_string());
            step("replica ceiling", format::number(group.ceiling));
            if let Some(listing) = &group.listing {
                step("topics", listing.clone());
            }
            if let Some(unknown) = &group.unknown {
                step("unknown", unknown.clone());
            }
        });
        for topic in &group.topics {
            write_topic(html, topic, description);
        }
    });
}

fn write_topic(html: &mut Html, topic: &TopicPart, group: Option<&GroupDescription>) {
    html.element("details", &[("open", &""), ("class", &"topic")], |html| {
        html.element("summary", &[], |html| {
            html.text("Topic ");
            html.text_element("code", &[], &topic.topic);
            let count = topic.partitions.len() + topic.partitions_left_out;
            html.text(format!(
                ": {}, lag {}",
                format::partitions(count),
                format::or_unknown(topic.lag.map(format::count)),
            ));
            if let Some(age) = topic.read_seconds_ago {
                html.text(format!(", read {} ago", format::seconds(age)));
            }
        });
        if let Some(incomplete) = &topic.incomplete {
            html.element("p", &[("class", &"problem")], |html| {
                html.text("The latest reading is incomplete: ");
                html.text(Printable::message(incomplete));
            });
        }
        partitions::write(html, topic, group);
    });
}
