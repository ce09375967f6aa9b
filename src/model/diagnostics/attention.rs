//! Which HPAs need attention first, what determines their replicas, and what would change them.

use serde::Serialize;

use super::hpa_status::HpaStatus;
use crate::model::evaluation::ValueRule;
use crate::model::evaluation::parallelism::Limit;
use crate::model::findings::{FindingCode, Severity};

/// How urgently an HPA needs attention, from not at all to at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentionLevel {
    /// The workload has no replicas, and needs none.
    Asleep,
    /// Nothing is wrong.
    Calm,
    /// The lag is worth more replicas than the ceiling allows.
    AtCeiling,
    /// There is a finding of severity warning or a stuck partition, or the SLO is missed.
    Warning,
    /// There is a finding of severity error.
    Error,
    /// The lag or the desired replicas are unknown.
    Unknown,
}

impl AttentionLevel {
    /// Classifies an HPA.
    #[must_use]
    pub fn new(status: &HpaStatus) -> Self {
        let worst = findings(status).map(FindingCode::severity).max();
        let is_late = SloState::new(status) == Some(SloState::Missed);
        if status.lag.is_none() || status.rule.is_none() {
            Self::Unknown
        } else if worst == Some(Severity::Error) {
            Self::Error
        } else if worst == Some(Severity::Warning) || status.stuck_partitions > Some(0) || is_late {
            Self::Warning
        } else if is_at_ceiling(status) {
            Self::AtCeiling
        } else if is_asleep(status) {
            Self::Asleep
        } else {
            Self::Calm
        }
    }

    /// In one or two words.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Asleep => "asleep",
            Self::Calm => "ok",
            Self::AtCeiling => "at ceiling",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Unknown => "unknown",
        }
    }

    /// Whether it needs the attention of a person.
    #[must_use]
    pub fn needs_attention(self) -> bool {
        self >= Self::Warning
    }
}

/// The findings of an HPA.
pub fn findings(status: &HpaStatus) -> impl Iterator<Item = FindingCode> {
    let codes = status.findings.iter();
    codes.filter_map(|code| FindingCode::find(code))
}

/// Whether the lag is worth more replicas than the ceiling allows.
#[must_use]
pub fn is_at_ceiling(status: &HpaStatus) -> bool {
    // A daemon of an earlier version reports no rule.
    let rule = status.rule.unwrap_or(ValueRule::Clamped);
    let worth = status.uncapped.zip(status.desired);
    worth.is_some_and(|(uncapped, desired)| rule.is_cut_by(status.ceiling, uncapped, desired))
}

/// How the age of the oldest unread message compares with the objective of an HPA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SloState {
    Met,
    Missed,
    /// The age is unknown, or only a lower bound is known, which is within the SLO.
    Unknown,
}

impl SloState {
    /// Compares the age of an HPA's oldest unread message with its SLO; `None` if it has no SLO.
    #[must_use]
    pub fn new(status: &HpaStatus) -> Option<Self> {
        let slo = status.slo_seconds?.saturating_mul(1000);
        Some(match status.lag_millis {
            Some(millis) if millis > slo => Self::Missed,
            Some(_) if !status.lag_millis_is_lower_bound => Self::Met,
            _ => Self::Unknown,
        })
    }
}

/// Whether the workload has no replicas.
#[must_use]
pub fn is_asleep(status: &HpaStatus) -> bool {
    status.replicas == Some(0)
}

