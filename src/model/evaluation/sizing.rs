//! Sizing: the number of replicas for a lag, and the metric value that makes the HPA choose it.
//!
//! The HPA divides the value served by the lag per replica and rounds up. Everything here rounds the same
//! way: a clamp that rounded down would let the HPA pass the ceiling by one.

use serde::{Deserialize, Serialize};

use super::parallelism::Limit;
use crate::model::units::newtypes::Lag;
use crate::model::units::quantity::Milli;

/// The rule that made the value served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueRule {
    /// The lag, unchanged.
    AsMeasured,
    /// Cut to ceiling x lag per replica.
    Clamped,
    /// Cut to the ceiling, then raised just above the HPA's tolerance, because its own `maxReplicas` holds
    /// it at the ceiling.
    Lifted,
    /// Raised to the next number of replicas that share the partitions evenly.
    Even,
    /// The lag of one replica: the group has never run, so a lag of zero does not mean that there is no work.
    NeverRan,
    /// The lag of one replica: there is no lag, but the cooldown before zero is not over.
    Cooldown,
    /// The configured number of replicas, because lag has been unknown for long.
    Fallback,
    /// The replicas that the rate policy computed.
    Rate,
    /// The number that a hold keeps.
    Held,
}

impl ValueRule {
    /// The name of the rule, for labels.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            ValueRule::AsMeasured => "as_measured",
            ValueRule::Clamped => "clamped",
            ValueRule::Lifted => "lifted",
            ValueRule::Even => "even",
            ValueRule::NeverRan => "never_ran",
            ValueRule::Cooldown => "cooldown",
            ValueRule::Fallback => "fallback",
            ValueRule::Rate => "rate",
            ValueRule::Held => "held",
        }
    }

    /// Whether fewer replicas are `desired` than the lag is worth (`uncapped`), and it is the ceiling that takes them.
    /// The rate policy and a hold choose fewer by themselves, too.
    #[must_use]
    pub fn is_cut_by(self, ceiling: Option<Limit>, uncapped: u32, desired: u32) -> bool {
        let by_ceiling = match self {
            ValueRule::Rate | ValueRule::Held => ceiling
                .and_then(Limit::bounded)
                .is_some_and(|most| desired >= most),
            _ => true,
        };
        uncapped > desired && by_ceiling
    }
}

/// How the ceiling bounds the value served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClampRule {
    /// Not at all.
    None,
    /// The value is at most ceiling x lag per replica. An HPA with a tolerance may then stop short of the
    /// ceiling.
    Clamp,
    /// The HPA's own `maxReplicas` is seen to be at most the ceiling. The value is just enough for an HPA of
    /// this tolerance to scale from one replica short of the ceiling.
    Observed {
        /// The tolerance upwards, in thousandths.
        tolerance: u64,
    },
}

/// How a value is computed from lag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizing {
    /// Lag per replica; not zero.
    pub per_replica: Milli,
    /// The most replicas that can have work.
    pub ceiling: Limit,
    /// Whether only numbers of replicas are desired that share the partitions evenly.
    pub even: bool,
    /// How the ceiling bounds the value.
    pub bound: ClampRule,
}

impl Sizing {
    /// The replicas for a lag, at most the ceiling; with `even`, the next number of the form
    /// ceil(ceiling / j). Saturating.
    #[must_use]
    pub fn replicas(&self, lag: Milli) -> u32 {
        let needed = lag.ceil_div(self.per_replica).unwrap_or(0);
        let needed = self.ceiling.cut(u32::try_from(needed).unwrap_or(u32::MAX));
        match self.ceiling.bounded() {
            Some(ceiling) if self.even => even_step(needed, ceiling),
            _ => needed,
        }
    }

    /// The value that an HPA one replica short of the ceiling acts on.
    ///
    /// The HPA does nothing while |1 - value / (lag per replica x replicas)| is within its tolerance, in
    /// floating point (`pkg/controller/podautoscaler/replica_calculator.go`). A billionth above that is
    /// enough to act on, and large enough not to be lost in rounding.
    fn lifted(&self, most: Milli, tolerance: u64) -> (Milli, ValueRule) {
        let ceiling = self.ceiling.bounded().unwrap_or(0);
        let short = self.per_replica.times(ceiling.saturating_sub(1));
        let over = short.scaled(tolerance.saturating_add(1000), 1000);
        let margin = Milli::MIN_POSITIVE.plus(over.scaled(1, 1_000_000_000));
        match over.plus(margin) {
            lifted if lifted > most => (lifted, ValueRule::Lifted),
            _ => (most, ValueRule::Clamped),
        }
    }

