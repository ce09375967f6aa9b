//! An ordered map whose clones are cheap and share their entries with the original.
//!
//! Snapshots are immutable and published often, so a map with thousands of entries must be neither copied nor
//! compared whole for one changed entry. A change copies the nodes on the way to the entry, and
//! [`PersistentMap::diff`] skips the nodes that two versions share.
//!
//! The map is a B+ tree. Nodes are wide, since a node that is not in the processor's cache costs as much as many
//! entries of one that is. (`imbl` has such maps under a licence that `deny.toml` does not allow; `immutable-chunkmap`
//! compares all entries.)

mod build;
mod diff;
mod entries;
mod node;

use std::borrow::Borrow;
use std::fmt;
use std::mem;
use std::sync::Arc;

use self::node::{Items, MAX_LEN, TreeNode};

pub use self::entries::Entries;

/// Maximum length of a node that is merged with a neighbour if both fit into one node.
const MAX_MERGED_LEN: usize = 4;

/// An ordered map whose clones share their entries.
pub struct PersistentMap<K, V> {
    root: Arc<TreeNode<K, V>>,
    len: usize,
}

/// The index of the child that may have a key.
fn child_index<K: Borrow<Q>, Q: Ord + ?Sized>(bounds: &[K], key: &Q) -> usize {
    let after = bounds.partition_point(|bound| bound.borrow() <= key);
    after.saturating_sub(1)
}

fn search<K: Borrow<Q>, Q: Ord + ?Sized>(keys: &[K], key: &Q) -> Result<usize, usize> {
    keys.binary_search_by(|known| known.borrow().cmp(key))
}

impl<K: Ord, V> PersistentMap<K, V> {
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
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
        let mut node = &self.root;
        loop {
            match &node.items {
                Items::Children(children) => node = children.get(child_index(&node.keys, key))?,
                Items::Values(values) => {
                    let index = search(&node.keys, key).ok()?;
                    return node.keys.get(index).zip(values.get(index));
                }
            }
        }
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
        Entries::new(&self.root)
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

impl<K: Ord + Clone, V: Clone> PersistentMap<K, V> {
    /// Sets the value of a key and returns the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (before, split) = insert(&mut self.root, key, value);
        if let Some(after) = split {
            let children = vec![Arc::clone(&self.root), after];
            self.root = Arc::new(TreeNode::inner(children));
        }
        self.len = self.len.saturating_add(usize::from(before.is_none()));
        before
    }

    /// Removes a key and returns its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        // A key that is not there must not cost a copy of the nodes on the way to it.
        if !self.contains_key(key) {
            return None;
        }
        let value = remove(&mut self.root, key)?;
        while let Items::Children(children) = &self.root.items
            && let [only] = children.as_slice()
        {
            self.root = Arc::clone(only);
        }
        self.len = self.len.saturating_sub(1);
        Some(value)
    }

    /// The same keys with the values that `update` returns, and the values as they are where it returns `None`.
    #[must_use]
    pub fn update_values(&self, mut update: impl FnMut(&K, &V) -> Option<V>) -> Self {
        let updated = update_values(&self.root, &mut update);
        Self {
            root: updated.unwrap_or_else(|| Arc::clone(&self.root)),
            len: self.len,
        }
    }

    /// Updates the values of this map, where most of them change: all nodes that other versions share are copied.
    pub fn update_in_place(&mut self, mut update: impl FnMut(&K, &mut V)) {
        update_in_place(&mut self.root, &mut update);
    }
}

