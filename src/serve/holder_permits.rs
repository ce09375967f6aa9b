//! Permits that several holders share, such as namespaces or addresses. None of them has more than half, so that it
//! leaves some to others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A number of permits, of which each holder has at most half.
#[derive(Clone, Debug)]
pub(super) struct HolderPermits(Arc<SharedPermits>);

#[derive(Debug)]
struct SharedPermits {
    max: usize,
    held: Mutex<HeldPermits>,
}

#[derive(Debug, Default)]
struct HeldPermits {
    all: usize,
    by_holder: BTreeMap<String, usize>,
}

/// A permit of a holder, which is given back when it is dropped.
#[derive(Debug)]
pub(super) struct HolderPermit {
    permits: HolderPermits,
    holder: String,
}

impl HolderPermits {
    pub(super) fn new(max: usize) -> Self {
        let held = Mutex::default();
        Self(Arc::new(SharedPermits { max, held }))
    }

    /// A permit, unless all are in use or the holder has half of them.
    pub(super) fn try_acquire(&self, holder: &str) -> Option<HolderPermit> {
        let max = self.0.max;
        let mut held = self.held();
        let own = held.by_holder.get(holder).copied().unwrap_or_default();
        if held.all >= max || own >= max / 2 {
            return None;
        }
        held.all = held.all.saturating_add(1);
        let holder = holder.to_owned();
        held.by_holder.insert(holder.clone(), own.saturating_add(1));
        drop(held);
        Some(HolderPermit {
            permits: self.clone(),
            holder,
        })
    }

    fn held(&self) -> MutexGuard<'_, HeldPermits> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HolderPermit {
    fn drop(&mut self) {
        let mut held = self.permits.held();
        held.all = held.all.saturating_sub(1);
        let own = held.by_holder.get(&self.holder).copied();
        match own.unwrap_or_default().saturating_sub(1) {
            0 => held.by_holder.remove(&self.holder),
            left => held.by_holder.insert(self.holder.clone(), left),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_has_at_most_half() {
        let permits = HolderPermits::new(8);
        let acquire = |holder: &str, count: usize| {
            let permits = (0..count).filter_map(|_| permits.try_acquire(holder));
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
        let permits = HolderPermits::new(2);
        for _ in 0..10 {
            let held = permits.try_acquire("shop");
            assert!(held.is_some() && permits.try_acquire("shop").is_none());
        }
        let held = permits.held();
        assert!(held.all == 0 && held.by_holder.is_empty());
    }
}
