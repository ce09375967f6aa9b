//! Permits that namespaces share. None of them has more than half, so that it leaves some to others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A number of permits, of which each namespace has at most half.
#[derive(Clone, Debug)]
pub(super) struct NamespacePermits(Arc<SharedPermits>);

#[derive(Debug)]
struct SharedPermits {
    max: usize,
    held: Mutex<HeldPermits>,
}

#[derive(Debug, Default)]
struct HeldPermits {
    all: usize,
    namespaces: BTreeMap<String, usize>,
}

/// A permit of a namespace, which is given back when it is dropped.
#[derive(Debug)]
pub(super) struct NamespacePermit {
    permits: NamespacePermits,
    namespace: String,
}

impl NamespacePermits {
    pub(super) fn new(max: usize) -> Self {
        let held = Mutex::default();
        Self(Arc::new(SharedPermits { max, held }))
    }

    /// A permit, unless all are in use or the namespace has half of them.
    pub(super) fn try_acquire(&self, namespace: &str) -> Option<NamespacePermit> {
        let max = self.0.max;
        let mut held = self.held();
        let own = held.namespaces.get(namespace).copied().unwrap_or_default();
        if held.all >= max || own >= max / 2 {
            return None;
        }
        held.all = held.all.saturating_add(1);
        let namespace = namespace.to_owned();
        held.namespaces
            .insert(namespace.clone(), own.saturating_add(1));
        drop(held);
        Some(NamespacePermit {
            permits: self.clone(),
            namespace,
        })
    }

    fn held(&self) -> MutexGuard<'_, HeldPermits> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for NamespacePermit {
    fn drop(&mut self) {
        let mut held = self.permits.held();
        held.all = held.all.saturating_sub(1);
        let own = held.namespaces.get(&self.namespace).copied();
        match own.unwrap_or_default().saturating_sub(1) {
            0 => held.namespaces.remove(&self.namespace),
            left => held.namespaces.insert(self.namespace.clone(), left),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_at_most_half() {
        let permits = NamespacePermits::new(8);
        let acquire = |namespace: &str, count: usize| {
            let permits = (0..count).filter_map(|_| permits.try_acquire(namespace));
            permits.collect::<Vec<_>>()
        };
        let greedy = acquire("greedy", 10);
        let shop = acquire("shop", 3);
        let last = acquire("last", 10);
        assert_eq!((greedy.len(), shop.len(), last.len()), (4, 3, 1));
        drop(greedy);
        assert_eq!(acquire("last", 10).len(), 3);
    }

    #[test]
    fn permits_are_given_back() {
        let permits = NamespacePermits::new(2);
        for _ in 0..10 {
            let held = permits.try_acquire("shop");
            assert!(held.is_some() && permits.try_acquire("shop").is_none());
        }
        let held = permits.held();
        assert!(held.all == 0 && held.namespaces.is_empty());
    }
}
