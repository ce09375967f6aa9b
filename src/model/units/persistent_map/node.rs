//! The nodes of a map.

use std::iter;
use std::sync::Arc;

/// Maximum number of values or children of a node.
pub(super) const MAX_LEN: usize = 16;

#[derive(Clone)]
pub(super) struct TreeNode<K, V> {
    /// In a leaf, the key of each value. In an inner node, a lower bound for the keys of each child, which is greater
    /// than every key of the previous child.
    ///
    /// Versions of a node that differ only in values share the keys. Copying them would access the reference count of
    /// each shared text, and few of these are in the processor's cache.
    pub(super) keys: Arc<[K]>,
    pub(super) items: Items<K, V>,
}

#[derive(Clone)]
pub(super) enum Items<K, V> {
    /// Values of a leaf.
    Values(Vec<V>),
    Children(Vec<Arc<TreeNode<K, V>>>),
}

impl<K, V> Items<K, V> {
    fn split_off(&mut self, at: usize) -> Self {
        match self {
            Self::Values(values) => Self::Values(values.split_off(at)),
            Self::Children(children) => Self::Children(children.split_off(at)),
        }
    }
}

impl<K, V> TreeNode<K, V> {
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// A lower bound for the keys of this node; `None` if the node is empty.
    pub(super) fn bound(&self) -> Option<&K> {
        self.keys.first()
    }

    /// 0 for a leaf.
    pub(super) fn height(&self) -> u32 {
        match &self.items {
            Items::Values(_) => 0,
            Items::Children(children) => {
                let first = children.first();
                first.map_or(0, |child| child.height().saturating_add(1))
            }
        }
    }
}

impl<K: Clone, V> TreeNode<K, V> {
    /// A node of these children, each of which has a key.
    pub(super) fn inner(children: Vec<Arc<Self>>) -> Self {
        let bounds = children.iter().filter_map(|child| child.bound().cloned());
        Self {
            keys: bounds.collect(),
            items: Items::Children(children),
        }
    }

    pub(super) fn insert_key(&mut self, index: usize, key: K) {
        let Some((before, after)) = self.keys.split_at_checked(index) else {
            return;
        };
        let keys = before.iter().cloned().chain(iter::once(key));
        self.keys = keys.chain(after.iter().cloned()).collect();
    }

    pub(super) fn remove_key(&mut self, index: usize) {
        let Some((before, [_, after @ ..])) = self.keys.split_at_checked(index) else {
            return;
        };
        self.keys = before.iter().chain(after).cloned().collect();
    }

    /// Splits off the second half of a node that is too long: only the last item if it was just added there, so that
    /// keys that are inserted in their order fill the nodes.
    pub(super) fn split(&mut self, added: usize) -> Option<Arc<Self>> {
        let len = self.len();
        if len <= MAX_LEN {
            return None;
        }
        let is_last = added.saturating_add(1) == len;
        let at = if is_last { added } else { len / 2 };
        let (kept, rest) = self.keys.split_at_checked(at)?;
        let (kept, rest) = (kept.into(), rest.into());
        self.keys = kept;
        Some(Arc::new(Self {
            keys: rest,
            items: self.items.split_off(at),
        }))
    }
}
