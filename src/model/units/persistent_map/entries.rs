//! The entries of a map, in the order of keys.

use std::slice;

use super::node::{Child, TreeNode};

/// The entries of a map in the order of keys.
pub struct Entries<'a, K, V> {
    /// Children that come later, those of the lowest node on top.
    ahead: Vec<slice::Iter<'a, Child<K, V>>>,
    leaf: slice::Iter<'a, (K, V)>,
}

impl<'a, K, V> Entries<'a, K, V> {
    pub(super) fn new(root: &'a TreeNode<K, V>) -> Self {
        let mut entries = Self {
            ahead: Vec::new(),
            leaf: [].iter(),
        };
        entries.enter(root);
        entries
    }

    fn enter(&mut self, node: &'a TreeNode<K, V>) {
        match node {
            TreeNode::Leaf(entries) => self.leaf = entries.iter(),
            TreeNode::Inner(children) => self.ahead.push(children.iter()),
        }
    }
}

impl<'a, K, V> Iterator for Entries<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.leaf.next() {
                return Some((key, value));
            }
            match self.ahead.last_mut()?.next() {
                Some(child) => self.enter(&child.node),
                None => drop(self.ahead.pop()),
            }
        }
    }
}

impl<K, V> Clone for Entries<'_, K, V> {
    fn clone(&self) -> Self {
        Self {
            ahead: self.ahead.clone(),
            leaf: self.leaf.clone(),
        }
    }
}
