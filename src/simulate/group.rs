//! The consumer group: members, owners of partitions, and rebalances.

use super::pods::Pod;
use super::scenario::{RebalanceProtocol, Scenario};

/// State of the group.
#[derive(Clone, Debug)]
pub struct SimulatedGroup {
    /// Owner of each partition, by the pod's ID.
    pub owners: Vec<Option<u32>>,
    /// When the running rebalance ends.
    ends_at: Option<u32>,
    /// Rebalances that were started.
    pub rebalances: u32,
    random: fastrand::Rng,
}

impl SimulatedGroup {
    /// A stable group of these pods.
    #[must_use]
    pub fn stable(pods: &[Pod], partitions: usize, seed: u64) -> Self {
        let mut group = Self {
            owners: vec![None; partitions],
            ends_at: None,
            rebalances: 0,
            random: fastrand::Rng::with_seed(seed),
        };
        group.owners = group.assign(pods, partitions, RebalanceProtocol::Eager);
        group
    }

    #[must_use]
    pub fn is_stable(&self) -> bool {
        self.ends_at.is_none()
    }

    /// Starts a rebalance, unless one is running: members that join or leave during one are part of it. Returns the
    /// partitions that are revoked.
    pub fn start_rebalance(
        &mut self,
        scenario: &Scenario,
        pods: &[Pod],
        partitions: usize,
        now: u32,
    ) -> Vec<usize> {
        if self.ends_at.is_some() {
            return Vec::new();
        }
        self.rebalances += 1;
        self.owners.resize(partitions, None);
        let (eager, cooperative) = scenario.pause;
        let (mean, kept) = match scenario.protocol {
            RebalanceProtocol::Eager => (eager, vec![None; partitions]),
            RebalanceProtocol::Cooperative => (
                cooperative,
                self.assign(pods, partitions, scenario.protocol),
            ),
        };
        let shortest = (mean - mean / 3).max(1);
        self.ends_at = Some(now + self.random.u32(shortest..=mean + mean / 3));
        let mut revoked = Vec::new();
        for (partition, (owner, next)) in self.owners.iter_mut().zip(kept).enumerate() {
            if *owner != next {
                if owner.is_some() {
                    revoked.push(partition);
                }
                *owner = None;
            }
        }
        revoked
    }

    /// Ends the rebalance if it is time. Returns whether it ended.
    pub fn end_rebalance(
        &mut self,
        scenario: &Scenario,
        pods: &[Pod],
        partitions: usize,
        now: u32,
    ) -> bool {
        if self.ends_at.is_none_or(|at| now < at) {
            return false;
        }
        self.ends_at = None;
        self.owners = self.assign(pods, partitions, scenario.protocol);
        true
    }

    /// Assigns the partitions to the members: in ranges if eager, or with as few moves as possible.
    fn assign(
        &self,
        pods: &[Pod],
        partitions: usize,
        protocol: RebalanceProtocol,
    ) -> Vec<Option<u32>> {
        let mut members: Vec<&Pod> = pods.iter().filter(|pod| pod.is_member).collect();
        members.sort_unstable_by_key(|pod| (pod.order, pod.id));
        let mut owners = vec![None; partitions];
        if members.is_empty() {
            return owners;
        }
        let (each, more) = (partitions / members.len(), partitions % members.len());
        if protocol == RebalanceProtocol::Eager {
            let mut slots = owners.iter_mut();
            for (place, member) in members.iter().enumerate() {
                let count = each + usize::from(place < more);
                for owner in slots.by_ref().take(count) {
                    *owner = Some(member.id);
                }
            }
            return owners;
        }
        // Members with many partitions first keep the larger share.
        let has = |id: u32| {
            self.owners
                .iter()
                .filter(|owner| **owner == Some(id))
                .count()
        };
        members.sort_by_key(|pod| std::cmp::Reverse(has(pod.id)));
        let mut wanted: Vec<(u32, usize)> = Vec::new();
        for (place, member) in members.iter().enumerate() {
            wanted.push((member.id, each + usize::from(place < more)));
        }
        for (owner, before) in owners.iter_mut().zip(&self.owners) {
            let kept = wanted
                .iter_mut()
                .find(|(id, left)| *left > 0 && Some(*id) == *before);
            if let Some((id, left)) = kept {
                *owner = Some(*id);
                *left -= 1;
            }
        }
        for owner in owners.iter_mut().filter(|owner| owner.is_none()) {
            if let Some((id, left)) = wanted.iter_mut().find(|(_, left)| *left > 0) {
                *owner = Some(*id);
                *left -= 1;
            }
        }
        owners
    }
}