/// What decides on the replicas of an HPA, as a short phrase.
#[must_use]
pub fn phrase(status: &HpaStatus) -> String {
    let replicas = |count: u32| match count {
        1 => "1 replica".to_owned(),
        count => format!("{count} replicas"),
    };
    if let (Some(ValueRule::Fallback), Some(desired)) = (status.rule, status.desired) {
        return format!(
            "the lag has been unknown for long, so the fallback of {} is served",
            replicas(desired)
        );
    }
    let (Some(lag), Some(rule)) = (status.lag, status.rule) else {
        return match status.reason.as_str() {
            "" => "the lag is unknown".to_owned(),
            reason => reason.to_owned(),
        };
    };
    let phrase = match (status.desired, status.uncapped) {
        (Some(desired), Some(uncapped)) if is_at_ceiling(status) => {
            format!("lag is worth {uncapped} replicas, capped at {desired}")
        }
        (Some(desired), _) => match rule {
            ValueRule::Held => format!("a hold keeps {}", replicas(desired)),
            ValueRule::Rate if desired > 0 => {
                format!("the rate policy wants {}", replicas(desired))
            }
            ValueRule::NeverRan => "the group has never run, so one replica starts it".to_owned(),
            ValueRule::Cooldown => "no lag, but the cooldown is not over".to_owned(),
            ValueRule::Even => format!("{} share the partitions evenly", replicas(desired)),
            _ if lag == 0 => "no lag".to_owned(),
            _ => match status.max_replicas.filter(|most| *most < desired) {
                Some(most) => format!("lag is worth {desired} replicas, maxReplicas allows {most}"),
                None => format!("lag is worth {}", replicas(desired)),
            },
        },
        (None, _) => "the HPA sets no lag per replica".to_owned(),
    };
    let phrase = match status.stuck_partitions {
        None | Some(0) => phrase,
        Some(1) => format!("{phrase}; the group makes no progress on 1 partition"),
        Some(count) => format!("{phrase}; the group makes no progress on {count} partitions"),
    };
    match (&status.asleep_since, is_asleep(status)) {
        (Some(since), true) => format!("asleep since {since}, {phrase}"),
        (None, true) => format!("at zero replicas, {phrase}"),
        _ => phrase,
    }
}

