//! Takes, renews and releases the Lease.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::rules::{LeaseAction, LeaseCandidate, LeaseRecord, LeaseRules};
use super::term::{Leader, Term};
use crate::telemetry::failure_log::FailureLog;
use crate::telemetry::lease::{
    ElectionJoined, LeadershipGained, LeadershipLost, LeaseFailed, LeaseTooLong,
};

/// Timeout for one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Timeout for releasing the Lease at shutdown.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// Where the Lease is kept.
pub trait LeaseStore: Send + Sync + 'static {
    /// Precondition of a write, so that it fails after another write.
    type Version: Send + Sync;

    /// Reads the Lease; `None` if there is none.
    fn read(
        &self,
        timeout: Duration,
    ) -> impl Future<Output = Result<Option<StoredLease<Self::Version>>, LeaseError>> + Send;

    /// Writes this holder, term, duration and address, and the present time, over the Lease that was `found`.
    fn write(
        &self,
        found: Option<&Self::Version>,
        wanted: &LeaseRecord,
        timeout: Duration,
    ) -> impl Future<Output = Result<StoredLease<Self::Version>, LeaseError>> + Send;

    /// Releases the Lease, so that another daemon takes it at once.
    fn release(
        &self,
        held: &Self::Version,
        timeout: Duration,
    ) -> impl Future<Output = Result<(), LeaseError>> + Send;
}

/// A Lease as it was read or written.
#[derive(Clone, Debug)]
pub struct StoredLease<V> {
    /// Its contents.
    pub record: LeaseRecord,
    /// Which version of it that was.
    pub version: V,
}

/// Why the Lease could not be read or written. The text stays the same while the cause does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// Another daemon has written it.
    #[error("the Lease was changed by another daemon")]
    Conflict,
    /// Any other cause.
    #[error("{0}")]
    Failed(String),
}

/// Inputs of the lease loop.
#[derive(Debug)]
pub struct LeaseLoop<S> {
    /// Where the Lease is kept.
    pub store: S,
    /// The Lease's name, for the log.
    pub name: String,
    /// This daemon's identity, which no other has.
    pub identity: String,
    /// The host and port at which the other daemons reach this one's external metrics API.
    pub address: String,
    /// Durations.
    pub rules: LeaseRules,
    /// Says whether this daemon leads.
    pub terms: watch::Sender<Option<Term>>,
    /// Says which other daemon leads.
    pub leaders: watch::Sender<Option<Leader>>,
    /// The Lease as a watch last showed it; without the right to watch it, this never changes.
    pub watched: watch::Receiver<Option<LeaseRecord>>,
    /// Becomes true when this daemon has to step down.
    pub stop: watch::Receiver<bool>,
}

impl<S: LeaseStore> LeaseLoop<S> {
    /// Acquires and renews the Lease until shutdown; then releases it, so that another daemon leads at once.
    pub async fn run(self) {
        ElectionJoined.emit();
        let (mut watched, mut stop) = (self.watched, self.stop);
        let mut elector = Elector {
            store: self.store,
            name: self.name,
            address: self.address,
            rules: self.rules,
            candidate: LeaseCandidate::new(self.identity),
            held: None,
            terms: self.terms,
            leaders: self.leaders,
            failures: FailureLog::default(),
            odd_durations: FailureLog::default(),
        };
        loop {
            let outcome = elector.take_or_renew().await;
            elector.report_failure(outcome);
            elector.end_expired_term();
            // When another's Lease is about to expire, wake up at that moment.
            let retry = self.rules.retry();
            let expires = elector.candidate.expires_in(Instant::now());
            let pause = expires
                .filter(|expires| !expires.is_zero())
                .map_or(retry, |expires| expires.min(retry));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = elector.wait_until_open(&mut watched) => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        elector.step_down().await;
    }
}

struct Elector<S: LeaseStore> {
    store: S,
    name: String,
    address: String,
    rules: LeaseRules,
    candidate: LeaseCandidate,
    /// The Lease as this daemon last wrote it.
    held: Option<StoredLease<S::Version>>,
    terms: watch::Sender<Option<Term>>,
    leaders: watch::Sender<Option<Leader>>,
    failures: FailureLog<LeaseError>,
    /// The duration of another holder's Lease that is longer than any daemon claims.
    odd_durations: FailureLog<Duration>,
}

/// Publishes which daemon holds the Lease, if it is not the one with this identity.
pub fn publish_leader(
    leaders: &watch::Sender<Option<Leader>>,
    lease: Option<&LeaseRecord>,
    identity: &str,
) {
    let leader = lease.and_then(|lease| {
        let holder = lease.holder.as_deref();
        holder.filter(|holder| *holder != identity).map(|_| Leader {
            term: lease.transitions.into(),
            address: lease.address.clone(),
        })
    });
    leaders.send_if_modified(|known| {
        let differs = *known != leader;
        *known = leader;
        differs
    });
}

impl<S: LeaseStore> Elector<S> {
    /// Waits until the watch shows that the Lease was released, or taken from this daemon.
    async fn wait_until_open(&mut self, watched: &mut watch::Receiver<Option<LeaseRecord>>) {
        loop {
            if watched.changed().await.is_err() {
                return std::future::pending().await;
            }
            let record = watched.borrow_and_update().clone();
            if self.held.is_none() && record.is_some() {
                // The Lease's duration counts from its renewal, not from the next read. A renewal that
                // the watch shows late only makes this daemon wait longer.
                self.candidate.observe(record.clone(), Instant::now());
            }
            let held = self.held.as_ref().map(|held| &held.record);
            if record.is_some_and(|record| is_open(&record, held)) {
                // It is no longer what this daemon last wrote, so it has to be read.
                self.held = None;
                return;
            }
        }
    }

