//! An ordered map of which a clone is cheap and shares its entries with the original.
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

use self::node::{Child, MAX_LEN, TreeNode};

pub use self::entries::Entries;

/// Nodes of at most this length are merged with a neighbour if both fit into one node.
const MERGE_LEN: usize = 4;

/// An ordered map whose clones share their entries.
pub struct PersistentMap<K, V> {
    root: Arc<TreeNode<K, V>>,
    len: usize,
}

/// The index of the child that may have a key.
fn child_index<K: Borrow<Q>, V, Q: Ord + ?Sized>(children: &[Child<K, V>], key: &Q) -> usize {
    let after = children.partition_point(|child| child.bound.borrow() <= key);
    after.saturating_sub(1)
}

fn search<K: Borrow<Q>, V, Q: Ord + ?Sized>(entries: &[(K, V)], key: &Q) -> Result<usize, usize> {
    entries.binary_search_by(|(known, _)| known.borrow().cmp(key))
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
            match &**node {
                TreeNode::Inner(children) => node = &children.get(child_index(children, key))?.node,
                TreeNode::Leaf(entries) => {
                    let (key, value) = entries.get(search(entries, key).ok()?)?;
                    return Some((key, value));
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
        if let Some(after) = split
            && let Some(bound) = self.root.bound().cloned()
        {
            let node = Arc::clone(&self.root);
            self.root = Arc::new(TreeNode::Inner(vec![Child { bound, node }, after]));
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
        while let TreeNode::Inner(children) = &*self.root
            && let [only] = children.as_slice()
        {
            self.root = Arc::clone(&only.node);
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
}

/// Inserts an entry and returns the value before, and the second half of the node if it was too long.
fn insert<K: Ord + Clone, V: Clone>(
    node: &mut Arc<TreeNode<K, V>>,
    key: K,
    value: V,
) -> (Option<V>, Option<Child<K, V>>) {
    match Arc::make_mut(node) {
        TreeNode::Leaf(entries) => match search(entries, &key) {
            Ok(index) => {
                let entry = entries.get_mut(index);
                let before = entry.map(|(_, known)| mem::replace(known, value));
                (before, None)
            }
            Err(index) => {
                entries.insert(index, (key, value));
                let rest = split(entries, index);
                let bound = rest.first().map(|(key, _)| key.clone());
                let node = |rest| Arc::new(TreeNode::Leaf(rest));
                (
                    None,
                    bound.map(|bound| Child {
                        bound,
                        node: node(rest),
                    }),
                )
            }
        },
        TreeNode::Inner(children) => {
            let index = child_index(children, &key);
            let Some(child) = children.get_mut(index) else {
                return (None, None);
            };
            if key < child.bound {
                child.bound = key.clone();
            }
            let (before, new) = insert(&mut child.node, key, value);
            let Some(new) = new else {
                return (before, None);
            };
            let index = index.saturating_add(1);
            children.insert(index, new);
            let rest = split(children, index);
            let bound = rest.first().map(|child| child.bound.clone());
            let node = |rest| Arc::new(TreeNode::Inner(rest));
            (
                before,
                bound.map(|bound| Child {
                    bound,
                    node: node(rest),
                }),
            )
        }
    }
}

/// Splits off the second half of a list that is too long: only the last item if it was just added there, so that
/// keys that are inserted in their order fill the nodes.
fn split<T>(items: &mut Vec<T>, added: usize) -> Vec<T> {
    let len = items.len();
    if len <= MAX_LEN {
        Vec::new()
    } else if added.saturating_add(1) == len {
        items.split_off(added)
    } else {
        items.split_off(len / 2)
    }
}

fn remove<K: Ord + Clone + Borrow<Q>, V: Clone, Q: Ord + ?Sized>(
    node: &mut Arc<TreeNode<K, V>>,
    key: &Q,
) -> Option<V> {
    match Arc::make_mut(node) {
        TreeNode::Leaf(entries) => {
            let index = search(entries, key).ok()?;
            Some(entries.remove(index).1)
        }
        TreeNode::Inner(children) => {
            let index = child_index(children, key);
            let child = &mut children.get_mut(index)?.node;
            let value = remove(child, key);
            match child.len() {
                0 => drop(children.remove(index)),
                1..=MERGE_LEN => merge(children, index),
                _ => {}
            }
            value
        }
    }
}

/// Merges the child at an index with the one after it, or else with the one before it, if both fit into one node.
fn merge<K: Clone, V: Clone>(children: &mut Vec<Child<K, V>>, index: usize) {
    let after = index.saturating_add(1);
    let after = if after < children.len() { after } else { index };
    let Some(before) = after.checked_sub(1) else {
        return;
    };
    let len = |index: usize| children.get(index).map_or(0, |child| child.node.len());
    if len(before).saturating_add(len(after)) > MAX_LEN {
        return;
    }
    let moved = children.remove(after);
    let Some(target) = children.get_mut(before) else {
        return;
    };
    match (Arc::make_mut(&mut target.node), &*moved.node) {
        (TreeNode::Leaf(entries), TreeNode::Leaf(more)) => entries.extend_from_slice(more),
        (TreeNode::Inner(children), TreeNode::Inner(more)) => children.extend_from_slice(more),
        // Neighbours have the same height.
        _ => children.insert(after, moved),
    }
}

/// `None` if no value is updated.
fn update_values<K: Clone, V: Clone>(
    node: &TreeNode<K, V>,
    update: &mut impl FnMut(&K, &V) -> Option<V>,
) -> Option<Arc<TreeNode<K, V>>> {
    let mut copy: Option<TreeNode<K, V>> = None;
    match node {
        TreeNode::Leaf(entries) => {
            for (index, (key, value)) in entries.iter().enumerate() {
                if let Some(new) = update(key, value)
                    && let TreeNode::Leaf(entries) = copy.get_or_insert_with(|| node.clone())
                    && let Some((_, value)) = entries.get_mut(index)
                {
                    *value = new;
                }
            }
        }
        TreeNode::Inner(children) => {
            for (index, child) in children.iter().enumerate() {
                if let Some(new) = update_values(&child.node, update)
                    && let TreeNode::Inner(children) = copy.get_or_insert_with(|| node.clone())
                    && let Some(child) = children.get_mut(index)
                {
                    child.node = new;
                }
            }
        }
    }
    copy.map(Arc::new)
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
            root: Arc::new(TreeNode::Leaf(Vec::new())),
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
        assert!(Arc::ptr_eq(&map.root, &same.root));
        let odd = map.update_values(|key, value| (key % 2 == 1).then(|| value + 1000));
        let expected = (0..100).map(|key| (key, if key % 2 == 1 { key + 1000 } else { key }));
        assert_eq!(odd, expected.collect());
    }
}
