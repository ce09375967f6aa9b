//! Simulates a policy that is only recommended, and compares it with what happened.

use super::decision::RateTerms;
use super::fluid_group::{FluidGroup, FluidProgress};
use super::reading::SupposedGroup;
use super::scaling_totals::ScalingTotals;

/// Simulates a group with as many members as the policy recommends: arrivals and capacity are measured, and the backlog
/// follows from them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RecommendedGroup {
    group: FluidGroup,
    /// Messages processed between the last two readings.
    processed: f64,
    /// When the members of the last recommendation will have joined, and their number.
    pending: Option<(f64, u32)>,
    /// Until when a rebalance stops the group.
    paused_until: f64,
    actual_members: u32,
    /// When the totals began, in seconds on the timeline of the readings.
    pub since: f64,
    /// Totals if the recommendation had been applied.
    pub recommended: ScalingTotals,
    /// Totals of what happened.
    pub actual: ScalingTotals,
}

impl RecommendedGroup {
    /// Begins with the group as it is: its members, its backlog and the age of the oldest message in it.
    #[must_use]
    pub fn new(now: f64, members: u32, (backlog, age): (f64, f64)) -> Self {
        Self {
            group: FluidGroup {
                members: members.max(1),
                backlog,
                age,
            },
            processed: 0.0,
            pending: None,
            paused_until: now,
            actual_members: members,
            since: now,
            recommended: ScalingTotals::default(),
            actual: ScalingTotals::default(),
        }
    }

    /// Advances the simulation to the current reading. `consumed` are messages per second that the group really
    /// processed, and `is_late` says whether they were older than `slo`, which is in seconds.
    pub fn advance(
        &mut self,
        (now, elapsed): (f64, f64),
        terms: &RateTerms,
        actual: (u32, f64, bool),
        slo: f64,
    ) {
        let (members, consumed, is_late) = actual;
        self.actual
            .add(members, elapsed, consumed * elapsed, is_late);
        if members != self.actual_members && members > 0 {
            self.actual.changes = self.actual.changes.saturating_add(1);
            self.actual_members = members;
        }
        if let Some((at, members)) = self.pending
            && now >= at
        {
            (self.group.members, self.pending) = (members, None);
            self.paused_until = now + terms.pause;
        }
        let working =
            (elapsed - (self.paused_until - (now - elapsed)).clamp(0.0, elapsed)).max(0.0);
        let arrivals = terms.arrivals_fast;
        let progress = self
            .group
            .advance((elapsed, working), arrivals, terms.capacity);
        let FluidProgress { processed, age } = progress;
        self.processed = processed;
        self.recommended
            .add(self.group.members, elapsed, processed, age > slo);
    }

    /// Records what the policy recommends. More members take as long as the reaction to join.
    pub fn follow(&mut self, now: f64, replicas: u32, terms: &RateTerms) {
        let expected = self
            .pending
            .map_or(self.group.members, |(_, pending)| pending);
        if replicas == expected {
            return;
        }
        self.recommended.changes = self.recommended.changes.saturating_add(1);
        let wait = match replicas > self.group.members {
            true => (terms.delay - terms.pause).max(0.0),
            false => 0.0,
        };
        self.pending = Some((now + wait, replicas));
    }

    /// The simulated group, as an input of the policy.
    #[must_use]
    pub fn supposed(&self) -> SupposedGroup {
        SupposedGroup {
            members: self.group.members,
            backlog: self.group.backlog,
            age: self.group.age,
            processed: self.processed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(arrivals: f64) -> RateTerms {
        RateTerms {
            arrivals_fast: arrivals,
            capacity: 100.0,
            delay: 50.0,
            pause: 5.0,
            ..RateTerms::default()
        }
    }

    #[test]
    fn too_few_members_make_messages_late_until_more_have_joined() {
        let mut group = RecommendedGroup::new(0.0, 2, (0.0, 0.0));
        let slo = 20.0;
        let mut now = 0.0;
        let mut pass = |group: &mut RecommendedGroup, seconds: u32, arrivals: f64| {
            for _ in 0..seconds / 5 {
                now += 5.0;
                group.advance((now, 5.0), &terms(arrivals), (2, arrivals, false), slo);
            }
            now
        };
        let now = pass(&mut group, 60, 150.0);
        assert_eq!(group.recommended.late_share(), Some(0.0));
        assert!((group.recommended.replica_minutes - 2.0).abs() < 1e-6);
        assert!((group.actual.replica_minutes - 2.0).abs() < 1e-6);
        group.follow(now, 8, &terms(600.0));
        group.follow(now, 8, &terms(600.0));
        assert_eq!(group.recommended.changes, 1);
        // 45 s until they join: 400 messages per second are left over.
        pass(&mut group, 40, 600.0);
        assert_eq!(group.supposed().members, 2);
        pass(&mut group, 600, 600.0);
        let after = group.supposed();
        assert_eq!((after.members, after.backlog < 1.0), (8, true), "{after:?}");
        let late = group.recommended.late_share().unwrap();
        assert!((0.01..0.5).contains(&late), "{late}");
        assert_eq!(group.actual.changes, 0);
    }
}