    async fn take_or_renew(&mut self) -> Result<(), LeaseError> {
        let timeout = REQUEST_TIMEOUT.min(self.rules.term());
        let found = match self.held.take() {
            // If anybody else has written it since, the renewal fails.
            Some(held) => Some(held),
            None => self.store.read(timeout).await?,
        };
        let now = Instant::now();
        let record = found.as_ref().map(|found| found.record.clone());
        publish_leader(&self.leaders, record.as_ref(), self.candidate.identity());
        self.report_odd_duration(record.as_ref());
        self.candidate.observe(record, now);
        let LeaseAction::Hold { term } = self.candidate.decide(now) else {
            self.publish(None);
            return Ok(());
        };
        let wanted = LeaseRecord {
            holder: Some(self.candidate.identity().to_owned()),
            transitions: term,
            renewed: None,
            duration: self.rules.duration,
            address: Some(self.address.clone()),
        };
        // The term counts from before the request: whenever that arrives, the Lease is valid for longer.
        let sent = Instant::now();
        let version = found.as_ref().map(|found| &found.version);
        let written = match self.store.write(version, &wanted, timeout).await {
            // Another writer was quicker.
            Err(LeaseError::Conflict) => return Ok(()),
            other => other?,
        };
        let record = written.record.clone();
        publish_leader(&self.leaders, Some(&record), self.candidate.identity());
        self.candidate.observe(Some(record), Instant::now());
        self.held = Some(written);
        self.publish(Some(Term {
            number: term.into(),
            until: Some(sent + self.rules.term()),
        }));
        Ok(())
    }

    fn report_odd_duration(&mut self, lease: Option<&LeaseRecord>) {
        let odd = lease.filter(|lease| lease.holder.is_some() && lease.duration > lease.validity());
        let Some(odd) = odd else {
            self.odd_durations.record_success();
            return;
        };
        if let Some(claimed) = self.odd_durations.record_failure(odd.duration) {
            LeaseTooLong {
                lease: &self.name,
                claimed: *claimed,
                respected: odd.validity(),
            }
            .emit();
        }
    }

    fn publish(&self, term: Option<Term>) {
        let before = self.terms.send_replace(term);
        match (before.map(|t| t.number), term.map(|t| t.number)) {
            (was, Some(number)) if was != Some(number) => LeadershipGained { term: number }.emit(),
            (Some(number), None) => LeadershipLost { term: number }.emit(),
            _ => {}
        }
    }

    async fn step_down(&mut self) {
        self.publish(None);
        if let Some(held) = self.held.take() {
            let released = self.store.release(&held.version, RELEASE_TIMEOUT).await;
            self.report_failure(released);
        }
    }

    /// Logs the failure of an attempt once per cause.
    fn report_failure(&mut self, outcome: Result<(), LeaseError>) {
        let Err(error) = outcome else {
            self.failures.record_success();
            return;
        };
        if let Some(reason) = self.failures.record_failure(error) {
            LeaseFailed {
                lease: &self.name,
                reason,
            }
            .emit();
        }
    }

