//! The partitions of a topic: a bar for each with its owner, or a strip of all if there are many.

use std::collections::BTreeMap;

use super::bars::scaled;
use super::format;
use super::html::Html;
use crate::model::diagnostics::explain::{PartitionPart, TopicPart};
use crate::model::kafka::group::{GroupDescription, Member};
use crate::model::units::newtypes::TopicName;
use crate::model::units::short_duration::{from_seconds, short_lag_age};
use crate::model::units::untrusted_text::Printable;

/// Maximum number of partitions that have a bar each; of more there is a strip, and bars of those with the most lag.
const MAX_BARS: usize = 100;

/// Bars next to a strip.
const WORST: usize = 20;

/// A partition is hot if it has at least this many times its share of the lag. (The figures of groups compare the
/// messages written instead.)
const HOT: u64 = 2;

/// Minimum number of unread messages with which a partition may be hot.
const MIN_HOT_LAG: u64 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PartitionMark {
    Unknown,
    Stuck,
    Hot,
    None,
}

impl PartitionMark {
    fn new(partition: &PartitionPart, total: u64, count: usize) -> Self {
        let Some(lag) = partition.lag else {
            return Self::Unknown;
        };
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        if partition.rule == "stuck" {
            Self::Stuck
        } else if count > 1
            && lag >= MIN_HOT_LAG
            && lag.saturating_mul(count) >= total.saturating_mul(HOT)
        {
            Self::Hot
        } else {
            Self::None
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Stuck => "stuck",
            Self::Hot => "hot",
            Self::None => "plain",
        }
    }
}

/// The owner of each partition of a topic.
fn owners<'a>(
    group: Option<&'a GroupDescription>,
    topic: &TopicName,
) -> BTreeMap<usize, &'a Member> {
    let members = group.into_iter().flat_map(|group| &group.members);
    let assigned = members.flat_map(|m| m.assigned.iter().map(move |assigned| (m, assigned)));
    assigned
        .filter(|(_, (name, _))| name == topic)
        .flat_map(|(member, (_, partitions))| partitions.iter().map(move |p| (*p, member)))
        .filter_map(|(partition, member)| Some((usize::try_from(partition).ok()?, member)))
        .collect()
}

/// Writes the partitions of a topic.
pub(super) fn write(html: &mut Html, topic: &TopicPart, group: Option<&GroupDescription>) {
    let owners = owners(group, &topic.topic);
    let all = &topic.partitions;
    let lags = all.iter().filter_map(|partition| partition.lag);
    let (most, total) = (
        lags.clone().max().unwrap_or(0).max(1),
        lags.fold(0, u64::saturating_add),
    );
    let mark = |partition: &PartitionPart| PartitionMark::new(partition, total, all.len());
    let mut shown: Vec<&PartitionPart> = all.iter().collect();
    if all.len() > MAX_BARS {
        strip(html, all, most, mark);
        // Unknown partitions come first: they are the likely reason for the question.
        shown.sort_by_key(|p| std::cmp::Reverse(p.lag.unwrap_or(u64::MAX)));
        shown.truncate(WORST);
    }
    if topic.partitions_left_out > 0 {
        let text = format!(
            "{} more partitions are left out.",
            topic.partitions_left_out
        );
        html.text_element("p", &[("class", &"note")], text);
    }
    html.element("table", &[("class", &"partitions")], |html| {
        html.element("thead", &[], |html| {
            html.element("tr", &[], |html| {
                for (title, class) in [
                    ("Partition", "number"),
                    ("Lag", "number"),
                    ("Of the largest", "lagbar"),
                    ("Behind", "number"),
                    ("Rule", "rule"),
                    ("Owner", "owner"),
                ] {
                    html.text_element("th", &[("scope", &"col"), ("class", &class)], title);
                }
            });
        });
        html.element("tbody", &[], |html| {
            for partition in shown {
                bar(
                    html,
                    partition,
                    most,
                    mark(partition),
                    owners.get(&partition.partition),
                );
                html.line();
            }
        });
    });
}

fn bar(
    html: &mut Html,
    partition: &PartitionPart,
    most: u64,
    mark: PartitionMark,
    owner: Option<&&Member>,
) {
    let class = mark.class();
    html.element("tr", &[("class", &class)], |html| {
        html.text_element("td", &[("class", &"number")], partition.partition);
        let lag = format::or_unknown(partition.lag.map(format::count));
        html.text_element("td", &[("class", &"number")], lag);
        html.element("td", &[("class", &"lagbar")], |html| {
            let width = scaled(partition.lag.unwrap_or(0), most, 1000);
            let width = format!("{}.{}%", width / 10, width % 10);
            html.element("svg", &[("aria-hidden", &"true")], |html| {
                html.element(
                    "rect",
                    &[
                        ("x", &"0"),
                        ("y", &"2"),
                        ("height", &"8"),
                        ("width", &width),
                        ("rx", &"1"),
                    ],
                    |_| {},
                );
            });
            if matches!(mark, PartitionMark::Hot | PartitionMark::Stuck) {
                html.text_element("span", &[("class", &"tag")], class);
            }
        });
        let is_bound = partition.lag_seconds_is_lower_bound;
        let behind = partition.lag_seconds.map(from_seconds);
        let behind = behind.and_then(|behind| short_lag_age(behind, is_bound));
        html.text_element("td", &[("class", &"number")], format::or_unknown(behind));
        html.text_element(
            "td",
            &[("class", &"rule")],
            Printable::message(&partition.rule),
        );
        html.element("td", &[("class", &"owner")], |html| match owner {
            Some(member) => {
                html.text(Printable::name(&member.client));
                html.text(" ");
                html.text_element("small", &[], Printable::name(&member.host));
            }
            None => html.text(format::UNKNOWN),
        });
    });
}

/// One narrow bar for each partition.
fn strip(
    html: &mut Html,
    all: &[PartitionPart],
    most: u64,
    mark: impl Fn(&PartitionPart) -> PartitionMark,
) {
    const HEIGHT: u64 = 60;
    let mut paths: BTreeMap<&'static str, String> = BTreeMap::new();
    for (place, partition) in all.iter().enumerate() {
        let height = match partition.lag {
            // Seen at its whole height, since it may be anything.
            None => HEIGHT,
            Some(lag) => scaled(lag, most, HEIGHT - 1) + 1,
        };
        let path = paths.entry(mark(partition).class()).or_default();
        path.push_str(&format!("M{place}.5 {HEIGHT}v-{height}"));
    }
    let label = format!("lag of {} partitions, at most {most}", all.len());
    html.element(
        "svg",
        &[
            ("class", &"strip"),
            ("role", &"img"),
            ("aria-label", &label),
            ("viewBox", &format!("0 0 {} {HEIGHT}", all.len())),
            ("preserveAspectRatio", &"none"),
        ],
        |html| {
            for (class, path) in &paths {
                html.element("path", &[("class", class), ("d", path)], |_| {});
            }
        },
    );
    let text = format!(
        "{} partitions, from {} on the left; below those with the most lag.",
        all.len(),
        all.first().map_or(0, |first| first.partition),
    );
    html.text_element("p", &[("class", &"note")], text);
}
