//! A cache bounded in size and age. Keys are digests, so that neither long names nor tokens stay in
//! memory.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

/// Maximum number of entries.
const MAX_ENTRIES: usize = 4096;

/// Digest of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct CacheKey([u8; 32]);

impl CacheKey {
    /// Digest of the parts in order. Part lengths are included, so moving a boundary changes the
    /// digest.
    pub(super) fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut key = KeyBuilder::default();
        for part in parts {
            key.add(part);
        }
        key.finish()
    }
}

/// Builds a key from parts.
#[derive(Debug, Default)]
pub(super) struct KeyBuilder(Sha256);

impl KeyBuilder {
    /// Adds a part.
    pub(super) fn add(&mut self, part: impl AsRef<[u8]>) {
        let part = part.as_ref();
        self.0.update(part.len().to_be_bytes());
        self.0.update(part);
    }

    /// Returns the key.
    pub(super) fn finish(self) -> CacheKey {
        CacheKey(self.0.finalize().into())
    }
}

/// Cached values that expire.
#[derive(Debug)]
pub(super) struct Cache<V> {
    max_age: Duration,
    entries: Mutex<CacheEntries<V>>,
}

type CacheEntries<V> = HashMap<CacheKey, (Instant, V)>;

impl<V: Clone> Cache<V> {
    pub(super) fn new(max_age: Duration) -> Self {
        Self {
            max_age,
            entries: Mutex::new(HashMap::new()),
        }
    }

    /// The value of a key, if there is one that has not expired.
    pub(super) fn get(&self, key: CacheKey, now: Instant) -> Option<V> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (made, value) = entries.get(&key)?;
        (now.saturating_duration_since(*made) < self.max_age).then(|| value.clone())
    }

    /// Sets the value of a key.
    pub(super) fn insert(&self, key: CacheKey, now: Instant, value: V) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        self.make_room(&mut entries, key, now);
        entries.insert(key, (now, value));
    }

    /// Returns the value of a key, created by `make` if it is missing or expired.
    pub(super) fn get_or_insert_with(
        &self,
        key: CacheKey,
        now: Instant,
        make: impl FnOnce() -> V,
    ) -> V {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, value)) = entries.get(&key)
            && now.saturating_duration_since(*made) < self.max_age
        {
            return value.clone();
        }
        self.make_room(&mut entries, key, now);
        let value = make();
        entries.insert(key, (now, value.clone()));
        value
    }

    fn make_room(&self, entries: &mut CacheEntries<V>, key: CacheKey, now: Instant) {
        let holds = |made: &Instant| now.saturating_duration_since(*made) < self.max_age;
        if entries.len() >= MAX_ENTRIES && !entries.contains_key(&key) {
            entries.retain(|_, (made, _)| holds(made));
            // All entries are fresh: drop the oldest tenth at once, so that this rarely happens.
            if entries.len() >= MAX_ENTRIES {
                let mut ages: Vec<Instant> = entries.values().map(|(made, _)| *made).collect();
                let (_, tenth, _) = ages.select_nth_unstable(MAX_ENTRIES / 10);
                let tenth = *tenth;
                entries.retain(|_, (made, _)| *made > tenth);
            }
        }
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
        CacheKey::digest([&n.to_be_bytes()[..]])
    }

    #[test]
    fn entries_expire() {
        let cache = Cache::new(Duration::from_secs(10));
        let began = Instant::now();
        let after = |seconds, value| {
            cache.get_or_insert_with(key(1), began + Duration::from_secs(seconds), || value)
        };
        assert_eq!(after(0, "first"), "first");
        assert_eq!(after(9, "second"), "first");
        assert_eq!(after(10, "second"), "second");
        assert_eq!(after(19, "third"), "second");
    }

    #[test]
    fn number_of_entries_is_bounded() {
        let cache = Cache::new(Duration::from_secs(10));
        let began = Instant::now();
        for n in 0..3 * MAX_ENTRIES {
            let now = began + Duration::from_millis(u64::try_from(n).unwrap() / 10);
            cache.get_or_insert_with(key(n), now, || n);
            assert!(cache.len() <= MAX_ENTRIES);
        }
        // Also if all are inserted at the same time.
        for n in 0..2 * MAX_ENTRIES {
            cache.get_or_insert_with(key(n), began + Duration::from_secs(60), || n);
            assert!(cache.len() <= MAX_ENTRIES);
        }
        // The latest entry is kept.
        let last = cache.get_or_insert_with(
            key(2 * MAX_ENTRIES - 1),
            began + Duration::from_secs(61),
            || 0,
        );
        assert_eq!(last, 2 * MAX_ENTRIES - 1);
    }

    #[test]
    fn digest_distinguishes_parts() {
        let of = |parts: &[&str]| CacheKey::digest(parts.iter().map(|p| p.as_bytes()));
        assert_eq!(of(&["a", "b"]), of(&["a", "b"]));
        for other in [&["ab", ""][..], &["", "ab"], &["ab"], &["b", "a"]] {
            assert_ne!(of(&["a", "b"]), of(other), "{other:?}");
        }
    }
}
