//! Builds a map of many entries at once.

use std::sync::Arc;

use super::PersistentMap;
use super::node::{Items, MAX_LEN, TreeNode};

/// Packs sorted items into full nodes.
fn pack<T, K, V>(
    items: Vec<T>,
    node: impl Fn(Vec<T>) -> TreeNode<K, V>,
) -> Vec<Arc<TreeNode<K, V>>> {
    let mut nodes = Vec::with_capacity(items.len().div_ceil(MAX_LEN));
    let mut items = items.into_iter();
    loop {
        let packed: Vec<T> = items.by_ref().take(MAX_LEN).collect();
        if packed.is_empty() {
            return nodes;
        }
        nodes.push(Arc::new(node(packed)));
    }
}

fn leaf<K, V>(entries: Vec<(K, V)>) -> TreeNode<K, V> {
    let (keys, values): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
    TreeNode {
        keys: keys.into(),
        items: Items::Values(values),
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for PersistentMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut entries: Vec<(K, V)> = entries.into_iter().collect();
        if !entries.is_sorted_by(|(a, _), (b, _)| a < b) {
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            // Of equal keys the last one counts, as in other maps.
            let mut distinct: Vec<(K, V)> = Vec::with_capacity(entries.len());
            for entry in entries {
                match distinct.last_mut() {
                    Some(last) if last.0 == entry.0 => *last = entry,
                    _ => distinct.push(entry),
                }
            }
            entries = distinct;
        }
        let len = entries.len();
        let mut nodes = pack(entries, leaf);
        while nodes.len() > 1 {
            nodes = pack(nodes, TreeNode::inner);
        }
        match nodes.pop() {
            Some(root) => Self { root, len },
            None => Self::default(),
        }
    }
}

impl<K: Ord + Clone, V: Clone> Extend<(K, V)> for PersistentMap<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}
