//! Simulates a policy that is only recommended, and compares it with what happened.

use serde::{Deserialize, Serialize};

use super::decision::RateTerms;
use super::reading::SupposedGroup;

/// Totals of scaling over some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScalingTotals {
    /// Replicas times minutes.
    pub replica_minutes: f64,
    /// Changes of the number of replicas, each of which is at least one rebalance.
    pub changes: u32,
    /// Messages processed.
    pub messages: f64,
    /// Messages that were older than the objective when they were processed.
    pub late_messages: f64,
}

impl ScalingTotals {
    /// Part of the messages that was late; `None` without messages.
    #[must_use]
    pub fn late_share(&self) -> Option<f64> {
        (self.messages > 0.0).then(|| self.late_messages / self.messages)
    }

    fn add(&mut self, replicas: u32, seconds: f64, messages: f64, is_late: bool) {
        self.replica_minutes += f64::from(replicas) * seconds / 60.0;
        self.messages += messages;
        if is_late {
            self.late_messages += messages;
        }
    }
}

/// A group as it would be with as many members as the policy recommends: arrivals and capacity are measured, the
/// backlog is what they leave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RecommendedGroup {
    members: u32,
    backlog: f64,
    /// The number recommended, and when its members have joined.
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
    /// Begins with the group as it is.
    #[must_use]
    pub fn new(now: f64, members: u32, backlog: f64) -> Self {
        Self {
            members: members.max(1),
            backlog,
            pending: None,
            paused_until: now,
            actual_members: members,
            since: now,
            recommended: ScalingTotals::default(),
            actual: ScalingTotals::default(),
        }
    }

    /// Lets the time since the last reading pass. `consumed` are messages per second that the group really processed,
    /// and `is_late` says whether they were older than `slo`, which is in seconds.
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
            (self.members, self.pending) = (members, None);
            self.paused_until = now + terms.pause;
        }
        let works = (elapsed - (self.paused_until - (now - elapsed)).clamp(0.0, elapsed)).max(0.0);
        self.backlog += terms.arrivals_fast * elapsed;
        let processed = (terms.capacity * f64::from(self.members) * works).min(self.backlog);
        let age = self.age(terms);
        self.backlog -= processed;
        self.recommended
            .add(self.members, elapsed, processed, age > slo);
    }

    /// Takes in what the policy recommends. More members take as long as the reaction to join.
    pub fn follow(&mut self, now: f64, replicas: u32, terms: &RateTerms) {
        let expected = self.pending.map_or(self.members, |(_, pending)| pending);
        if replicas == expected {
            return;
        }
        self.recommended.changes = self.recommended.changes.saturating_add(1);
        let wait = match replicas > self.members {
            true => (terms.delay - terms.pause).max(0.0),
            false => 0.0,
        };
        self.pending = Some((now + wait, replicas));
    }

    fn age(&self, terms: &RateTerms) -> f64 {
        match self.backlog > 0.0 {
            true => self.backlog / terms.arrivals_fast.max(1e-3),
            false => 0.0,
        }
    }

    /// The group as the rules of the policy see it.
    #[must_use]
    pub fn supposed(&self, terms: &RateTerms) -> SupposedGroup {
        SupposedGroup {
            members: self.members,
            backlog: self.backlog,
            age: self.age(terms),
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
        let mut group = RecommendedGroup::new(0.0, 2, 0.0);
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
        assert_eq!(group.supposed(&terms(600.0)).members, 2);
        pass(&mut group, 600, 600.0);
        let after = group.supposed(&terms(600.0));
        assert_eq!((after.members, after.backlog < 1.0), (8, true), "{after:?}");
        let late = group.recommended.late_share().unwrap();
        assert!((0.01..0.5).contains(&late), "{late}");
        assert_eq!(group.actual.changes, 0);
    }
}
