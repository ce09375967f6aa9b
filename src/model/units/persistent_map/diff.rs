//! Differences between two versions of a map.

use std::cmp::Ordering;
use std::sync::Arc;

use super::PersistentMap;
use super::node::{Items, TreeNode};

impl<K: Ord, V> PersistentMap<K, V> {
    /// Reports each key whose value differs in `after`, in key order, with its value in `self` and in `after`. The cost
    /// grows with the number of differences, because nodes that both maps share are not visited.
    pub fn diff(&self, after: &Self, report: impl FnMut(&K, Option<&V>, Option<&V>))
    where
        V: PartialEq,
    {
        self.diff_by(after, V::eq, report);
    }

    /// Like [`diff`](Self::diff), but `is_same` decides whether two values are equal.
    pub fn diff_by(
        &self,
        after: &Self,
        is_same: impl Fn(&V, &V) -> bool,
        mut report: impl FnMut(&K, Option<&V>, Option<&V>),
    ) {
        let (mut old, mut new) = (Walk::new(&self.root), Walk::new(&after.root));
        loop {
            match (old.next(), new.next()) {
                (None, None) => return,
                (Some(Part::Node(node, height)), Some(Part::Node(other, other_height))) => {
                    if Arc::ptr_eq(node, other) {
                        old.skip();
                        new.skip();
                        continue;
                    }
                    let are_versions = Arc::ptr_eq(&node.keys, &other.keys);
                    match (&node.items, &other.items) {
                        // Two versions of one node with the same keys: compare their values by index.
                        (Items::Values(values), Items::Values(others)) if are_versions => {
                            for (key, (value, other)) in
                                node.keys.iter().zip(values.iter().zip(others))
                            {
                                if !is_same(value, other) {
                                    report(key, Some(value), Some(other));
                                }
                            }
                            old.skip();
                            new.skip();
                        }
                        (Items::Children(children), Items::Children(others)) if are_versions => {
                            old.skip();
                            new.skip();
                            let pairs = children.iter().zip(others).rev();
                            for (child, other) in pairs.filter(|(a, b)| !Arc::ptr_eq(a, b)) {
                                old.push(child, height);
                                new.push(other, other_height);
                            }
                        }
                        _ => {
                            // The other node may be a descendant of the higher one.
                            if height >= other_height {
                                old.enter();
                            }
                            if height <= other_height {
                                new.enter();
                            }
                        }
                    }
                }
                (Some(Part::Entry(key, value)), Some(Part::Entry(other, other_value))) => {
                    let order = key.cmp(other);
                    match order {
                        Ordering::Less => report(key, Some(value), None),
                        Ordering::Greater => report(other, None, Some(other_value)),
                        Ordering::Equal if is_same(value, other_value) => {}
                        Ordering::Equal => report(key, Some(value), Some(other_value)),
                    }
                    if order.is_le() {
                        old.skip();
                    }
                    if order.is_ge() {
                        new.skip();
                    }
                }
                // Report entries before the node on the other side, and do not enter that node yet: the two sides may
                // share it.
                (Some(Part::Entry(key, value)), other) if other.is_none_or(|o| o.is_after(key)) => {
                    report(key, Some(value), None);
                    old.skip();
                }
                (other, Some(Part::Entry(key, value))) if other.is_none_or(|o| o.is_after(key)) => {
                    report(key, None, Some(value));
                    new.skip();
                }
                (Some(Part::Node(..)), _) => old.enter(),
                (_, Some(Part::Node(..))) => new.enter(),
                // Unreachable, since the arms above match every entry; needed for exhaustiveness.
                (Some(Part::Entry(..)), None) => old.skip(),
                (None, Some(Part::Entry(..))) => new.skip(),
            }
        }
    }
}

/// A part of a map: a node that was not entered yet, with its height, or an entry.
enum Part<'a, K, V> {
    Node(&'a Arc<TreeNode<K, V>>, u32),
    Entry(&'a K, &'a V),
}

impl<K, V> Clone for Part<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Part<'_, K, V> {}

impl<K: Ord, V> Part<'_, K, V> {
    /// Whether all its keys are certainly greater than `key`.
    fn is_after(self, key: &K) -> bool {
        match self {
            Part::Node(node, _) => node.bound().is_some_and(|bound| key < bound),
            Part::Entry(other, _) => key < other,
        }
    }
}

/// A walk through a map in key order: the stack of remaining parts, with the next one last.
struct Walk<'a, K, V>(Vec<Part<'a, K, V>>);

impl<'a, K, V> Walk<'a, K, V> {
    fn new(root: &'a Arc<TreeNode<K, V>>) -> Self {
        Self(vec![Part::Node(root, root.height())])
    }

    fn next(&self) -> Option<Part<'a, K, V>> {
        self.0.last().copied()
    }

    fn skip(&mut self) {
        self.0.pop();
    }

    /// Pushes a child of a node of this height as the next part.
    fn push(&mut self, child: &'a Arc<TreeNode<K, V>>, height: u32) {
        self.0.push(Part::Node(child, height.saturating_sub(1)));
    }

    /// Replaces the next part, a node, by its children or entries.
    fn enter(&mut self) {
        let Some(Part::Node(node, height)) = self.0.pop() else {
            return;
        };
        match &node.items {
            Items::Values(values) => {
                let entries = node.keys.iter().zip(values).rev();
                self.0
                    .extend(entries.map(|(key, value)| Part::Entry(key, value)));
            }
            Items::Children(children) => {
                let below = height.saturating_sub(1);
                let children = children.iter().rev();
                self.0
                    .extend(children.map(|child| Part::Node(child, below)));
            }
        }
    }
}