/// What would change the replicas of an HPA, in one sentence.
#[must_use]
pub fn what_would_change(status: &HpaStatus) -> String {
    let (Some(lag), Some(_)) = (status.lag, status.rule) else {
        return "Once the lag is known, the replicas follow it again.".to_owned();
    };
    let Some(desired) = status.desired else {
        return "With a lag per replica, the replicas would follow the lag.".to_owned();
    };
    if status.rule == Some(ValueRule::Held) {
        return "The end of the hold would let the replicas change (lagwise.dev/hold).".to_owned();
    }
    let ceiling = status.ceiling.and_then(Limit::bounded);
    let most = status.max_replicas.filter(|most| *most < desired);
    if let (true, Some(ceiling), Some(uncapped)) = (is_at_ceiling(status), ceiling, status.uncapped)
    {
        return match most {
            Some(most) => format!(
                "A maxReplicas of {desired} instead of {most} would help, and beyond that only more partitions or faster \
                 consumers, since more than {ceiling} replicas would have no work."
            ),
            None => format!(
                "Only more partitions or faster consumers would help: the lag is worth {uncapped} replicas, but more than \
                 {ceiling} would have no work."
            ),
        };
    }
    if let Some(most) = most {
        return format!(
            "A maxReplicas of {desired} instead of {most} would allow the replicas that are desired; faster consumers \
             would need fewer."
        );
    }
    if is_asleep(status) && lag == 0 {
        return "New messages would start the workload.".to_owned();
    }
    match (ceiling, status.rule) {
        (_, Some(ValueRule::NeverRan)) => {
            "The first commit of the group would tell its lag.".to_owned()
        }
        (Some(ceiling), Some(ValueRule::Rate)) if desired < ceiling => format!(
            "More arrivals or older messages would add replicas, up to the ceiling of {ceiling}; fewer arrivals would \
             remove some."
        ),
        (Some(ceiling), Some(ValueRule::Rate)) => format!(
            "Fewer arrivals would remove replicas; more would add none, since {ceiling} is the ceiling."
        ),
        (None, Some(ValueRule::Rate)) => {
            "More arrivals or older messages would add replicas; fewer arrivals would remove some."
                .to_owned()
        }
        (Some(ceiling), _) if desired < ceiling => format!(
            "More lag would add replicas, up to the ceiling of {ceiling}; less lag would remove some."
        ),
        (Some(ceiling), _) => format!(
            "Less lag would remove replicas; more lag would add none, since {ceiling} is the ceiling."
        ),
        (None, _) => "More lag would add replicas; less lag would remove some.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::units::newtypes::Replicas;

    fn status() -> HpaStatus {
        HpaStatus {
            namespace: "shop".into(),
            hpa: "billing".into(),
            lag: Some(40),
            replicas: Some(2),
            desired: Some(4),
            uncapped: Some(4),
            ceiling: Some(Limit::Bounded(Replicas(12))),
            max_replicas: Some(20),
            rule: Some(ValueRule::AsMeasured),
            reason: "as_measured".into(),
            ..HpaStatus::default()
        }
    }

    fn described(status: &HpaStatus) -> [String; 3] {
        [
            AttentionLevel::new(status).label().to_owned(),
            phrase(status),
            what_would_change(status),
        ]
    }

    #[test]
    fn describes_each_state() {
        let with = |change: fn(&mut HpaStatus)| {
            let mut status = status();
            change(&mut status);
            described(&status).join("\n")
        };
        let all = [
            with(|_| ()),
            with(|s| s.lag = Some(0)),
            with(|s| {
                (s.lag, s.rule) = (None, None);
                s.reason = "topic \"orders\" does not exist".into();
            }),
            with(|s| (s.desired, s.uncapped) = (Some(12), Some(53))),
            with(|s| s.max_replicas = Some(3)),
            with(|s| {
                (s.lag, s.replicas, s.desired, s.uncapped) = (Some(0), Some(0), Some(0), Some(0));
                s.asleep_since = Some("2026-11-30T20:00:00Z".into());
            }),
            with(|s| {
                (s.lag, s.replicas, s.desired, s.uncapped) = (Some(0), Some(0), Some(0), Some(0));
            }),
            with(|s| s.rule = Some(ValueRule::NeverRan)),
            with(|s| s.rule = Some(ValueRule::Cooldown)),
            with(|s| {
                s.rule = Some(ValueRule::Fallback);
                (s.lag, s.uncapped) = (None, None);
            }),
            with(|s| s.findings = vec!["LW018".into()]),
            with(|s| s.findings = vec!["LW018".into(), "LW001".into()]),
            with(|s| (s.desired, s.uncapped) = (None, None)),
            with(|s| (s.desired, s.uncapped) = (Some(12), Some(12))),
            with(|s| s.ceiling = Some(Limit::Unbounded)),
            with(|s| (s.rule, s.uncapped) = (Some(ValueRule::Rate), Some(53))),
            with(|s| {
                s.rule = Some(ValueRule::Rate);
                (s.desired, s.uncapped) = (Some(12), Some(53));
            }),
            with(|s| {
                s.rule = Some(ValueRule::Rate);
                (s.desired, s.uncapped) = (Some(12), Some(2));
            }),
            with(|s| (s.rule, s.uncapped) = (Some(ValueRule::Held), Some(53))),
            with(|s| (s.desired, s.uncapped, s.max_replicas) = (Some(12), Some(53), Some(9))),
            with(|s| (s.slo_seconds, s.lag_millis) = (Some(60), Some(90_000))),
            with(|s| s.stuck_partitions = Some(1)),
            with(|s| (s.stuck_partitions, s.desired, s.uncapped) = (Some(3), Some(12), Some(53))),
        ];
        insta::assert_snapshot!(all.join("\n\n"));
    }

    #[test]
    fn an_objective_is_met_missed_or_unknown() {
        let state = |slo_seconds, lag_millis, lag_millis_is_lower_bound| {
            SloState::new(&HpaStatus {
                slo_seconds,
                lag_millis,
                lag_millis_is_lower_bound,
                ..status()
            })
        };
        for (slo, millis, is_bound, expected) in [
            (None, Some(90_000), false, None),
            (Some(60), Some(60_000), false, Some(SloState::Met)),
            (Some(60), Some(60_001), false, Some(SloState::Missed)),
            (Some(60), Some(60_001), true, Some(SloState::Missed)),
            // It may be older.
            (Some(60), Some(5_000), true, Some(SloState::Unknown)),
            (Some(60), None, false, Some(SloState::Unknown)),
        ] {
            assert_eq!(
                state(slo, millis, is_bound),
                expected,
                "{slo:?} {millis:?} {is_bound}"
            );
        }
    }

    #[test]
    fn unknown_lag_has_precedence() {
        let mut unknown = status();
        unknown.findings = vec!["LW001".into()];
        unknown.lag = None;
        assert_eq!(AttentionLevel::new(&unknown), AttentionLevel::Unknown);
        assert!(AttentionLevel::Unknown.needs_attention());
        assert!(!AttentionLevel::AtCeiling.needs_attention());
    }
}