    /// The value to serve for a lag.
    #[must_use]
    pub fn value(&self, lag: Milli) -> (Milli, ValueRule) {
        let most = self
            .ceiling
            .bounded()
            .map(|ceiling| self.per_replica.times(ceiling));
        match (most, self.bound) {
            (Some(most), ClampRule::Observed { tolerance })
                if lag >= most && lag > Milli::default() =>
            {
                self.lifted(most, tolerance)
            }
            (Some(most), ClampRule::Clamp) if lag > most => (most, ValueRule::Clamped),
            (Some(most), _) if lag > most => (lag, ValueRule::AsMeasured),
            (Some(_), _) if self.even => {
                (self.per_replica.times(self.replicas(lag)), ValueRule::Even)
            }
            _ => (lag, ValueRule::AsMeasured),
        }
    }
}

/// The smallest number of the form ceil(`most` / j) that is at least `at_least`; 0 for 0. `at_least` is at
/// most `most`. With `most` = ceil(U / k) these are also the numbers ceil(U / (k j)).
#[must_use]
pub fn even_step(at_least: u32, most: u32) -> u32 {
    match at_least {
        0 => 0,
        1 => 1,
        // ceil(most / j) >= n if and only if j < most / (n - 1).
        n => {
            let below = most.div_ceil(n.saturating_sub(1));
            most.div_ceil(below.saturating_sub(1).max(1))
        }
    }
}

