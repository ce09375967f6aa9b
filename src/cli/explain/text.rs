//! Renders an explanation as text, from the offsets down to the replicas.

use std::fmt::Write;

use super::figures::figure_lines;
use super::partitions::{ShownPartitions, age, partition_lines};
use crate::model::diagnostics::explain::{
    Cap, Derivation, Explanation, GroupPart, Outcome, TopicPart,
};
use crate::model::evaluation::ValueRule;
use crate::model::keda::shadow::ShadowRow;
use crate::model::settings::cap_mode::CapMode;

/// Effect of the annotation `lagwise.dev/paused`, and its limit.
const PAUSED: &str = "paused: lagwise writes nothing to the HPA and its scale target; the HPA still scales, between minReplicas and maxReplicas";

/// The text of an explanation.
pub(super) fn render(explanation: &Explanation, partitions: ShownPartitions) -> String {
    let mut out = String::new();
    let mut lines = Lines {
        out: &mut out,
        partitions,
    };
    match explanation.verdict.as_str() {
        "" => lines.add(0, &format!("{}, {}", explanation.of, explanation.at)),
        verdict => {
            lines.add(0, verdict);
            lines.heading(&format!("As of {}", explanation.at));
        }
    }
    for metric in &explanation.metrics {
        lines.metric(metric);
    }
    if let Some(cap) = &explanation.cap {
        lines.cap(cap, explanation.ceiling);
    }
    if let Some(outcome) = &explanation.outcome {
        let metrics = explanation.metrics.iter();
        let refusals: Vec<&str> = metrics.filter_map(|m| m.refusal.as_deref()).collect();
        lines.outcome(outcome, &refusals);
    }
    if let Some(shadow) = &explanation.shadow {
        lines.shadow(shadow);
    }
    lines.findings(&explanation.findings);
    lines.list("Not visible from outside", &explanation.not_knowable);
    out
}

struct Lines<'a> {
    out: &'a mut String,
    partitions: ShownPartitions,
}

