//! An ordered map of which a clone is cheap and shares its entries with the original.
//!
//! Snapshots are immutable and published often, so a map with thousands of entries must be neither copied nor
//! compared whole for one changed entry. A change copies the path to the entry, and [`PersistentMap::diff`] skips
//! what two versions share.
//!
//! The map is a treap: a binary search tree by key that is also a heap by the hash of the key. Keys thus decide its
//! shape, whatever the order of insertions, so that two versions can be compared in lock-step. (`imbl` has such maps
//! under a licence that `deny.toml` does not allow; `immutable-chunkmap` compares all entries.)

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::mem;
use std::sync::{Arc, LazyLock};

/// An ordered map whose clones share their entries.
pub struct PersistentMap<K, V> {
    root: Link<K, V>,
    len: usize,
}

type Link<K, V> = Option<Arc<TreeNode<K, V>>>;

struct TreeNode<K, V> {
    priority: u64,
    key: K,
    value: V,
    left: Link<K, V>,
    right: Link<K, V>,
}

/// Keyed anew in each process, so that nobody can choose names that make the tree a list.
static PRIORITIES: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl<K: Ord, V> PersistentMap<K, V> {
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    #[must_use]
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.get_key_value(key).map(|(_, value)| value)
    }

    #[must_use]
    pub fn get_key_value<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        let mut link = &self.root;
        while let Some(node) = link {
            link = match key.cmp(node.key.borrow()) {
                Ordering::Less => &node.left,
                Ordering::Equal => return Some((&node.key, &node.value)),
                Ordering::Greater => &node.right,
            };
        }
        None
    }

    #[must_use]
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// The entries in the order of keys.
    #[must_use]
    pub fn iter(&self) -> Entries<'_, K, V> {
        let mut entries = Entries { ahead: Vec::new() };
        entries.descend(&self.root);
        entries
    }

    /// The keys in their order.
    pub fn keys(&self) -> impl Iterator<Item = &K> + Clone {
        self.iter().map(|(key, _)| key)
    }

    /// The values in the order of keys.
    pub fn values(&self) -> impl Iterator<Item = &V> + Clone {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord + Hash + Clone, V: Clone> PersistentMap<K, V> {
    /// Sets the value of a key and returns the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let priority = PRIORITIES.hash_one(&key);
        let before = insert(&mut self.root, priority, key, value);
        self.len = self.len.saturating_add(usize::from(before.is_none()));
        before
    }

    /// Removes a key and returns its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        // A key that is not there must not cost a copy of the path to its place.
        if !self.contains_key(key) {
            return None;
        }
        self.len = self.len.saturating_sub(1);
        remove(&mut self.root, key)
    }

    /// Reports each key whose value differs in `after`, in the order of keys, with its value here and there. Costs
    /// as much as the two maps differ: entries that they share are not visited.
    pub fn diff(&self, after: &Self, mut report: impl FnMut(&K, Option<&V>, Option<&V>))
    where
        V: PartialEq,
    {
        diff(&self.root, &after.root, &mut report);
    }

    /// The same keys with the values that `update` returns, and the values as they are where it returns `None`.
    #[must_use]
    pub fn update_values(&self, mut update: impl FnMut(&K, &V) -> Option<V>) -> Self {
        Self {
            root: update_values(&self.root, &mut update),
            len: self.len,
        }
    }
}

impl<K: Ord, V> TreeNode<K, V> {
    /// Whether this node belongs above one of this priority and key.
    fn is_above(&self, priority: u64, key: &K) -> bool {
        (self.priority, &self.key) > (priority, key)
    }
}

fn insert<K: Ord + Clone, V: Clone>(
    mut link: &mut Link<K, V>,
    priority: u64,
    key: K,
    value: V,
) -> Option<V> {
    // A key that is there has this priority, so it is met before any node that belongs below it.
    while let Some(node) = link
        && (node.key == key || node.is_above(priority, &key))
    {
        let order = key.cmp(&node.key);
        let TreeNode {
            left,
            right,
            value: known,
            ..
        } = Arc::make_mut(link.as_mut()?);
        link = match order {
            Ordering::Less => left,
            Ordering::Equal => return Some(mem::replace(known, value)),
            Ordering::Greater => right,
        };
    }
    let (left, right) = split(link.take(), &key);
    *link = Some(Arc::new(TreeNode {
        priority,
        key,
        value,
        left,
        right,
    }));
    None
}

fn remove<K: Ord + Clone + Borrow<Q>, V: Clone, Q: Ord + ?Sized>(
    mut link: &mut Link<K, V>,
    key: &Q,
) -> Option<V> {
    loop {
        match key.cmp(link.as_ref()?.key.borrow()) {
            Ordering::Less => link = &mut Arc::make_mut(link.as_mut()?).left,
            Ordering::Greater => link = &mut Arc::make_mut(link.as_mut()?).right,
            Ordering::Equal => {
                let node = link.take()?;
                *link = join(node.left.clone(), node.right.clone());
                return Some(node.value.clone());
            }
        }
    }
}

