//! The nodes of a map.

use std::sync::Arc;

/// The most entries or children of a node.
pub(super) const MAX_LEN: usize = 16;

#[derive(Clone)]
pub(super) enum TreeNode<K, V> {
    Leaf(Vec<(K, V)>),
    Inner(Vec<Child<K, V>>),
}

#[derive(Clone)]
pub(super) struct Child<K, V> {
    /// At most every key of this child, and more than every key of the child before.
    pub(super) bound: K,
    pub(super) node: Arc<TreeNode<K, V>>,
}

impl<K, V> TreeNode<K, V> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Leaf(entries) => entries.len(),
            Self::Inner(children) => children.len(),
        }
    }

    /// At most every key of this node; `None` if it has none.
    pub(super) fn bound(&self) -> Option<&K> {
        match self {
            Self::Leaf(entries) => entries.first().map(|(key, _)| key),
            Self::Inner(children) => children.first().map(|child| &child.bound),
        }
    }

    /// 0 for a leaf.
    pub(super) fn height(&self) -> u32 {
        match self {
            Self::Leaf(_) => 0,
            Self::Inner(children) => {
                let first = children.first();
                first.map_or(0, |child| child.node.height().saturating_add(1))
            }
        }
    }
}