/// Inserts an entry and returns the value before, and the second half of the node if it was too long.
fn insert<K: Ord + Clone, V: Clone>(
    node: &mut Arc<TreeNode<K, V>>,
    key: K,
    value: V,
) -> (Option<V>, Option<Arc<TreeNode<K, V>>>) {
    let node = Arc::make_mut(node);
    let added = match &mut node.items {
        Items::Values(values) => match search(&node.keys, &key) {
            Ok(index) => {
                let known = values.get_mut(index);
                return (known.map(|known| mem::replace(known, value)), None);
            }
            Err(index) => {
                values.insert(index, value);
                node.insert_key(index, key);
                index
            }
        },
        Items::Children(children) => {
            let index = child_index(&node.keys, &key);
            let Some(child) = children.get_mut(index) else {
                return (None, None);
            };
            let is_below = node.keys.get(index).is_some_and(|bound| key < *bound);
            if is_below && let Some(bound) = Arc::make_mut(&mut node.keys).get_mut(index) {
                *bound = key.clone();
            }
            let (before, new) = insert(child, key, value);
            let Some(new) = new else {
                return (before, None);
            };
            let index = index.saturating_add(1);
            let bound = new.bound().cloned();
            children.insert(index, new);
            if let Some(bound) = bound {
                node.insert_key(index, bound);
            }
            // A node is split for a new key only.
            index
        }
    };
    (None, node.split(added))
}

fn remove<K: Ord + Clone + Borrow<Q>, V: Clone, Q: Ord + ?Sized>(
    node: &mut Arc<TreeNode<K, V>>,
    key: &Q,
) -> Option<V> {
    let node = Arc::make_mut(node);
    match &mut node.items {
        Items::Values(values) => {
            let index = search(&node.keys, key).ok()?;
            let value = values.remove(index);
            node.remove_key(index);
            Some(value)
        }
        Items::Children(children) => {
            let index = child_index(&node.keys, key);
            let child = children.get_mut(index)?;
            let value = remove(child, key);
            match child.len() {
                0 => {
                    children.remove(index);
                    node.remove_key(index);
                }
                1..=MAX_MERGED_LEN => merge(node, index),
                _ => {}
            }
            value
        }
    }
}

/// Merges the child at an index with the one after it, or else with the one before it, if both fit into one node.
fn merge<K: Clone, V: Clone>(node: &mut TreeNode<K, V>, index: usize) {
    let Items::Children(children) = &mut node.items else {
        return;
    };
    let after = index.saturating_add(1);
    let after = if after < children.len() { after } else { index };
    let Some(before) = after.checked_sub(1) else {
        return;
    };
    let len = |index: usize| children.get(index).map_or(0, |child| child.len());
    if len(before).saturating_add(len(after)) > MAX_LEN {
        return;
    }
    let moved = children.remove(after);
    let Some(target) = children.get_mut(before).map(Arc::make_mut) else {
        return;
    };
    match (&mut target.items, &moved.items) {
        (Items::Values(values), Items::Values(more)) => values.extend_from_slice(more),
        (Items::Children(children), Items::Children(more)) => children.extend_from_slice(more),
        // Neighbours have the same height.
        _ => {
            children.insert(after, moved);
            return;
        }
    }
    target.keys = target.keys.iter().chain(&*moved.keys).cloned().collect();
    node.remove_key(after);
}

fn update_in_place<K: Clone, V: Clone>(
    node: &mut Arc<TreeNode<K, V>>,
    update: &mut impl FnMut(&K, &mut V),
) {
    let node = Arc::make_mut(node);
    match &mut node.items {
        Items::Values(values) => {
            for (key, value) in node.keys.iter().zip(values) {
                update(key, value);
            }
        }
        Items::Children(children) => {
            for child in children {
                update_in_place(child, update);
            }
        }
    }
}

/// `None` if no value is updated.
fn update_values<K: Clone, V: Clone>(
    node: &TreeNode<K, V>,
    update: &mut impl FnMut(&K, &V) -> Option<V>,
) -> Option<Arc<TreeNode<K, V>>> {
    let items = match &node.items {
        Items::Values(values) => Items::Values(update_items(values, |index, value| {
            update(node.keys.get(index)?, value)
        })?),
        Items::Children(children) => Items::Children(update_items(children, |_, child| {
            update_values(child, update)
        })?),
    };
    Some(Arc::new(TreeNode {
        keys: Arc::clone(&node.keys),
        items,
    }))
}

