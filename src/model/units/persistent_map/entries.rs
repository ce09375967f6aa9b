//! The entries of a map, in the order of keys.

use std::iter::Zip;
use std::slice::Iter;
use std::sync::Arc;

use super::node::{Items, TreeNode};

/// The entries of a map in the order of keys.
pub struct Entries<'a, K, V> {
    /// Children that come later, those of the lowest node on top.
    ahead: Vec<Iter<'a, Arc<TreeNode<K, V>>>>,
    leaf: Zip<Iter<'a, K>, Iter<'a, V>>,
}

impl<'a, K, V> Entries<'a, K, V> {
    pub(super) fn new(root: &'a TreeNode<K, V>) -> Self {
        let mut entries = Self {
            ahead: Vec::new(),
            leaf: [].iter().zip(&[]),
        };
        entries.enter(root);
        entries
    }

    fn enter(&mut self, node: &'a TreeNode<K, V>) {
        match &node.items {
            Items::Values(values) => self.leaf = node.keys.iter().zip(values),
            Items::Children(children) => self.ahead.push(children.iter()),
        }
    }
}

impl<'a, K, V> Iterator for Entries<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.leaf.next() {
                return Some(entry);
            }
            match self.ahead.last_mut()?.next() {
                Some(child) => self.enter(child),
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