/// A lag as a Kubernetes quantity, saturating.
#[must_use]
pub fn in_milli(lag: Lag) -> Milli {
    Milli::from_units(lag.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::model::units::newtypes::Replicas;

    fn sizing(ceiling: u32, per: u64, even: bool) -> Sizing {
        Sizing {
            per_replica: Milli::from_units(per),
            ceiling: Limit::Bounded(Replicas(ceiling)),
            even,
            bound: ClampRule::Clamp,
        }
    }

    fn steps(most: u32) -> BTreeSet<u32> {
        (1..=most).map(|j| most.div_ceil(j)).collect()
    }

    #[test]
    fn a_policy_and_a_hold_choose_fewer_replicas_than_the_ceiling_allows() {
        let ceiling = Some(Limit::Bounded(Replicas(12)));
        for (rule, desired, expected) in [
            (ValueRule::Clamped, 12, true),
            (ValueRule::Rate, 12, true),
            (ValueRule::Rate, 4, false),
            (ValueRule::Held, 12, true),
            (ValueRule::Held, 4, false),
        ] {
            let is_cut = rule.is_cut_by(ceiling, 13, desired);
            assert_eq!(is_cut, expected, "{rule:?}");
            assert!(!rule.is_cut_by(ceiling, desired, desired), "{rule:?}");
        }
        assert!(!ValueRule::Rate.is_cut_by(Some(Limit::Unbounded), 13, 4));
        assert!(!ValueRule::Held.is_cut_by(None, 13, 4));
    }

    #[test]
    fn even_steps_share_the_partitions_evenly() {
        for (most, expected) in [
            (13, vec![1, 2, 3, 4, 5, 7, 13]),
            (24, vec![1, 2, 3, 4, 5, 6, 8, 12, 24]),
        ] {
            let found: BTreeSet<u32> = (1..=most).map(|n| even_step(n, most)).collect();
            assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn lag_just_above_the_ceiling_yields_the_ceiling() {
        for lag in 26..=29 {
            let sizing = sizing(5, 5, false);
            let lag = Milli::from_units(lag);
            assert_eq!(sizing.replicas(lag), 5);
            assert_eq!(
                sizing.value(lag),
                (Milli::from_units(25), ValueRule::Clamped)
            );
        }
    }

    #[test]
    fn zero_lag_needs_no_replica_with_even_steps_either() {
        for even in [false, true] {
            let sizing = sizing(13, 10, even);
            assert_eq!(sizing.replicas(Milli::default()), 0);
            assert_eq!(sizing.value(Milli::default()).0, Milli::default());
        }
    }

    #[test]
    fn without_a_limit_nothing_is_clamped_or_rounded() {
        let shared = Sizing {
            ceiling: Limit::Unbounded,
            ..sizing(0, 10, true)
        };
        let lag = Milli::from_units(1_234);
        assert_eq!(shared.replicas(lag), 124);
        assert_eq!(shared.value(lag), (lag, ValueRule::AsMeasured));
        assert_eq!(shared.replicas(Milli::from_units(u64::MAX)), u32::MAX);
    }

    #[test]
    fn without_the_clamp_values_above_the_ceiling_are_served() {
        let open = Sizing {
            bound: ClampRule::None,
            ..sizing(13, 10, true)
        };
        let value = |lag| open.value(Milli::from_units(lag));
        assert_eq!(value(131), (Milli::from_units(131), ValueRule::AsMeasured));
        assert_eq!(value(130), (Milli::from_units(130), ValueRule::Even));
        assert_eq!(value(51), (Milli::from_units(70), ValueRule::Even));
    }

    proptest! {
        /// The number that the HPA computes is the ceiling, from any number of replicas below it.
        #[test]
        #[allow(clippy::cast_precision_loss)]
        fn an_hpa_held_by_its_own_maximum_is_carried_to_the_ceiling(
            ceiling in 2u32..2_000, per in 1u64..1_000_000_000, excess: u32, tolerance in 0u64..500,
        ) {
            let sizing = Sizing { bound: ClampRule::Observed { tolerance }, ..sizing(ceiling, per, false) };
            let most = sizing.per_replica.times(ceiling);
            let (value, _) = sizing.value(most.plus(Milli::from_units(excess.into())));
            prop_assert!(value >= most);
            for now in [ceiling - 1, ceiling.div_ceil(2), 1] {
                let worth = sizing.per_replica.thousandths() as f64 * f64::from(now);
                let ratio = value.thousandths() as f64 / worth;
                prop_assert!((1.0 - ratio).abs() > tolerance as f64 / 1000.0, "stays at {now}");
                prop_assert!(value.ceil_div(sizing.per_replica) >= Some(ceiling.into()));
            }
            // Below the ceiling nothing is raised.
            let less = sizing.per_replica.times(ceiling - 1);
            prop_assert_eq!(sizing.value(less), (less, ValueRule::AsMeasured));
        }

        #[test]
        fn even_steps_match_the_formula(most in 1u32..2_000, wanted in 1u32..2_000) {
            let wanted = wanted.min(most);
            let all = steps(most);
            let expected = all.range(wanted..).next().copied().unwrap();
            prop_assert_eq!(even_step(wanted, most), expected);
        }

        #[test]
        fn even_steps_with_threads_are_those_of_whole_replicas(useful in 1u32..600, threads in 1u32..12) {
            let ceiling = useful.div_ceil(threads);
            let of_members: BTreeSet<u32> = (1..=useful).map(|j| useful.div_ceil(j * threads)).collect();
            prop_assert_eq!(steps(ceiling), of_members);
        }

        #[test]
        fn the_plain_count_is_the_smallest_that_suffices(
            lag in prop_oneof![0u64..100_000, Just(u64::MAX), 0..u64::MAX],
            per in 1u64..10_000_000,
            ceiling in 1u32..3_000,
        ) {
            let per = Milli::parse(&format!("{per}m")).unwrap();
            let sizing = Sizing { per_replica: per, ..sizing(ceiling, 1, false) };
            let lag = in_milli(Lag(lag));
            let wanted = lag.min(per.times(ceiling));
            let n = sizing.replicas(lag);
            prop_assert!(n <= ceiling);
            prop_assert!(per.times(n) >= wanted);
            prop_assert!(n == 0 || per.times(n - 1) < wanted);
            // The HPA's own rounding of the served value gives the same number.
            prop_assert_eq!(sizing.value(lag).0.ceil_div(per), Some(u64::from(n)));
        }

        #[test]
        fn the_value_served_for_an_even_step_yields_that_step(
            lag: u64, per in 1u64..1_000, ceiling in 1u32..3_000,
        ) {
            let sizing = sizing(ceiling, per, true);
            let lag = in_milli(Lag(lag));
            let n = sizing.replicas(lag);
            prop_assert!(n == 0 || steps(ceiling).contains(&n));
            prop_assert_eq!(sizing.value(lag).0, sizing.per_replica.times(n));
        }
    }
}
