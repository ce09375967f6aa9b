//! Sorted-vector map keyed by topic. Most groups read one topic, for which a tree node would take more
//! memory than its contents.

use std::borrow::Borrow;
use std::ops::Index;

use crate::model::units::newtypes::TopicName;

/// Map from topic to value, ordered by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicMap<V>(Vec<(TopicName, V)>);

impl<V> Default for TopicMap<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<V> TopicMap<V> {
    /// Creates an empty map with exactly this capacity.
    #[must_use]
    pub fn with_capacity(topics: usize) -> Self {
        Self(Vec::with_capacity(topics))
    }

    /// The value of a topic.
    pub fn get<Q: Ord + ?Sized>(&self, topic: &Q) -> Option<&V>
    where
        TopicName: Borrow<Q>,
    {
        let index = self.position(topic).ok()?;
        self.0.get(index).map(|(_, value)| value)
    }

    /// The topic at a position in the order of names, with its value.
    #[must_use]
    pub fn get_index(&self, index: usize) -> Option<(&TopicName, &V)> {
        self.0.get(index).map(split)
    }

    /// As [`get`](Self::get), for a topic that probably has this position.
    #[must_use]
    pub fn get_near<Q: Ord + ?Sized>(&self, index: usize, topic: &Q) -> Option<&V>
    where
        TopicName: Borrow<Q>,
    {
        let index = self.position_near(index, topic)?;
        self.0.get(index).map(|(_, value)| value)
    }

    /// As [`get_mut`](Self::get_mut), for a topic that probably has this position.
    pub fn get_mut_near<Q: Ord + ?Sized>(&mut self, index: usize, topic: &Q) -> Option<&mut V>
    where
        TopicName: Borrow<Q>,
    {
        let index = self.position_near(index, topic)?;
        self.0.get_mut(index).map(|(_, value)| value)
    }

    /// Whether the topic has a value.
    pub fn contains_key<Q: Ord + ?Sized>(&self, topic: &Q) -> bool
    where
        TopicName: Borrow<Q>,
    {
        self.position(topic).is_ok()
    }

    /// Sets the value of a topic and returns the previous one.
    pub fn insert(&mut self, topic: TopicName, value: V) -> Option<V> {
        match self.position(&topic) {
            Ok(index) => {
                let (_, known) = self.0.get_mut(index)?;
                Some(std::mem::replace(known, value))
            }
            Err(index) => {
                self.0.reserve_exact(1);
                self.0.insert(index, (topic, value));
                None
            }
        }
    }

    /// Removes a topic and returns its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, topic: &Q) -> Option<V>
    where
        TopicName: Borrow<Q>,
    {
        let index = self.position(topic).ok()?;
        Some(self.0.remove(index).1)
    }

    /// Mutable value of a topic.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, topic: &Q) -> Option<&mut V>
    where
        TopicName: Borrow<Q>,
    {
        let index = self.position(topic).ok()?;
        self.0.get_mut(index).map(|(_, value)| value)
    }

    /// Retains the topics for which `keep` returns true.
    pub fn retain(&mut self, mut keep: impl FnMut(&TopicName, &V) -> bool) {
        self.0.retain(|(topic, value)| keep(topic, value));
    }

    /// Number of topics.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the map is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The topics.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &TopicName> + Clone {
        self.0.iter().map(|(topic, _)| topic)
    }

    pub fn values(&self) -> impl ExactSizeIterator<Item = &V> + Clone {
        self.0.iter().map(|(_, value)| value)
    }

    /// Mutable values.
    pub fn values_mut(&mut self) -> impl ExactSizeIterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    /// Topics and values.
    pub fn iter(&self) -> Iter<'_, V> {
        self.0.iter().map(split)
    }

    /// Two maps of one group usually have the same topics, and then no search is necessary.
    fn position_near<Q: Ord + ?Sized>(&self, index: usize, topic: &Q) -> Option<usize>
    where
        TopicName: Borrow<Q>,
    {
        let there = self.0.get(index);
        let is_there = there.is_some_and(|(known, _)| known.borrow() == topic);
        match is_there {
            true => Some(index),
            false => self.position(topic).ok(),
        }
    }

    fn position<Q: Ord + ?Sized>(&self, topic: &Q) -> Result<usize, usize>
    where
        TopicName: Borrow<Q>,
    {
        self.0
            .binary_search_by(|(known, _)| known.borrow().cmp(topic))
    }
}

/// Topics and values, in the order of names.
pub type Iter<'a, V> =
    std::iter::Map<std::slice::Iter<'a, (TopicName, V)>, fn(&(TopicName, V)) -> (&TopicName, &V)>;

fn split<V>(entry: &(TopicName, V)) -> (&TopicName, &V) {
    (&entry.0, &entry.1)
}

impl<'a, V> IntoIterator for &'a TopicMap<V> {
    type Item = (&'a TopicName, &'a V);
    type IntoIter = Iter<'a, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<V> IntoIterator for TopicMap<V> {
    type Item = (TopicName, V);
    type IntoIter = std::vec::IntoIter<(TopicName, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<V> FromIterator<(TopicName, V)> for TopicMap<V> {
    fn from_iter<I: IntoIterator<Item = (TopicName, V)>>(entries: I) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        if !entries.is_sorted_by(|(before, _), (topic, _)| before < topic) {
            // Of several values of a topic the last one counts, as in a `BTreeMap`.
            entries.reverse();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            entries.dedup_by(|(topic, _), (before, _)| topic == before);
        }
        Self(entries)
    }
}

impl<V, const N: usize> From<[(TopicName, V); N]> for TopicMap<V> {
    fn from(entries: [(TopicName, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<Q: Ord + ?Sized, V> Index<&Q> for TopicMap<V>
where
    TopicName: Borrow<Q>,
{
    type Output = V;

    /// For tests; panics like `BTreeMap` if the topic is absent.
    #[allow(clippy::indexing_slicing, reason = "as documented")]
    fn index(&self, topic: &Q) -> &V {
        let index = self.position(topic).unwrap_or(usize::MAX);
        &self.0[index].1
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn topic_map_behaves_like_a_btree_map(steps in proptest::collection::vec((0u8..20, any::<bool>()), 0..60)) {
            let (mut map, mut tree) = (TopicMap::default(), BTreeMap::new());
            for (i, (name, removes)) in steps.into_iter().enumerate() {
                let name = TopicName::from(format!("t{name}"));
                if removes {
                    prop_assert_eq!(map.remove(&name), tree.remove(&name));
                } else {
                    prop_assert_eq!(map.insert(name.clone(), i), tree.insert(name, i));
                }
            }
            prop_assert_eq!(map.len(), tree.len());
            prop_assert!(map.iter().eq(tree.iter()));
            prop_assert!(tree.keys().all(|name| map[name] == tree[name] && map.contains_key(name)));
            for (index, name) in (0..20).map(|i| TopicName::from(format!("t{i}"))).enumerate() {
                prop_assert_eq!(map.get_near(index, &name), tree.get(&name));
                prop_assert_eq!(map.get_mut_near(index, &name).copied(), tree.get(&name).copied());
            }
        }

        #[test]
        fn collecting_keeps_the_last_value_of_a_topic(names in proptest::collection::vec(0u8..9, 0..20)) {
            let entries = || names.iter().enumerate().map(|(i, n)| (TopicName::from(format!("t{n}")), i));
            let (map, tree): (TopicMap<_>, BTreeMap<_, _>) = (entries().collect(), entries().collect());
            prop_assert!(map.iter().eq(tree.iter()));
        }
    }
}
