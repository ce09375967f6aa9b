//! Bounds the memory of the responses that the connections of one cluster receive at a time: each broker of a hostile
//! cluster may answer with as much as is allowed.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Maximum size of a response that is not counted.
const MAX_UNCOUNTED_BYTES: usize = 64 * 1024;

/// Unit in which longer ones are counted, in bytes.
const UNIT: usize = 1024;

/// The memory for long responses of one cluster. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct ResponseMemory {
    units: Arc<Semaphore>,
    total: u32,
}

/// Memory that one response takes, until this is dropped.
#[derive(Debug)]
pub(super) struct Room {
    _permit: OwnedSemaphorePermit,
}

impl ResponseMemory {
    /// Memory for as many bytes as the longest response may have.
    pub(super) fn new(bytes: usize) -> Self {
        let total = units_of(bytes);
        let permits = usize::try_from(total).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            units: Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))),
            total,
        }
    }

    /// Whether a response of this length is counted.
    pub(super) fn is_long(length: usize) -> bool {
        length > MAX_UNCOUNTED_BYTES
    }

    /// Waits until there is memory for a response. First come, first served.
    pub(super) async fn take(self, length: usize) -> Option<Room> {
        let wanted = units_of(length).min(self.total);
        // Fails only if the semaphore is closed, which nothing does.
        let permit = self.units.acquire_many_owned(wanted).await.ok()?;
        Some(Room { _permit: permit })
    }
}

fn units_of(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

impl Room {
    /// The response, which gives the memory back when it is dropped.
    pub(super) fn hold(self, response: Bytes) -> Bytes {
        Bytes::from_owner(HeldResponse {
            response,
            _room: self,
        })
    }
}

struct HeldResponse {
    response: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for HeldResponse {
    fn as_ref(&self) -> &[u8] {
        &self.response
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn long_responses_wait_for_those_before_them() {
        let memory = ResponseMemory::new(10 * UNIT);
        let soon = Duration::from_secs(1);
        let take = |length| timeout(soon, memory.clone().take(length));
        let first = take(6 * UNIT).await.unwrap().unwrap();
        let second = take(4 * UNIT).await.unwrap().unwrap();
        assert!(take(1).await.is_err(), "there is no room left");
        let held = second.hold(Bytes::from_static(b"x"));
        let part = held.slice(0..1);
        drop(held);
        assert!(take(UNIT).await.is_err(), "a part is still held");
        drop(part);
        assert!(take(4 * UNIT).await.is_ok());
        drop(first);
        // One that is longer than all the memory waits until it is alone.
        assert!(take(100 * UNIT).await.is_ok());
    }
}