    /// Publishes that the term is over, if it was not renewed in time. It does not matter how the last attempt ended: a
    /// conflict with another writer is not a failure, but renews nothing either.
    fn end_expired_term(&self) {
        let term = *self.terms.borrow();
        if term.is_none_or(|term| term.time_left(Instant::now()).is_none()) {
            self.publish(None);
        }
    }
}

/// Whether a Lease that the watch shows has to be read: it was released, or taken from this daemon, which
/// `held` it. A watch may be late and show the Lease as it was before this daemon took it.
fn is_open(shown: &LeaseRecord, held: Option<&LeaseRecord>) -> bool {
    match held {
        None => shown.holder.is_none(),
        Some(held) => shown.holder != held.holder && shown.transitions >= held.transitions,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::telemetry::log_buffer::LogBuffer;

    fn record(holder: Option<&str>, transitions: u32) -> LeaseRecord {
        LeaseRecord {
            holder: holder.map(str::to_owned),
            transitions,
            ..LeaseRecord::default()
        }
    }

    #[test]
    fn reads_a_lease_that_is_free_or_was_lost() {
        let mine = record(Some("me"), 4);
        for (shown, held, expected) in [
            (record(None, 4), None, true),
            (record(Some("other"), 4), None, false),
            (record(Some("me"), 4), Some(&mine), false),
            (record(Some("other"), 5), Some(&mine), true),
            (record(None, 4), Some(&mine), true),
            // From before it was taken.
            (record(None, 3), Some(&mine), false),
            (record(Some("other"), 3), Some(&mine), false),
        ] {
            assert_eq!(is_open(&shown, held), expected, "{shown:?} {held:?}");
        }
    }

    #[test]
    fn publishes_other_leaders_with_their_address() {
        let (leaders, published) = watch::channel(None);
        let lease = |holder: Option<&str>, address: Option<&str>| LeaseRecord {
            address: address.map(str::to_owned),
            ..record(holder, 7)
        };
        for (shown, expected) in [
            (
                Some(lease(Some("other"), Some("10.0.0.1:6443"))),
                Some(Some("10.0.0.1:6443")),
            ),
            (Some(lease(Some("other"), None)), Some(None)),
            (Some(lease(Some("me"), Some("10.0.0.2:6443"))), None),
            (Some(lease(None, Some("10.0.0.1:6443"))), None),
            (None, None),
        ] {
            publish_leader(&leaders, shown.as_ref(), "me");
            let leader = published.borrow().clone();
            let expected = expected.map(|address| Leader {
                term: 7,
                address: address.map(str::to_owned),
            });
            assert_eq!(leader, expected);
        }
    }

    /// A Lease in memory, with a version that counts its writes.
    #[derive(Clone, Default)]
    struct MemoryStore(Arc<Mutex<(Option<LeaseRecord>, u64)>>, Arc<Mutex<Errors>>);

    /// The errors of the next writes, over and over; none if it is empty.
    type Errors = VecDeque<LeaseError>;

    impl LeaseStore for MemoryStore {
        type Version = u64;

        async fn read(&self, _: Duration) -> Result<Option<StoredLease<u64>>, LeaseError> {
            let (record, version) = self.0.lock().unwrap().clone();
            Ok(record.map(|record| StoredLease { record, version }))
        }

        async fn write(
            &self,
            found: Option<&u64>,
            wanted: &LeaseRecord,
            _: Duration,
        ) -> Result<StoredLease<u64>, LeaseError> {
            let mut errors = self.1.lock().unwrap();
            if let Some(error) = errors.pop_front() {
                errors.push_back(error.clone());
                return Err(error);
            }
            let mut lease = self.0.lock().unwrap();
            if found.copied().unwrap_or(0) != lease.1 {
                return Err(LeaseError::Conflict);
            }
            lease.1 += 1;
            let record = LeaseRecord {
                renewed: Some(lease.1.to_string()),
                ..wanted.clone()
            };
            lease.0 = Some(record.clone());
            let version = lease.1;
            Ok(StoredLease { record, version })
        }

        async fn release(&self, held: &u64, _: Duration) -> Result<(), LeaseError> {
            let mut lease = self.0.lock().unwrap();
            if *held != lease.1 {
                return Err(LeaseError::Conflict);
            }
            lease.1 += 1;
            if let Some(record) = &mut lease.0 {
                record.holder = None;
            }
            Ok(())
        }
    }

    struct Started {
        term: watch::Receiver<Option<Term>>,
        leader: watch::Receiver<Option<Leader>>,
        stop: watch::Sender<bool>,
        task: tokio::task::JoinHandle<()>,
    }

    fn start(store: &MemoryStore, identity: &str) -> Started {
        let (terms, term) = watch::channel(None);
        let (leaders, leader) = watch::channel(None);
        let (stop, stopping) = watch::channel(false);
        let (_, watched) = watch::channel(None);
        let running = LeaseLoop {
            store: store.clone(),
            name: "lagwise".into(),
            identity: identity.into(),
            address: format!("{identity}:6443"),
            rules: LeaseRules {
                duration: Duration::from_millis(300),
            },
            terms,
            leaders,
            watched,
            stop: stopping,
        };
        Started {
            term,
            leader,
            stop,
            task: tokio::spawn(running.run()),
        }
    }

    /// The warnings of a daemon that waits for this Lease of another.
    async fn warnings_about(lease: LeaseRecord) -> String {
        let log = LogBuffer::default();
        let to = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || to.clone())
            .with_ansi(false)
            .with_max_level(tracing::Level::WARN)
            .finish();
        let _quiet = tracing::subscriber::set_default(subscriber);
        let store = MemoryStore::default();
        *store.0.lock().unwrap() = (Some(lease), 1);
        let waiting = start(&store, "me");
        // Several attempts.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(waiting.term.borrow().is_none());
        waiting.task.abort();
        log.text()
    }

    #[tokio::test]
    async fn warns_once_of_a_lease_that_claims_to_be_valid_for_too_long() {
        let claimed = |seconds| LeaseRecord {
            duration: Duration::from_secs(seconds),
            ..record(Some("other"), 4)
        };
        for seconds in [301, 1 << 31] {
            let warned = warnings_about(claimed(seconds)).await;
            assert_eq!(warned.lines().count(), 1, "{warned}");
            for part in [
                "lease=\"lagwise\"",
                &format!("claimed_seconds={seconds}"),
                "respected_seconds=300",
                "delete the Lease",
            ] {
                assert!(warned.contains(part), "{part}: {warned}");
            }
        }
        assert_eq!(warnings_about(claimed(300)).await, "");
    }

    #[tokio::test]
    async fn leader_hands_over_when_it_stops() {
        let store = MemoryStore::default();
        let mut first = start(&store, "a");
        let term = first.term.wait_for(Option::is_some).await.unwrap().unwrap();
        assert_eq!(term.number, 1);
        let mut second = start(&store, "b");
        let leader = second.leader.wait_for(Option::is_some).await;
        let address = leader.unwrap().clone().unwrap().address;
        assert_eq!(address.as_deref(), Some("a:6443"));
        assert!(second.term.borrow().is_none());
        first.stop.send_replace(true);
        first.task.await.unwrap();
        let term = second.term.wait_for(Option::is_some).await;
        assert_eq!(term.unwrap().unwrap().number, 2);
        second.task.abort();
    }

    /// Starts a leader whose further writes all fail, by these errors in turn, and waits until it says that it does not
    /// lead any more.
    async fn lose_leadership(errors: &[LeaseError]) {
        let store = MemoryStore::default();
        let mut leader = start(&store, "a");
        leader.term.wait_for(Option::is_some).await.unwrap();
        store.1.lock().unwrap().extend(errors.iter().cloned());
        let lost = leader.term.wait_for(Option::is_none);
        let lost = tokio::time::timeout(Duration::from_secs(10), lost).await;
        let is_lost = lost.is_ok_and(|lost| lost.is_ok());
        assert!(is_lost, "{errors:?}: the end of the term was not published");
        // It leads again once it can write.
        store.1.lock().unwrap().clear();
        leader.term.wait_for(Option::is_some).await.unwrap();
        leader.task.abort();
    }

    #[tokio::test]
    async fn publishes_the_end_of_a_term_that_conflicts_kept_from_renewal() {
        lose_leadership(&[LeaseError::Conflict]).await;
    }

    #[tokio::test]
    async fn publishes_the_end_of_a_term_that_no_write_renews() {
        let failed = || LeaseError::Failed("no answer".into());
        lose_leadership(&[failed()]).await;
        lose_leadership(&[LeaseError::Conflict, failed(), LeaseError::Conflict]).await;
    }
}