/// Splits a tree into the keys before `key`, which it does not have, and those after.
fn split<K: Ord + Clone, V: Clone>(link: Link<K, V>, key: &K) -> (Link<K, V>, Link<K, V>) {
    let Some(mut node) = link else {
        return (None, None);
    };
    let top = Arc::make_mut(&mut node);
    if top.key < *key {
        let (before, after) = split(top.right.take(), key);
        top.right = before;
        (Some(node), after)
    } else {
        let (before, after) = split(top.left.take(), key);
        top.left = after;
        (before, Some(node))
    }
}

/// Joins two trees of which the first has the smaller keys.
fn join<K: Ord + Clone, V: Clone>(before: Link<K, V>, after: Link<K, V>) -> Link<K, V> {
    let (mut before, mut after) = match (before, after) {
        (Some(before), Some(after)) => (before, after),
        (before, after) => return before.or(after),
    };
    if before.is_above(after.priority, &after.key) {
        let top = Arc::make_mut(&mut before);
        top.right = join(top.right.take(), Some(after));
        Some(before)
    } else {
        let top = Arc::make_mut(&mut after);
        top.left = join(Some(before), top.left.take());
        Some(after)
    }
}

type ReportChange<'a, K, V> = &'a mut dyn FnMut(&K, Option<&V>, Option<&V>);

fn diff<K: Ord + Clone, V: Clone + PartialEq>(
    before: &Link<K, V>,
    after: &Link<K, V>,
    report: ReportChange<'_, K, V>,
) {
    match (before, after) {
        (None, None) => {}
        (Some(old), Some(new)) if Arc::ptr_eq(old, new) => {}
        (Some(old), Some(new)) if old.key == new.key => {
            diff(&old.left, &new.left, report);
            if old.value != new.value {
                report(&old.key, Some(&old.value), Some(&new.value));
            }
            diff(&old.right, &new.right, report);
        }
        // The upper of two nodes is not in the other tree, where it would be at the top.
        (Some(old), Some(new)) if new.is_above(old.priority, &old.key) => {
            let (left, right) = split(before.clone(), &new.key);
            diff(&left, &new.left, report);
            report(&new.key, None, Some(&new.value));
            diff(&right, &new.right, report);
        }
        (None, Some(new)) => {
            diff(&None, &new.left, report);
            report(&new.key, None, Some(&new.value));
            diff(&None, &new.right, report);
        }
        (Some(old), _) => {
            let (left, right) = split(after.clone(), &old.key);
            diff(&old.left, &left, report);
            report(&old.key, Some(&old.value), None);
            diff(&old.right, &right, report);
        }
    }
}

fn update_values<K: Clone, V: Clone>(
    link: &Link<K, V>,
    update: &mut impl FnMut(&K, &V) -> Option<V>,
) -> Link<K, V> {
    let node = link.as_ref()?;
    let left = update_values(&node.left, update);
    let value = update(&node.key, &node.value);
    let right = update_values(&node.right, update);
    let is_same = |a: &Link<K, V>, b: &Link<K, V>| match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (a, b) => a.is_none() && b.is_none(),
    };
    if value.is_none() && is_same(&left, &node.left) && is_same(&right, &node.right) {
        return Some(Arc::clone(node));
    }
    Some(Arc::new(TreeNode {
        priority: node.priority,
        key: node.key.clone(),
        value: value.unwrap_or_else(|| node.value.clone()),
        left,
        right,
    }))
}

/// The entries of a map in the order of keys.
pub struct Entries<'a, K, V> {
    /// The next entry on top, and below it those above it in the tree that come after it.
    ahead: Vec<&'a TreeNode<K, V>>,
}

impl<'a, K, V> Entries<'a, K, V> {
    fn descend(&mut self, mut link: &'a Link<K, V>) {
        while let Some(node) = link {
            self.ahead.push(node);
            link = &node.left;
        }
    }
}

impl<'a, K, V> Iterator for Entries<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        let node = self.ahead.pop()?;
        self.descend(&node.right);
        Some((&node.key, &node.value))
    }
}

impl<K, V> Clone for Entries<'_, K, V> {
    fn clone(&self) -> Self {
        Self {
            ahead: self.ahead.clone(),
        }
    }
}

impl<'a, K: Ord, V> IntoIterator for &'a PersistentMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Entries<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K: Ord + Hash + Clone, V: Clone> FromIterator<(K, V)> for PersistentMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        map.extend(entries);
        map
    }
}

