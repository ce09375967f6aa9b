//! The HPAs that wait for a pass.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::state::Urgency;
use crate::model::units::hpa_key::HpaKey;

/// The HPAs that wait for a pass. Urgent ones come first. Among the others, and among the urgent ones, the namespaces
/// take turns, so that one with thousands of HPAs does not keep the others waiting.
#[derive(Debug, Default)]
pub(super) struct PassQueue {
    waiting: BTreeSet<(Urgency, HpaKey)>,
    /// The namespace of the HPA that was taken last, by urgency, so that urgent HPAs do not change the turns of others.
    last: BTreeMap<Urgency, Arc<str>>,
}

impl PassQueue {
    pub(super) fn insert(&mut self, urgency: Urgency, key: HpaKey) {
        self.waiting.insert((urgency, key));
    }

    pub(super) fn remove(&mut self, key: &HpaKey) {
        for urgency in Urgency::ALL {
            self.waiting.remove(&(urgency, key.clone()));
        }
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Takes the HPA whose turn it is.
    pub(super) fn take_next(&mut self) -> Option<HpaKey> {
        let (urgency, first) = self.waiting.first().cloned()?;
        let key = self.first_after_last(urgency).unwrap_or(first);
        self.waiting.remove(&(urgency, key.clone()));
        self.last.insert(urgency, Arc::clone(&key.namespace));
        Some(key)
    }

    /// The first HPA of this urgency in the namespaces after the last one.
    fn first_after_last(&self, urgency: Urgency) -> Option<HpaKey> {
        let last = self.last.get(&urgency)?;
        // No name sorts between the last namespace and this one.
        let after = HpaKey::new(format!("{last}\0"), "");
        let (of, key) = self.waiting.range((urgency, after)..).next()?;
        (*of == urgency).then(|| key.clone())
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &(Urgency, HpaKey)> {
        self.waiting.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_take_turns_and_urgent_ones_come_first() {
        let mut queue = PassQueue::default();
        for n in 0..1000 {
            queue.insert(Urgency::Normal, HpaKey::new("a", format!("{n:03}")));
        }
        for (urgency, namespace, name) in [
            (Urgency::Normal, "a-1", "x"),
            (Urgency::Normal, "z", "x"),
            (Urgency::Normal, "z", "y"),
            (Urgency::Wake, "m", "x"),
            (Urgency::Wake, "b", "x"),
        ] {
            queue.insert(urgency, HpaKey::new(namespace, name));
        }
        queue.remove(&HpaKey::new("z", "y"));
        let taken = Vec::from_iter(std::iter::from_fn(|| queue.take_next()));
        let first = taken.iter().take(7).map(ToString::to_string);
        let expected = ["b/x", "m/x", "a/000", "a-1/x", "z/x", "a/001", "a/002"];
        assert_eq!(Vec::from_iter(first), expected);
        assert_eq!(taken.len(), 1004);
    }

    #[test]
    fn urgent_ones_do_not_skip_the_turns_of_others() {
        let mut queue = PassQueue::default();
        for namespace in ["a", "z"] {
            for n in 0..3 {
                queue.insert(Urgency::Normal, HpaKey::new(namespace, format!("{n}")));
            }
        }
        let mut taken = Vec::new();
        for n in 0..3 {
            queue.insert(Urgency::Wake, HpaKey::new("m", format!("{n}")));
            taken.extend(queue.take_next());
            taken.extend(queue.take_next());
        }
        let taken = Vec::from_iter(taken.iter().map(ToString::to_string));
        assert_eq!(taken, ["m/0", "a/0", "m/1", "z/0", "m/2", "a/1"]);
    }
}
