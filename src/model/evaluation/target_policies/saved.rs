//! Saves and restores the state of policies and holds over a restart.

use super::restored_policy::RestoredPolicy;
use super::{TargetPolicies, TargetState};
use crate::model::evaluation::policy_outcome::PolicyKey;
use crate::model::lag::history::saved_policy::SavedPolicy;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::{ClusterName, Moment};
use crate::model::units::persistent_map::PersistentMap;

/// For how long the saved state of a target is kept while the target is not observed, in seconds.
const KEEP_UNUSED: f64 = 7.0 * 24.0 * 3600.0;

fn save(key: &PolicyKey, state: &TargetState, now: f64) -> SavedPolicy {
    let rate = state.rate.as_ref();
    // Saving a restored policy again must not reset the time since its last observation.
    let unused = rate.map_or(0, |rate| to_seconds(rate.seconds_unobserved(now)));
    let known_at = now - f64::from(unused);
    let held = state.held;
    SavedPolicy {
        namespace: key.1.namespace.to_string(),
        hpa: key.1.name.to_string(),
        metric: state.index,
        group: state.group.1.to_string(),
        unused,
        is_ready: rate.is_some_and(|rate| rate.is_ready),
        learned: rate.map(|rate| rate.policy.learned().save(known_at)),
        held: held.and_then(|held| Some((held.hold, held.replicas?))),
    }
}

impl TargetPolicies {
    /// State that has to survive a restart, of the targets on a cluster.
    pub fn export(&mut self, cluster: &ClusterName, now: &Moment) -> Vec<SavedPolicy> {
        self.is_unsaved = false;
        let now = self.seconds(now);
        let states = self.states.iter();
        let states = states.filter(|(_, state)| {
            let has_any = state.rate.is_some() || state.held.is_some();
            has_any && state.group.0 == *cluster
        });
        let mut all: Vec<_> = states.map(|(key, state)| save(key, state, now)).collect();
        self.restored
            .retain(|_, unused| now - unused.observed_at < KEEP_UNUSED);
        let unused = self.restored.values();
        let unused = unused.filter(|unused| unused.cluster == *cluster);
        all.extend(unused.map(|unused| SavedPolicy {
            unused: to_seconds(now - unused.observed_at),
            ..unused.policy.clone()
        }));
        all
    }

    /// Adds the policies that an earlier process saved at `saved`, in seconds since 1970. A policy that has already
    /// computed replicas, because the storage answered late, keeps its state.
    pub fn import(&mut self, cluster: &ClusterName, policies: &[SavedPolicy], saved: u32) {
        for policy in policies {
            let hpa = HpaKey::new(policy.namespace.as_str(), policy.hpa.as_str());
            let known = self
                .states
                .of_hpa(&hpa)
                .find(|(_, state)| state.index == policy.metric)
                .map(|(key, state)| (key.clone(), state.rate.as_ref()));
            if let Some((key, rate)) = known {
                if rate.is_some_and(|rate| rate.is_ready) {
                    continue;
                }
                self.states.remove(&key);
            }
            let restored = RestoredPolicy {
                cluster: cluster.clone(),
                policy: policy.clone(),
                observed_at: f64::from(saved) - f64::from(policy.unused),
            };
            self.restored.insert((hpa, policy.metric), restored);
        }
        // The next call of `resume` then gives the restored state to targets that are already known.
        self.seen = PersistentMap::default();
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bounded on both sides"
)]
fn to_seconds(seconds: f64) -> u32 {
    seconds.clamp(0.0, f64::from(u32::MAX)) as u32
}
