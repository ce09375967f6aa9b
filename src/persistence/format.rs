//! The text form of the saved state.

use serde::Deserialize;

use crate::model::lag::history::memory::{SavedHistory, VERSION};

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
    let mut dropped = 0;
    let mut candidates = history.least_important_first().into_iter();
    while text.len() > max_bytes {
        // Encoding all of it for each dropped group would take quadratic time: drop as many groups as
        // their own texts say, then look again.
        let mut excess = text.len() - max_bytes;
        let before = dropped;
        while excess > 0
            && let Some((cluster, group)) = candidates.next()
        {
            let known = left.clusters.get(cluster.as_str());
            let room = known.and_then(|c| c.groups.get(&group)).map(json);
            excess = excess.saturating_sub(room.map_or(0, |room| room.len()));
            left.drop_group(&cluster, &group);
            dropped += 1;
        }
        if dropped == before {
            // Even without any group it is too long.
            return (json(&SavedHistory::default()), dropped);
        }
        text = json(&left);
    }
    (text, dropped)
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
