//! Simulates the pods of a Deployment, and the controller that starts and stops them.

use super::numbers::count;
use super::scenario::Scenario;

/// One pod.
#[derive(Clone, Copy, Debug)]
pub struct Pod {
    /// Identifies the pod and its member.
    pub id: u32,
    /// Random order of members in the group.
    pub order: u32,
    /// Messages per second.
    pub capacity: f64,
    /// Second of the run in which it joins the group.
    pub ready_at: u32,
    pub is_member: bool,
    /// Second of its commits within the commit interval.
    pub commit_phase: u32,
    /// Version of the pod template.
    pub version: u32,
    /// Fraction of a message left over from its capacity, which the next second gets in addition.
    pub carry: f64,
}

/// The pods of a workload.
#[derive(Clone, Debug)]
pub struct Deployment {
    pub pods: Vec<Pod>,
    pub spec_replicas: u32,
    pub version: u32,
    next_id: u32,
    random: fastrand::Rng,
}

impl Deployment {
    /// A workload whose pods all run and are members of the group.
    #[must_use]
    pub fn running(scenario: &Scenario, replicas: u32, seed: u64) -> Self {
        let mut deployment = Self {
            pods: Vec::new(),
            spec_replicas: replicas,
            version: 0,
            next_id: 0,
            random: fastrand::Rng::with_seed(seed),
        };
        for _ in 0..replicas {
            deployment.start_pod(scenario, 0);
        }
        for pod in &mut deployment.pods {
            pod.ready_at = 0;
            pod.is_member = true;
        }
        deployment
    }

    fn start_pod(&mut self, scenario: &Scenario, now: u32) {
        let (shortest, longest) = scenario.start_up;
        let spread = scenario.capacity_spread * (2.0 * self.random.f64() - 1.0);
        self.pods.push(Pod {
            id: self.next_id,
            order: self.random.u32(..),
            capacity: scenario.capacity * (1.0 + spread),
            ready_at: now + self.random.u32(shortest..=longest),
            is_member: false,
            commit_phase: self.random.u32(0..scenario.commit_interval.max(1)),
            version: self.version,
            carry: 0.0,
        });
        self.next_id += 1;
    }

    /// Starts and stops pods as the deployment's controller does, with its default `maxSurge` and `maxUnavailable` of
    /// 25 %. Returns the pods that stopped.
    pub fn reconcile(&mut self, scenario: &Scenario, now: u32) -> Vec<Pod> {
        let replicas = self.spec_replicas;
        let mut stopped = Vec::new();
        let version = self.version;
        let is_outdated = |pod: &Pod| pod.version != version;
        let outdated = count(self.pods.iter().filter(|pod| is_outdated(pod)).count());
        let surge = if outdated > 0 {
            replicas.div_ceil(4)
        } else {
            0
        };
        let mut present = count(self.pods.len());
        let mut updated = present - outdated;
        while present < replicas + surge && updated < replicas {
            self.start_pod(scenario, now);
            present += 1;
            updated += 1;
        }
        // On a scale-down, stop pods of old versions first, then those that are starting, then the youngest.
        while count(self.pods.len()) > replicas + surge {
            let rank = |pod: &Pod| (!is_outdated(pod), pod.is_member, u32::MAX - pod.id);
            let Some(index) = (0..self.pods.len()).min_by_key(|index| rank(&self.pods[*index]))
            else {
                break;
            };
            stopped.push(self.pods.remove(index));
        }
        let min_available = replicas - replicas / 4;
        loop {
            let available = count(self.pods.iter().filter(|pod| pod.is_member).count());
            let starting = self
                .pods
                .iter()
                .position(|pod| is_outdated(pod) && !pod.is_member);
            let running = self.pods.iter().position(is_outdated);
            let index = starting.or(running.filter(|_| available > min_available));
            let Some(index) = index else { break };
            stopped.push(self.pods.remove(index));
        }
        stopped
    }
}
