//! The open connections of a listener, and which of them is evicted for another.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::time::Instant;

use super::network::network;

/// Reasons for closing a connection, for metric labels and log lines.
pub(super) const TOO_MANY: &str = "too many";
pub(super) const TOO_MANY_OF_ADDRESS: &str = "too many of one address";
pub(super) const TOO_MANY_HANDSHAKES: &str = "too many handshakes";

/// Maximum connections of a listener in their TLS handshake. Each costs some hundred microseconds of processor time,
/// and a peer may send up to 64 KiB before its certificates are verified.
pub(super) const MAX_HANDSHAKES: usize = 128;

/// The same of one address.
const MAX_HANDSHAKES_OF_ADDRESS: usize = 96;

/// Trust level of a peer. Among the connections of an address, those of a lower level are evicted first. Requests of
/// each level have separate limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(in crate::serve) enum PeerRank {
    /// Presented no valid credentials so far.
    Unknown,
    /// Was authenticated as a user of the cluster.
    Known,
    /// Is the front proxy of the cluster, or another replica.
    Trusted,
}

impl PeerRank {
    fn from_u8(rank: u8) -> Self {
        match rank {
            0 => Self::Unknown,
            1 => Self::Known,
            _ => Self::Trusted,
        }
    }
}

/// An open connection.
#[derive(Debug)]
pub(in crate::serve) struct ConnectionSlot {
    peer: IpAddr,
    rank: AtomicU8,
    /// Whether the connection is not established yet.
    is_handshaking: AtomicBool,
    opened: Instant,
    /// Milliseconds from `opened` until the daemon last sent something on it.
    active: AtomicU64,
    evicted: AtomicBool,
    waker: AtomicWaker,
}

impl ConnectionSlot {
    pub(in crate::serve) fn new(peer: IpAddr) -> Self {
        Self {
            peer,
            rank: AtomicU8::new(PeerRank::Unknown as u8),
            is_handshaking: AtomicBool::new(true),
            opened: Instant::now(),
            active: AtomicU64::new(0),
            evicted: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// Address of the peer.
    pub(in crate::serve) fn peer(&self) -> IpAddr {
        self.peer
    }

    pub(in crate::serve) fn rank(&self) -> PeerRank {
        PeerRank::from_u8(self.rank.load(Ordering::Relaxed))
    }

    /// Whether the connection is never evicted.
    fn is_trusted(&self) -> bool {
        self.rank() == PeerRank::Trusted
    }

    /// Raises the rank of the peer; a lower rank than the current one changes nothing.
    pub(in crate::serve) fn raise_rank(&self, rank: PeerRank) {
        // Nearly always known already; a read leaves the cache line to other cores.
        if self.rank() < rank {
            self.rank.fetch_max(rank as u8, Ordering::Relaxed);
        }
    }

    /// Records that the connection is established.
    pub(in crate::serve) fn end_handshake(&self) {
        self.is_handshaking.store(false, Ordering::Relaxed);
    }

    fn is_handshaking(&self) -> bool {
        self.is_handshaking.load(Ordering::Relaxed)
    }

    /// Records that the daemon sent something.
    pub(super) fn touch(&self) {
        let passed = self.opened.elapsed().as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        self.active.store(passed, Ordering::Relaxed);
    }

    /// When the daemon last sent something, or accepted the connection.
    fn active(&self) -> Instant {
        self.opened + Duration::from_millis(self.active.load(Ordering::Relaxed))
    }

    /// Whether the connection has to end.
    pub(super) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Acquire)
    }