impl Lines<'_> {
    fn add(&mut self, depth: usize, text: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.out, "{:width$}{text}", "", width = depth * 2);
    }

    fn heading(&mut self, text: &str) {
        self.add(0, "");
        self.add(0, text);
    }

    fn list(&mut self, title: &str, all: &[String]) {
        if !all.is_empty() {
            self.heading(title);
        }
        for one in all {
            self.add(1, &format!("- {one}"));
        }
    }

    /// Whether an earlier line has exactly this text, with or without a label. No text is printed twice.
    fn is_printed(&self, text: &str) -> bool {
        !text.is_empty()
            && self.out.lines().any(|line| {
                let label = line.strip_suffix(text).map(str::trim);
                label.is_some_and(|label| label.is_empty() || is_label(label))
            })
    }

    fn findings(&mut self, all: &[String]) {
        let shown = all.iter().map(|finding| {
            let code = finding.split_once(' ').map_or("", |(code, _)| code);
            match finding.split_once(": ") {
                Some((_, message)) if self.is_printed(message) => format!("{code}: as above"),
                _ => finding.clone(),
            }
        });
        let shown: Vec<_> = shown.collect();
        self.list("Findings", &shown);
        if !shown.is_empty() {
            self.add(1, "What to do: lagwise lint --explain CODE");
        }
    }

    fn metric(&mut self, metric: &Derivation) {
        if !metric.metric.is_empty() {
            self.heading(&format!("Metric {} of {}", metric.metric, metric.selector));
        }
        for group in &metric.groups {
            self.group(group);
        }
        if metric.metric.is_empty() {
            return;
        }
        if metric.groups.len() > 1 {
            let lag = value_or(metric.lag, "unknown");
            self.add(1, &format!("lag of all groups: {lag}"));
        }
        if let Some(per_replica) = metric.lag_per_replica {
            self.add(1, &format!("lag per replica: {per_replica}"));
        }
        if let Some(desired) = metric.desired_replicas {
            self.add(
                1,
                &format!("desired replicas, at most the ceiling: {desired}"),
            );
        }
        if let Some(at_ceiling) = &metric.at_ceiling {
            self.add(1, at_ceiling);
        }
        if let Some(policy) = &metric.policy {
            let mut lines = policy.because.iter();
            lines.next().into_iter().for_each(|line| self.add(1, line));
            lines.for_each(|line| self.add(2, line));
        }
        match (&metric.value, &metric.refusal) {
            (Some(value), _) => {
                let rule = metric.rule.map(ValueRule::label).unwrap_or_default();
                let because = metric.because.as_deref().unwrap_or_default();
                self.add(1, &format!("value served: {value} ({rule}): {because}"));
            }
            (None, refusal) => {
                let why = refusal.as_deref().unwrap_or("unknown");
                let why = if self.is_printed(why) {
                    "as above"
                } else {
                    why
                };
                self.add(1, &format!("value served: none, but an error: {why}"));
            }
        }
    }

    fn group(&mut self, group: &GroupPart) {
        let members = value_or(group.members, "unknown");
        let omitted = group.omitted_members;
        let omitted =
            omitted.map(|omitted| format!(" ({omitted} of them not looked at: too many)"));
        let omitted = omitted.unwrap_or_default();
        let assignor = group.assignor.as_deref().unwrap_or("unknown");
        self.add(
            1,
            &format!(
                "group {} on cluster {}: members {members}{omitted}, assignor {assignor}",
                group.group, group.cluster
            ),
        );
        for topic in &group.topics {
            self.topic(topic);
        }
        if let Some(listing) = &group.listing {
            self.add(2, listing);
        }
        if let Some(unknown) = &group.unknown {
            self.add(2, &format!("unknown: {unknown}"));
        }
        if let Some(lag) = group.lag {
            self.add(2, &format!("lag that counts: {lag}"));
        }
        for line in group
            .figures
            .iter()
            .flat_map(|figures| figure_lines(figures, group.lag.is_some()))
        {
            self.add(2, &line);
        }
        if let Some(because) = &group.because {
            let useful = value_or(group.useful_parallelism, "no limit");
            self.add(2, &format!("useful parallelism: {useful}: {because}"));
            let ceiling = value_or(group.ceiling, "none");
            let threads = match group.threads {
                1 => "one member in each replica".to_owned(),
                threads => format!("{threads} members in each replica"),
            };
            self.add(2, &format!("replica ceiling: {ceiling}, with {threads}"));
        }
    }

    fn topic(&mut self, topic: &TopicPart) {
        let ago = topic.read_seconds_ago.map_or_else(
            || "never read completely".to_owned(),
            |seconds| format!("read {seconds} s ago"),
        );
        let lag = value_or(topic.lag, "unknown");
        let age = age(topic.lag_seconds, topic.lag_seconds_is_lower_bound);
        let behind = age.map_or_else(String::new, |age| format!(", {age} behind"));
        self.add(
            2,
            &format!("topic {}: lag {lag}{behind}, {ago}", topic.topic),
        );
        if let Some(incomplete) = &topic.incomplete {
            self.add(
                3,
                &format!("the latest reading is incomplete: {incomplete}"),
            );
        }
        for line in partition_lines(topic, self.partitions) {
            self.add(3, &line);
        }
    }

    fn shadow(&mut self, row: &ShadowRow) {
        self.heading(&format!("Beside KEDA ({} {})", row.kind, row.name));
        if let Some(why) = &row.not_compared {
            self.add(1, &format!("not compared: {why}"));
            return;
        }
        let [running, keda, lagwise] =
            [row.running, row.keda, row.lagwise].map(|replicas| value_or(replicas, "unknown"));
        let numbers = match row.kind.as_str() {
            "ScaledJob" => format!("Jobs: KEDA asks for {keda}, {lagwise} can have work"),
            _ => format!(
                "replicas: {running} run, KEDA asks for {keda}, lagwise would ask for {lagwise}"
            ),
        };
        self.add(1, &numbers);
        for why in row.why.iter().chain(&row.remarks).chain(&row.logins) {
            self.add(1, &format!("- {why}"));
        }
    }

    fn cap(&mut self, cap: &Cap, ceiling: Option<u32>) {
        self.heading("Ceiling");
        let ceiling = value_or(ceiling, "none, or unknown");
        self.add(1, &format!("replica ceiling of the HPA: {ceiling}"));
        let mode = match (cap.mode, cap.observed) {
            (CapMode::Enforce, true) => "enforce: maxReplicas is at most the ceiling",
            (CapMode::Enforce, false) => "enforce: maxReplicas is still above the ceiling",
            (CapMode::Advise, _) => "advise: only the value served is limited, nothing is written",
        };
        self.add(1, &format!("cap: {mode}"));
        if cap.paused {
            self.add(1, PAUSED);
        }
        let user = match cap.user_max_replicas {
            Some(user) if user != cap.max_replicas => format!(", set by the user to {user}"),
            _ => String::new(),
        };
        self.add(1, &format!("maxReplicas: {}{user}", cap.max_replicas));
    }

    /// The HPA controller's part; `refusals` are the errors that lagwise answers with.
    fn outcome(&mut self, outcome: &Outcome, refusals: &[&str]) {
        self.heading("HPA controller");
        let spec = value_or(outcome.spec_replicas, "unknown");
        let status = value_or(outcome.status_replicas, "unknown");
        let (min, max) = (outcome.min_replicas, outcome.max_replicas);
        self.add(
            1,
            &format!(
                "replicas: spec {spec}, status {status}; minReplicas {min}, maxReplicas {max}"
            ),
        );
        let (down, up) = &outcome.tolerances;
        self.add(1, &format!("tolerance: {up} up, {down} down"));
        for line in &outcome.behavior {
            self.add(1, line);
        }
        for proposal in &outcome.proposals {
            let replicas = value_or(proposal.replicas, "no number");
            self.add(
                1,
                &format!(
                    "{} proposes {replicas}: {}",
                    proposal.metric, proposal.because
                ),
            );
        }
        if let Some(stage) = &outcome.metric_stage {
            self.add(1, &format!("metric stage: {stage}"));
        }
        let next = match outcome.next {
            Some((low, high)) if low == high => low.to_string(),
            Some((low, high)) => format!("between {low} and {high}"),
            None => "unknown".to_owned(),
        };
        self.add(1, &format!("next sync sets: {next}"));
        for line in &outcome.because {
            if !self.is_printed(line) {
                self.add(2, &format!("because {line}"));
            }
        }
        for condition in &outcome.conditions {
            let note = if condition.blocks() { "blocking: " } else { "" };
            // The HPA controller quotes the error that lagwise answered with.
            let quoted = refusals
                .iter()
                .fold(condition.message.clone(), |message, refusal| {
                    message.replace(refusal, "the error above")
                });
            self.add(
                1,
                &format!(
                    "{note}{} {} ({}): {quoted}",
                    condition.kind, condition.status, condition.reason
                ),
            );
        }
    }
}

/// Whether this is the label at the start of a line.
fn is_label(text: &str) -> bool {
    text.ends_with([':', '-']) || text == "because"
}

fn value_or<T: ToString>(value: Option<T>, none: &str) -> String {
    value.map_or_else(|| none.to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_no_whole_line() {
        let mut out = String::new();
        let mut lines = Lines {
            out: &mut out,
            partitions: ShownPartitions::Worst,
        };
        for line in [
            "unknown: no broker answers: it is down",
            "because maxReplicas is 12 of 20",
            "- LW051 warning hpa/shop/billing: lag 52 is worth 6 replicas",
            "replicas: 3",
        ] {
            lines.add(1, line);
        }
        for (text, expected) in [
            ("unknown: no broker answers: it is down", true),
            ("no broker answers: it is down", true),
            ("maxReplicas is 12 of 20", true),
            ("lag 52 is worth 6 replicas", true),
            ("no broker answers", false),
            ("maxReplicas is 12", false),
            ("is 12 of 20", false),
            ("2 is worth 6 replicas", false),
            ("", false),
        ] {
            assert_eq!(lines.is_printed(text), expected, "{text}");
        }
    }
}
