//! Lets expositions be written one chunk at a time, in a fair order: all scrapes together use at most one thread, and
//! many from one address do not delay those from others.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::serve::connections::network;

/// Lets one exposition at a time write a chunk. Next is the network whose last turn is longest ago, or that had none,
/// within it the address of which that is true, and there the exposition that asked first.
#[derive(Clone, Debug, Default)]
pub(in crate::serve) struct WriterTurns(Arc<Mutex<TurnQueue>>);

/// The turns of the expositions for one address.
#[derive(Clone, Debug)]
pub(in crate::serve) struct AddressTurns {
    turns: WriterTurns,
    address: Option<IpAddr>,
}

/// The right to write a chunk. When it is dropped, it passes to the next exposition that waits.
#[derive(Debug)]
pub(in crate::serve) struct WriterTurn(WriterTurns);

#[derive(Debug, Default)]
struct TurnQueue {
    is_taken: bool,
    /// In the order in which they began to wait.
    waiting: VecDeque<WaitingWriter>,
    /// Number of the latest turn.
    latest: u64,
    networks: LatestTurns<Option<IpAddr>>,
    addresses: LatestTurns<Option<IpAddr>>,
}

#[derive(Debug)]
struct WaitingWriter {
    address: Option<IpAddr>,
    turn: oneshot::Sender<WriterTurn>,
}

impl WriterTurns {
    /// The turns of a scraper at this address. All unknown addresses (`None`) count as one.
    pub(in crate::serve) fn at_address(&self, address: Option<IpAddr>) -> AddressTurns {
        AddressTurns {
            turns: self.clone(),
            address,
        }
    }

    fn queue(&self) -> MutexGuard<'_, TurnQueue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AddressTurns {
    /// Waits for a turn. `None` is not expected; a caller that gets it writes without a turn.
    pub(in crate::serve) async fn next(&self) -> Option<WriterTurn> {
        let turn = {
            let mut queue = self.turns.queue();
            if !queue.is_taken {
                queue.is_taken = true;
                queue.record_turn(self.address);
                drop(queue);
                return Some(WriterTurn(self.turns.clone()));
            }
            let (turn, received) = oneshot::channel();
            let address = self.address;
            queue.waiting.push_back(WaitingWriter { address, turn });
            received
        };
        // An error would be a sender that was dropped without a turn, and every one that waits gets one.
        turn.await.ok()
    }
}

impl Drop for WriterTurn {
    fn drop(&mut self) {
        let next = {
            let mut queue = self.0.queue();
            let next = queue.take_next();
            queue.is_taken = next.is_some();
            next
        };
        if let Some(next) = next {
            // If the next one has just ceased to wait, its turn comes back, is dropped here, and passes on.
            let _ = next.turn.send(Self(self.0.clone()));
        }
    }
}

impl TurnQueue {
    fn take_next(&mut self) -> Option<WaitingWriter> {
        self.waiting.retain(|waiting| !waiting.turn.is_closed());
        let waiting = self.waiting.iter().enumerate();
        let (place, _) = waiting.min_by_key(|(place, waiting)| {
            let address = &waiting.address;
            let of_network = self.networks.latest(&address.map(network));
            (of_network, self.addresses.latest(address), *place)
        })?;
        let next = self.waiting.remove(place)?;
        self.record_turn(next.address);
        Some(next)
    }

    fn record_turn(&mut self, address: Option<IpAddr>) {
        self.latest = self.latest.saturating_add(1);
        self.networks.record(address.map(network), self.latest);
        self.addresses.record(address, self.latest);
    }
}

/// The number of the latest turn of each key. Old turns are forgotten, and then count as none.
#[derive(Debug)]
struct LatestTurns<K>(HashMap<K, u64>);

// They bound the memory. A forgotten key counts as one that had no turn, so it is only served earlier.
const MAX_REMEMBERED: usize = 256;
const REMEMBERED_TURNS: u64 = 128;