    /// Wakes the task of this waker once the connection has to end, unless it has to already.
    pub(super) fn wake_when_evicted(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    fn evict(&self) {
        self.evicted.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// The open connections of a listener. Few, so that they are searched one by one.
#[derive(Debug)]
pub(super) struct ConnectionTable {
    max: usize,
    max_per_address: usize,
    slots: Vec<Arc<ConnectionSlot>>,
}

impl ConnectionTable {
    pub(super) fn new(max: usize, max_per_address: usize) -> Self {
        Self {
            max,
            max_per_address,
            slots: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Adds a connection of `peer`. Also returns why another connection was evicted, if one was. `None` if the table is
    /// full and all connections are trusted.
    pub(super) fn admit(
        &mut self,
        peer: IpAddr,
    ) -> Option<(Arc<ConnectionSlot>, Option<&'static str>)> {
        let is_own = |slot: &ConnectionSlot| slot.peer == peer;
        let own = self
            .slots
            .iter()
            .filter(|slot| is_own(slot) && !slot.is_trusted());
        let is_early = |slot: &ConnectionSlot| slot.is_handshaking();
        let handshakes = self.slots.iter().filter(|slot| is_early(slot));
        let own_handshakes = handshakes.clone().filter(|slot| is_own(slot));
        let evicted = if own.count() >= self.max_per_address {
            let place = self.eviction_candidate(is_own);
            place.map(|place| (place, TOO_MANY_OF_ADDRESS))
        } else if self.slots.len() >= self.max {
            Some((self.eviction_candidate(|_| true)?, TOO_MANY))
        } else if own_handshakes.count() >= MAX_HANDSHAKES_OF_ADDRESS {
            let place = self.eviction_candidate(|slot| is_own(slot) && is_early(slot));
            place.map(|place| (place, TOO_MANY_HANDSHAKES))
        } else if handshakes.count() >= MAX_HANDSHAKES {
            let place = self.eviction_candidate(is_early);
            place.map(|place| (place, TOO_MANY_HANDSHAKES))
        } else {
            None
        };
        if let Some((place, _)) = evicted {
            self.slots.swap_remove(place).evict();
        }
        let slot = Arc::new(ConnectionSlot::new(peer));
        self.slots.push(Arc::clone(&slot));
        Some((slot, evicted.map(|(_, reason)| reason)))
    }

    /// Removes a connection that ended.
    pub(super) fn release(&mut self, slot: &Arc<ConnectionSlot>) {
        if let Some(place) = self.slots.iter().position(|known| Arc::ptr_eq(known, slot)) {
            self.slots.swap_remove(place);
        }
    }

    /// How many connections of these each network and address has.
    fn count<'a>(slots: impl Iterator<Item = &'a Arc<ConnectionSlot>>) -> ConnectionCounts {
        let mut counts = ConnectionCounts::default();
        for slot in slots {
            let of_network = counts.networks.entry(network(slot.peer)).or_default();
            *of_network = of_network.saturating_add(1);
            let of_address = counts.addresses.entry(slot.peer).or_default();
            *of_address = of_address.saturating_add(1);
        }
        counts
    }

    /// The connection to evict for a new one; `None` if all are trusted. The number of connections takes precedence
    /// over the rank: otherwise a caller with valid credentials that fills the listener would evict a front proxy that
    /// is still in its handshake.
    fn eviction_candidate(&self, is_of_these: impl Fn(&ConnectionSlot) -> bool) -> Option<usize> {
        let slots = self.slots.iter().enumerate();
        let candidates = slots.filter(|(_, slot)| !slot.is_trusted() && is_of_these(slot));
        let counts = Self::count(candidates.clone().map(|(_, slot)| slot));
        let first = candidates.min_by_key(|(_, slot)| {
            let of_network = counts.of_network(slot.peer);
            let of_address = counts.of_address(slot.peer);
            let counts = Reverse((of_network, of_address));
            (counts, slot.rank(), slot.active())
        });
        first.map(|(place, _)| place)
    }
}

/// Numbers of connections.
#[derive(Debug, Default)]
struct ConnectionCounts {
    networks: HashMap<IpAddr, usize>,
    addresses: HashMap<IpAddr, usize>,
}

impl ConnectionCounts {
    fn of_network(&self, address: IpAddr) -> usize {
        let count = self.networks.get(&network(address));
        count.copied().unwrap_or_default()
    }

    fn of_address(&self, address: IpAddr) -> usize {
        self.addresses.get(&address).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
    }

    async fn pass_time() {
        tokio::time::advance(Duration::from_secs(1)).await;
    }

    fn is_open(slot: &ConnectionSlot) -> bool {
        !slot.is_evicted()
    }

    #[tokio::test(start_paused = true)]
    async fn bounds_connections_in_total_and_per_address() {
        let mut table = ConnectionTable::new(10, 4);
        let greedy: Vec<_> = (0..6).map(|_| table.admit(address(1)).unwrap()).collect();
        let reasons: Vec<_> = greedy.iter().map(|(_, evicted)| *evicted).collect();
        let own = Some(TOO_MANY_OF_ADDRESS);
        assert_eq!(reasons, [None, None, None, None, own, own]);
        assert_eq!(table.len(), 4);
        for last in 2..20 {
            table.admit(address(last)).unwrap();
            assert!(table.len() <= 10);
        }
        // Those that ended are not released twice.
        for (slot, _) in &greedy {
            table.release(slot);
        }
        assert!(table.len() <= 10);
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_and_least_active_connections_make_room_first() {
        let mut table = ConnectionTable::new(4, 4);
        let mut open = Vec::new();
        for _ in 0..4 {
            open.push(table.admit(address(1)).unwrap().0);
            pass_time().await;
        }
        open[0].raise_rank(PeerRank::Trusted);
        open[1].raise_rank(PeerRank::Known);
        open[2].touch();
        let mut admit = |last: u8| table.admit(address(last)).map(|(slot, _)| slot);
        let newest = admit(1).unwrap();
        let state: Vec<_> = open.iter().map(|slot| is_open(slot)).collect();
        assert_eq!(state, [true, true, true, false]);
        open[2].raise_rank(PeerRank::Trusted);
        newest.raise_rank(PeerRank::Trusted);
        let trusted = admit(2).unwrap();
        // Known peers are evicted if no unknown one is left.
        assert!(!is_open(&open[1]));
        trusted.raise_rank(PeerRank::Trusted);
        trusted.raise_rank(PeerRank::Unknown);
        assert!(admit(3).is_none());
        assert!(is_open(&open[0]) && is_open(&newest) && is_open(&trusted));
    }

    #[tokio::test(start_paused = true)]
    async fn the_address_with_most_connections_makes_room_first() {
        let mut table = ConnectionTable::new(4, 3);
        let honest = table.admit(address(1)).unwrap().0;
        pass_time().await;
        for _ in 0..20 {
            table.admit(address(2)).unwrap();
            pass_time().await;
        }
        table.admit(address(3)).unwrap();
        table.admit(address(4)).unwrap();
        assert!(is_open(&honest));
    }

    #[tokio::test(start_paused = true)]
    async fn handshakes_are_bounded_in_total_and_per_address() {
        let mut table = ConnectionTable::new(1000, 800);
        let of_one: Vec<_> = (0..200)
            .map(|_| table.admit(address(1)).unwrap().0)
            .collect();
        let open = of_one.iter().filter(|slot| is_open(slot)).count();
        assert_eq!(open, MAX_HANDSHAKES_OF_ADDRESS);
        let mut table = ConnectionTable::new(1000, 800);
        let established = (0..200).map(|_| {
            let (slot, evicted) = table.admit(address(1)).unwrap();
            slot.end_handshake();
            assert_eq!(evicted, None);
            slot
        });
        let established = Vec::from_iter(established);
        // One of them opens another connection. Only handshakes count.
        let honest = [9, 1].map(|last| table.admit(address(last)).unwrap().0);
        for _ in 0..100 {
            pass_time().await;
            for last in 2..6 {
                table.admit(address(last)).unwrap();
            }
            let early = table
                .slots
                .iter()
                .filter(|slot| slot.is_handshaking())
                .count();
            assert!(early <= MAX_HANDSHAKES, "{early}");
        }
        assert!(honest.iter().all(|slot| is_open(slot)));
        assert!(established.iter().all(|slot| is_open(slot)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_makes_room_for_others_of_its_network_first() {
        let mut table = ConnectionTable::new(1000, 800);
        let honest = ["10.0.0.1", "fd01::1"].map(|peer| {
            let (slot, _) = table.admit(peer.parse().unwrap()).unwrap();
            slot
        });
        for n in 0..1000 {
            pass_time().await;
            let flooder = format!("fd00::{:x}", n + 1);
            let (_, evicted) = table.admit(flooder.parse().unwrap()).unwrap();
            let is_full = n + honest.len() >= MAX_HANDSHAKES;
            assert_eq!(evicted, is_full.then_some(TOO_MANY_HANDSHAKES), "{n}");
        }
        assert!(honest.iter().all(|slot| is_open(slot)));
        assert_eq!(table.len(), MAX_HANDSHAKES);
    }

    /// What happens to a newcomer while `flooders` open connections with valid credentials.
    async fn new_client_stays_connected_despite(flooders: &[u8]) {
        let mut table = ConnectionTable::new(8, 6);
        let newcomer = table.admit(address(1)).unwrap().0;
        for _ in 0..20 {
            for last in flooders {
                let (slot, _) = table.admit(address(*last)).unwrap();
                slot.raise_rank(PeerRank::Known);
                pass_time().await;
                assert!(is_open(&newcomer), "evicted by {flooders:?}");
            }
        }
        assert!(table.len() <= 8);
    }

    #[tokio::test(start_paused = true)]
    async fn valid_credentials_do_not_block_a_new_client() {
        new_client_stays_connected_despite(&[2]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn valid_credentials_at_several_addresses_do_not_block_a_new_client() {
        new_client_stays_connected_despite(&[2, 3, 4]).await;
    }

    /// Whether a connection of `honest` stays open while each of these addresses opens some, in a table of 8 with at
    /// most 6 for an address.
    async fn stays_open_beside(honest: &str, flooders: &[String]) -> bool {
        let mut table = ConnectionTable::new(8, 6);
        let honest = table.admit(honest.parse().unwrap()).unwrap().0;
        for _ in 0..3 {
            for flooder in flooders {
                pass_time().await;
                table.admit(flooder.parse().unwrap()).unwrap();
            }
        }
        assert!(table.len() <= 8);
        is_open(&honest)
    }

    #[tokio::test(start_paused = true)]
    async fn the_network_with_most_connections_makes_room_first() {
        let addresses = |prefix: &str| Vec::from_iter((1..10).map(|n| format!("{prefix}{n}")));
        for (honest, flooders, expected) in [
            ("fd01::1", addresses("fd00::"), true),
            ("10.0.0.1", addresses("fd00::"), true),
            // Within a network, connections of the address with the most are evicted first.
            ("fd00::1", vec!["fd00::2".to_owned(); 20], true),
            // Many IPv4 addresses, or IPv6 networks, cannot be distinguished from many callers.
            ("10.0.0.1", addresses("10.0.1."), false),
        ] {
            let is_open = stays_open_beside(honest, &flooders).await;
            assert_eq!(is_open, expected, "{honest} beside {flooders:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn trusted_connections_do_not_count_for_their_address() {
        let mut table = ConnectionTable::new(8, 2);
        let mut open = Vec::new();
        for _ in 0..6 {
            let slot = table.admit(address(1)).unwrap().0;
            slot.raise_rank(PeerRank::Trusted);
            open.push(slot);
        }
        assert!(open.iter().all(|slot| is_open(slot)));
        // Those with valid credentials do.
        for _ in 0..3 {
            let slot = table.admit(address(2)).unwrap().0;
            slot.raise_rank(PeerRank::Known);
        }
        assert_eq!(table.len(), 8);
    }
}
