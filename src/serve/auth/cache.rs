//! What was found out a short while ago: bounded in number and in time, keyed by digests, so that
//! neither long names nor tokens stay in memory.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

/// What is remembered at most.
const MOST: usize = 4096;

/// A digest of what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct CacheKey([u8; 32]);

impl CacheKey {
    /// The digest of these parts, in this order, each told from its neighbours.
    pub(super) fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut key = KeyParts::default();
        for part in parts {
            key.add(part);
        }
        key.finish()
    }
}

/// A key in the making, for who has its parts one after the other.
#[derive(Debug, Default)]
pub(super) struct KeyParts(Sha256);

impl KeyParts {
    /// The next part.
    pub(super) fn add(&mut self, part: impl AsRef<[u8]>) {
        let part = part.as_ref();
        self.0.update(part.len().to_be_bytes());
        self.0.update(part);
    }

    /// The digest of all of them.
    pub(super) fn finish(self) -> CacheKey {
        CacheKey(self.0.finalize().into())
    }
}

/// Values that hold for a time.
#[derive(Debug)]
pub(super) struct Cache<V> {
    lasts: Duration,
    entries: Mutex<HashMap<CacheKey, (Instant, V)>>,
}

impl<V: Clone> Cache<V> {
    pub(super) fn new(lasts: Duration) -> Self {
        Self {
            lasts,
            entries: Mutex::new(HashMap::new()),
        }
    }

    /// The value of a key, made where there is none or only one that is too old.
    pub(super) fn get_or_make(&self, key: CacheKey, now: Instant, make: impl FnOnce() -> V) -> V {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |made: &Instant| now.saturating_duration_since(*made) < self.lasts;
        if let Some((made, value)) = entries.get(&key)
            && holds(made)
        {
            return value.clone();
        }
        if entries.len() >= MOST && !entries.contains_key(&key) {
            entries.retain(|_, (made, _)| holds(made));
            // As many who ask at once as that: the oldest tenth goes, so that this is rare.
            if entries.len() >= MOST {
                let mut ages: Vec<Instant> = entries.values().map(|(made, _)| *made).collect();
                let (_, tenth, _) = ages.select_nth_unstable(MOST / 10);
                let tenth = *tenth;
                entries.retain(|_, (made, _)| *made > tenth);
            }
        }
        let value = make();
        entries.insert(key, (now, value.clone()));
        value
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.lock().unwrap().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> CacheKey {
        CacheKey::of([&n.to_be_bytes()[..]])
    }

    #[test]
    fn holds_for_its_time() {
        let cache = Cache::new(Duration::from_secs(10));
        let began = Instant::now();
        let after = |seconds, value| {
            cache.get_or_make(key(1), began + Duration::from_secs(seconds), || value)
        };
        assert_eq!(after(0, "first"), "first");
        assert_eq!(after(9, "second"), "first");
        assert_eq!(after(10, "second"), "second");
        assert_eq!(after(19, "third"), "second");
    }

    #[test]
    fn is_bounded_whatever_is_asked() {
        let cache = Cache::new(Duration::from_secs(10));
        let began = Instant::now();
        for n in 0..3 * MOST {
            let now = began + Duration::from_millis(u64::try_from(n).unwrap() / 10);
            cache.get_or_make(key(n), now, || n);
            assert!(cache.len() <= MOST);
        }
        // All at the same moment, too.
        for n in 0..2 * MOST {
            cache.get_or_make(key(n), began + Duration::from_secs(60), || n);
            assert!(cache.len() <= MOST);
        }
        // The latest is there.
        let last = cache.get_or_make(key(2 * MOST - 1), began + Duration::from_secs(61), || 0);
        assert_eq!(last, 2 * MOST - 1);
    }

    #[test]
    fn parts_are_told_apart() {
        let of = |parts: &[&str]| CacheKey::of(parts.iter().map(|p| p.as_bytes()));
        assert_eq!(of(&["a", "b"]), of(&["a", "b"]));
        for other in [&["ab", ""][..], &["", "ab"], &["ab"], &["b", "a"]] {
            assert_ne!(of(&["a", "b"]), of(other), "{other:?}");
        }
    }
}