impl<K> Default for LatestTurns<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> LatestTurns<K> {
    /// 0 if there was none.
    fn latest(&self, key: &K) -> u64 {
        self.0.get(key).copied().unwrap_or(0)
    }

    fn record(&mut self, key: K, turn: u64) {
        self.0.insert(key, turn);
        if self.0.len() > MAX_REMEMBERED {
            let oldest = turn.saturating_sub(REMEMBERED_TURNS);
            self.0.retain(|_, latest| *latest > oldest);
        }
    }
}

#[cfg(test)]
impl WriterTurns {
    /// How many wait for a turn.
    pub(in crate::serve) fn waiting(&self) -> usize {
        self.queue().waiting.len()
    }

    /// Whether a scraper at this address has had a turn.
    pub(in crate::serve) fn has_served(&self, address: IpAddr) -> bool {
        self.queue().addresses.latest(&Some(address)) > 0
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// The order in which writers at these addresses get their turns, if they wait in the given order while the first
    /// one writes.
    fn serve_in_order(asked: &[&str]) -> Vec<String> {
        let turns = WriterTurns::default();
        let at = |address: &str| turns.at_address(Some(address.parse().unwrap()));
        let next = async |address: String| (at(&address).next().await.unwrap(), address);
        let held = next(asked[0].to_owned()).now_or_never().unwrap();
        let mut waiting = Vec::new();
        for address in &asked[1..] {
            let mut asking = Box::pin(next((*address).to_owned()));
            assert!((&mut asking).now_or_never().is_none());
            waiting.push(asking);
        }
        let mut order = vec![held.1];
        let mut turn = held.0;
        while !waiting.is_empty() {
            drop(turn);
            let mut served = Vec::new();
            waiting.retain_mut(|asking| match asking.now_or_never() {
                Some(next) => {
                    served.push(next);
                    false
                }
                None => true,
            });
            let (next, address) = served.pop().unwrap();
            assert!(served.is_empty(), "two turns at a time");
            order.push(address);
            turn = next;
        }
        order
    }

    #[test]
    fn networks_and_their_addresses_take_turns() {
        for (asked, expected) in [
            // A single scraper gets all turns.
            (&["10.0.0.1"; 3][..], &["10.0.0.1"; 3][..]),
            (
                &["10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.2"],
                &["10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.2", "10.0.0.1"],
            ),
            // Many addresses of one network do not keep another one waiting.
            (
                &["fd00::1", "fd00::2", "fd00::3", "fd00::4", "fd01::1"],
                &["fd00::1", "fd01::1", "fd00::2", "fd00::3", "fd00::4"],
            ),
            // The same holds for the addresses of one network.
            (
                &["fd00::1", "fd00::1", "fd00::1", "fd00::2"],
                &["fd00::1", "fd00::2", "fd00::1", "fd00::1"],
            ),
        ] {
            assert_eq!(serve_in_order(asked), expected, "{asked:?}");
        }
    }

    #[test]
    fn a_cancelled_waiter_takes_no_turn() {
        let turns = WriterTurns::default();
        let turns = turns.at_address(None);
        let held = turns.next().now_or_never().unwrap();
        let mut first = Box::pin(turns.next());
        let mut second = Box::pin(turns.next());
        let mut third = Box::pin(turns.next());
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        assert!((&mut third).now_or_never().is_none());
        drop(first);
        drop(held);
        // It has its turn, but does not take it any more.
        drop(second);
        assert!((&mut third).now_or_never().is_some());
        drop(third);
        assert!(turns.next().now_or_never().is_some());
    }

    #[test]
    fn remembered_data_is_bounded() {
        let mut latest = LatestTurns::default();
        for turn in 1..10_000 {
            latest.record(turn, turn);
            assert!(latest.0.len() <= MAX_REMEMBERED);
        }
        assert_eq!((latest.latest(&9_999), latest.latest(&1)), (9_999, 0));
    }
}