/// `None` if no item is updated.
fn update_items<T: Clone>(
    items: &[T],
    mut update: impl FnMut(usize, &T) -> Option<T>,
) -> Option<Vec<T>> {
    let mut updated: Option<Vec<T>> = None;
    for (index, item) in items.iter().enumerate() {
        match (update(index, item), &mut updated) {
            (None, None) => {}
            (new, Some(updated)) => updated.push(new.unwrap_or_else(|| item.clone())),
            (Some(new), None) => {
                let updated = updated.insert(Vec::with_capacity(items.len()));
                updated.extend(items.iter().take(index).cloned());
                updated.push(new);
            }
        }
    }
    updated
}

impl<'a, K: Ord, V> IntoIterator for &'a PersistentMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Entries<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K, V> Default for PersistentMap<K, V> {
    fn default() -> Self {
        Self {
            root: Arc::new(TreeNode {
                keys: Arc::default(),
                items: Items::Values(Vec::new()),
            }),
            len: 0,
        }
    }
}

impl<K, V> Clone for PersistentMap<K, V> {
    fn clone(&self) -> Self {
        Self {
            root: Arc::clone(&self.root),
            len: self.len,
        }
    }
}

impl<K: Ord, V: PartialEq> PartialEq for PersistentMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        let is_shared = Arc::ptr_eq(&self.root, &other.root);
        self.len == other.len && (is_shared || self.iter().eq(other.iter()))
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

    impl<K: Ord + Borrow<Q>, V, Q: Ord + ?Sized> std::ops::Index<&Q> for PersistentMap<K, V> {
        type Output = V;

        fn index(&self, key: &Q) -> &V {
            self.get(key).expect("the key is there")
        }
    }

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
            steps in prop::collection::vec((0..3u8, 0..200u8, 0..3u8), 0..400),
        ) {
            let (mut map, mut model) = (PersistentMap::default(), BTreeMap::new());
            let mut versions = vec![(map.clone(), model.clone())];
            for (kind, key, value) in steps {
                // Towards the end more is removed than inserted.
                if kind > u8::from(versions.len() > 200) {
                    prop_assert_eq!(map.insert(key, value), model.insert(key, value));
                } else {
                    prop_assert_eq!(map.remove(&key), model.remove(&key));
                }
                versions.push((map.clone(), model.clone()));
            }
            for (map, model) in &versions {
                prop_assert!(map.iter().eq(model.iter()));
                prop_assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
                prop_assert!((0..200).all(|key| map.get(&key) == model.get(&key)));
                let (first, first_model) = &versions[versions.len() / 2];
                prop_assert_eq!(changes(first, map), expected_changes(first_model, model));
                // Built in another order its nodes may have other borders.
                let rebuilt: PersistentMap<_, _> = model.iter().rev().map(|(k, v)| (*k, *v)).collect();
                prop_assert!(changes(map, &rebuilt).is_empty());
                prop_assert_eq!(map == first, model == first_model);
            }
        }
    }

    #[test]
    fn a_diff_visits_only_changed_nodes() {
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
        assert!(Arc::ptr_eq(&map.root, &same.root));
        let odd = map.update_values(|key, value| (key % 2 == 1).then(|| value + 1000));
        let expected = (0..100).map(|key| (key, if key % 2 == 1 { key + 1000 } else { key }));
        assert_eq!(odd, expected.collect());
    }

    #[test]
    fn an_update_in_place_changes_no_other_version() {
        let before: PersistentMap<_, _> = (0..100).map(|key| (key, key)).collect();
        let mut after = before.clone();
        after.insert(100, 100);
        let with_more = after.clone();
        after.update_in_place(|key, value| *value += key);
        assert_eq!(after, (0..=100).map(|key| (key, 2 * key)).collect());
        assert!(before.iter().all(|(key, value)| key == value) && before.len() == 100);
        assert!(with_more.iter().all(|(key, value)| key == value));
    }
}
