//! The text form of the saved state.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::model::lag::history::memory::{SavedHistory, VERSION};
use crate::model::units::newtypes::ClusterName;

/// Encodes the history as a text of at most `max_bytes`. Returns how many groups were left out for that.
#[must_use]
pub fn encode(history: &SavedHistory, max_bytes: usize) -> (String, usize) {
    let mut text = json(history);
    if text.len() <= max_bytes {
        return (text, 0);
    }
    let mut left = history.clone();
    left.drop_policies_without_group();
    text = json(&left);
    let of_policies = policy_bytes(history);
    let mut dropped = 0;
    let mut candidates = history.least_important_first().into_iter();
    while text.len() > max_bytes {
        // Encoding all of it for each dropped group would take quadratic time: drop as many groups as
        // their own texts say, then check again.
        let mut excess = text.len() - max_bytes;
        let mut leaving: BTreeMap<ClusterName, BTreeSet<String>> = BTreeMap::new();
        while excess > 0
            && let Some((cluster, group)) = candidates.next()
        {
            let of_policies = of_policies.get(&(cluster.as_str(), group.as_str()));
            let bytes = group_bytes(history, cluster.as_str(), &group)
                .saturating_add(of_policies.copied().unwrap_or_default());
            excess = excess.saturating_sub(bytes);
            leaving.entry(cluster).or_default().insert(group);
            dropped += 1;
        }
        if leaving.is_empty() {
            // Even without any group it is too long.
            return (json(&SavedHistory::default()), dropped);
        }
        left.drop_groups(&leaving);
        text = json(&left);
    }
    (text, dropped)
}

/// Bytes of a group without its policies.
fn group_bytes(history: &SavedHistory, cluster: &str, group: &str) -> usize {
    let known = history.clusters.get(cluster);
    let group = known.and_then(|known| known.groups.get(group));
    group.map_or(0, |group| json(group).len())
}

/// Bytes of the policies by cluster and group, with which they are dropped.
fn policy_bytes(history: &SavedHistory) -> BTreeMap<(&str, &str), usize> {
    let mut bytes: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (cluster, known) in &history.clusters {
        for policy in &known.policies {
            let of_group = bytes.entry((cluster.as_str(), policy.group())).or_default();
            // With the comma before it.
            let with_comma = json(policy).len().saturating_add(1);
            *of_group = of_group.saturating_add(with_comma);
        }
    }
    bytes
}

fn json<T: serde::Serialize>(value: &T) -> String {
    // Names, numbers and lists of them cannot fail.
    serde_json::to_string(value).unwrap_or_default()
}

/// Decodes what [`encode`] wrote.
///
/// # Errors
/// Why it cannot be used: it is of another version, or not a state of lagwise.
pub fn decode(text: &str) -> Result<SavedHistory, String> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let Versioned { version } = serde_json::from_str(text).map_err(|e| e.to_string())?;
    if version != VERSION {
        return Err(format!(
            "it has version {version}, but this build reads version {VERSION}"
        ));
    }
    serde_json::from_str(text).map_err(|e| e.to_string())
}
