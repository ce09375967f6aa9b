//! What survives a restart of policies and holds.

use super::{TargetPolicies, TargetState};
use crate::model::evaluation::policy_outcome::PolicyKey;
use crate::model::lag::history::saved_policy::SavedPolicy;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::{ClusterName, Moment};

/// For how long what an earlier process saved about a target is kept while the target is not observed, in seconds.
const KEEP_UNUSED: f64 = 7.0 * 24.0 * 3600.0;

fn save(key: &PolicyKey, state: &TargetState, now: f64) -> SavedPolicy {
    let rate = state.rate.as_ref();
    SavedPolicy {
        namespace: key.0.namespace.to_string(),
        hpa: key.0.name.to_string(),
        metric: key.1,
        group: state.group.1.to_string(),
        unused: 0,
        is_ready: rate.is_some_and(|rate| rate.is_ready),
        learned: rate.map(|rate| rate.policy.learned().save(now)),
        held: state.held.map(|held| (held.hold, held.replicas)),
    }
}

/// What an earlier process has saved, until its target is observed.
#[derive(Clone, Debug)]
pub(super) struct RestoredPolicy {
    pub(super) cluster: ClusterName,
    pub(super) policy: SavedPolicy,
    /// When it was saved, in seconds on the timeline of the policies.
    pub(super) saved: f64,
}

impl TargetPolicies {
    /// What has to survive a restart, of the targets on a cluster.
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
            .retain(|_, unused| now - unused.saved < KEEP_UNUSED);
        let unused = self.restored.values();
        let unused = unused.filter(|unused| unused.cluster == *cluster);
        all.extend(unused.map(|unused| SavedPolicy {
            unused: to_seconds(now - unused.saved),
            ..unused.policy.clone()
        }));
        all
    }

    /// Takes in what an earlier process saved, at `saved` in seconds since 1970. Policies that have a number of their own
    /// already, because the storage answered late, keep it.
    pub fn import(&mut self, cluster: &ClusterName, policies: &[SavedPolicy], saved: u32) {
        for policy in policies {
            let hpa = HpaKey::new(policy.namespace.as_str(), policy.hpa.as_str());
            let key = (hpa, policy.metric);
            let state = self.states.get(&key);
            let rate = state.and_then(|state| state.rate.as_ref());
            if !rate.is_some_and(|rate| rate.is_ready) {
                self.states.remove(&key);
                let restored = RestoredPolicy {
                    cluster: cluster.clone(),
                    policy: policy.clone(),
                    saved: f64::from(saved) - f64::from(policy.unused),
                };
                self.restored.insert(key, restored);
            }
        }
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