impl<K: Ord + Hash + Clone, V: Clone> Extend<(K, V)> for PersistentMap<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<K, V> Default for PersistentMap<K, V> {
    fn default() -> Self {
        Self { root: None, len: 0 }
    }
}

impl<K, V> Clone for PersistentMap<K, V> {
    fn clone(&self) -> Self {
        Self {
            root: self.root.clone(),
            len: self.len,
        }
    }
}

impl<K: Clone, V: Clone> Clone for TreeNode<K, V> {
    fn clone(&self) -> Self {
        Self {
            priority: self.priority,
            key: self.key.clone(),
            value: self.value.clone(),
            left: self.left.clone(),
            right: self.right.clone(),
        }
    }
}

impl<K: Ord, V: PartialEq> PartialEq for PersistentMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        let is_shared = || match (&self.root, &other.root) {
            (Some(mine), Some(theirs)) => Arc::ptr_eq(mine, theirs),
            (mine, theirs) => mine.is_none() && theirs.is_none(),
        };
        self.len == other.len && (is_shared() || self.iter().eq(other.iter()))
    }
}

impl<K: Ord, V: Eq> Eq for PersistentMap<K, V> {}

impl<K: Ord + fmt::Debug, V: fmt::Debug> fmt::Debug for PersistentMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Changes = Vec<(u8, Option<u8>, Option<u8>)>;

    fn changes(before: &PersistentMap<u8, u8>, after: &PersistentMap<u8, u8>) -> Changes {
        let mut all = Vec::new();
        before.diff(after, |key, old, new| {
            all.push((*key, old.copied(), new.copied()));
        });
        all
    }

    fn expected_changes(before: &BTreeMap<u8, u8>, after: &BTreeMap<u8, u8>) -> Changes {
        let keys = 0..=u8::MAX;
        let entry = |key| (key, before.get(&key).copied(), after.get(&key).copied());
        keys.map(entry).filter(|(_, old, new)| old != new).collect()
    }

    proptest! {
        #[test]
        fn every_version_equals_an_ordinary_map(
            steps in prop::collection::vec((any::<bool>(), 0..40u8, 0..3u8), 0..80),
        ) {
            let (mut map, mut model) = (PersistentMap::default(), BTreeMap::new());
            let mut versions = vec![(map.clone(), model.clone())];
            for (is_insert, key, value) in steps {
                if is_insert {
                    prop_assert_eq!(map.insert(key, value), model.insert(key, value));
                } else {
                    prop_assert_eq!(map.remove(&key), model.remove(&key));
                }
                versions.push((map.clone(), model.clone()));
            }
            for (map, model) in &versions {
                prop_assert!(map.iter().eq(model.iter()));
                prop_assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
                prop_assert!((0..40).all(|key| map.get(&key) == model.get(&key)));
                let (first, first_model) = &versions[versions.len() / 2];
                prop_assert_eq!(changes(first, map), expected_changes(first_model, model));
                // Built in another order it has the same shape.
                let rebuilt: PersistentMap<_, _> = model.iter().rev().map(|(k, v)| (*k, *v)).collect();
                prop_assert!(changes(map, &rebuilt).is_empty());
                prop_assert_eq!(map == first, model == first_model);
            }
        }
    }

    #[test]
    fn a_diff_visits_only_what_is_not_shared() {
        /// A value that counts its comparisons.
        #[derive(Clone, Debug)]
        struct Counted(u32, Arc<std::sync::atomic::AtomicU32>);
        impl PartialEq for Counted {
            fn eq(&self, other: &Self) -> bool {
                self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                self.0 == other.0
            }
        }
        let compared = Arc::default();
        let before: PersistentMap<_, _> = (0..10_000)
            .map(|key| (key, Counted(key, Arc::clone(&compared))))
            .collect();
        let mut after = before.clone();
        after.insert(5_000, Counted(7, Arc::clone(&compared)));
        after.remove(&77);
        let mut changed = Vec::new();
        before.diff(&after, |key, _, _| changed.push(*key));
        assert_eq!(changed, [77, 5_000]);
        let compared = compared.load(std::sync::atomic::Ordering::Relaxed);
        assert!(compared < 150, "{compared} of 10,000 entries were compared");
    }

    #[test]
    fn values_that_are_not_updated_stay_shared() {
        let map: PersistentMap<_, _> = (0..100).map(|key| (key, key)).collect();
        let same = map.update_values(|_, _| None);
        assert!(Arc::ptr_eq(
            map.root.as_ref().unwrap(),
            same.root.as_ref().unwrap()
        ));
        let odd = map.update_values(|key, value| (key % 2 == 1).then(|| value + 1000));
        let expected = (0..100).map(|key| (key, if key % 2 == 1 { key + 1000 } else { key }));
        assert_eq!(odd, expected.collect());
    }
}
