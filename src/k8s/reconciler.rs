//! Reconciles HPAs: one task decides from the latest snapshot which of them have something to do, and
//! runs one [`Pass`] over each, several at a time.
//!
//! Level-triggered: every snapshot decides anew from what the watch shows, and every pass from what it
//! reads, so that a write that was lost, refused or undone is made up for by a later pass.

mod event_publisher;
mod pass;
mod retry;
mod state;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::api_error::ApiError;
use super::field_owner::find_field_owner;
use super::scale::Scales;
use super::write_guard::WriteGuard;
use crate::model::decisions::cap::FieldOwner;
use crate::model::decisions::enforceable::complete_reads;
use crate::model::decisions::scale_to_zero::candidates;
use crate::model::hpa::facts::is_paused;
use crate::model::settings::cap_mode::CapMode;
use crate::model::snapshot::LagSnapshot;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::Moment;
use crate::telemetry::failure_log::FailureLog;
use crate::telemetry::lease::{EpochUnwritten, EpochWritten};
use event_publisher::{EventPublisher, PublishedEvent};
use pass::{Pass, PassReport};
use retry::Attempts;
use state::HpaState;

/// Passes at the same time at most, so that many HPAs do not become a flood of requests.
const MAX_PASSES: usize = 8;

/// How often the admission policy is looked up.
const FIND_OWNER_EVERY: Duration = Duration::from_secs(60);

/// The longest pause between two attempts at an HPA that fail.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Follows the snapshots until there are no more. With `read_only` only events are written.
pub async fn run(guard: WriteGuard, read_only: bool) {
    let mut reader = guard.reader.clone();
    let mut reconciler = Reconciler::new(guard, read_only);
    loop {
        tokio::select! {
            more = reader.changed() => {
                if !more {
                    return;
                }
                reconciler.observe();
            }
            Some(done) = reconciler.running.join_next() => {
                match done {
                    Ok(done) => reconciler.finish(done),
                    // A panic is a defect that must not go unseen: it ends this task, too.
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(_) => {}
                }
            }
        }
        reconciler.start();
    }
}

/// What a task of the reconciler was.
enum Finished {
    Pass(Box<PassReport>),
    FieldOwner(Result<FieldOwner, ApiError>),
    Event(PublishedEvent),
}

struct Reconciler {
    guard: WriteGuard,
    scales: Scales,
    read_only: bool,
    hpas: BTreeMap<HpaKey, HpaState>,
    /// The HPAs with something to do, the urgent ones first.
    queue: VecDeque<HpaKey>,
    /// The HPAs of the passes under way.
    busy: BTreeSet<HpaKey>,
    running: JoinSet<Finished>,
    field_owner: FieldOwnerLookup,
    claims: EpochClaims,
    events: EventPublisher,
    /// The clusters' sweeps that the caps were last decided from.
    swept: Vec<Instant>,
}

/// Which component records the user's `maxReplicas`, as far as it was looked up.
#[derive(Default)]
struct FieldOwnerLookup {
    found: Option<(FieldOwner, Instant)>,
    is_running: bool,
    attempts: Attempts,
}

/// The HPAs that were given the term, for the log.
#[derive(Default)]
struct EpochClaims {
    failures: FailureLog<ApiError>,
    written: usize,
}

impl Reconciler {
    fn new(guard: WriteGuard, read_only: bool) -> Self {
        Self {
            scales: Scales::new(guard.client.clone()),
            events: EventPublisher::new(guard.clone()),
            guard,
            read_only,
            hpas: BTreeMap::new(),
            queue: VecDeque::new(),
            busy: BTreeSet::new(),
            running: JoinSet::new(),
            field_owner: FieldOwnerLookup::default(),
            claims: EpochClaims::default(),
            swept: Vec::new(),
        }
    }

    /// Takes in the latest snapshot and decides which HPAs have something to do.
    fn observe(&mut self) {
        self.queue.clear();
        let snapshot = self.guard.take_snapshot();
        self.events.observe(snapshot.as_ref());
        let Some(snapshot) = snapshot else {
            // Another leads, and may change anything: what is remembered here is out of date.
            self.hpas.clear();
            self.swept.clear();
            return;
        };
        // Nothing may be decided before the first sweep, nor from one that is too old.
        if self.read_only || self.guard.time_for_write().is_err() {
            return;
        }
        self.update_states(&snapshot);
        self.claims.log(snapshot.term, &self.hpas);
        self.fill_queue();
    }

    fn update_states(&mut self, snapshot: &LagSnapshot) {
        let Some(all) = self.guard.hpas.borrow().clone() else {
            return;
        };
        let (default, now) = (self.guard.rules.cap, Moment::now());
        let candidates = candidates(snapshot.at(&now));
        let mut before = std::mem::take(&mut self.hpas);
        for hpa in all.values() {
            let key = hpa.key();
            let candidate = candidates.get(&key).copied();
            let known = before.remove(&key);
            // Most HPAs ask for nothing, which is seen without parsing anything.
            let asks = default == CapMode::Enforce || !hpa.annotations.is_empty();
            if known.is_none() && candidate.is_none() && !asks || is_paused(hpa) {
                continue;
            }
            let mut state = known.unwrap_or_default();
            let idle = snapshot.idle.get(&key).map(|since| now.since(since));
            if state.update(hpa, default, candidate, idle) {
                self.hpas.insert(key, state);
            }
        }
        // One sweep counts once, however many snapshots show it.
        let sweeps = snapshot.clusters.values().filter_map(|c| c.sweep);
        let swept: Vec<_> = sweeps.map(|sweep| sweep.started.monotonic).collect();
        if swept == self.swept {
            return;
        }
        self.swept = swept;
        let reads = complete_reads(snapshot.at(&now), |hpa| self.hpas.contains_key(hpa));
        for (key, state) in &mut self.hpas {
            let facts = Arc::clone(&state.facts);
            state.cap.decide(&facts, default, reads.get(key).copied());
        }
    }

    /// Queues the HPAs that have something to do and no pass under way.
    fn fill_queue(&mut self) {
        self.look_for_field_owner();
        let (term, now) = (self.guard.from.term, Instant::now());
        let owner = self.field_owner.found.map(|(owner, _)| owner);
        let idle = self
            .hpas
            .iter()
            .filter(|(key, _)| !self.busy.contains(*key));
        let mut due: Vec<_> = idle
            .filter_map(|(key, state)| Some((state.urgency(term, owner, now)?, key.clone())))
            .collect();
        due.sort_by_key(|(urgency, _)| *urgency);
        self.queue = due.into_iter().map(|(_, key)| key).collect();
    }

    /// Starts as many passes as there is room for, and the publication of the next event.
    fn start(&mut self) {
        while self.busy.len() < MAX_PASSES
            && let Some(key) = self.queue.pop_front()
        {
            self.start_pass(key);
        }
        if let Some(event) = self.events.next_publication() {
            self.running
                .spawn(async move { Finished::Event(event.publish().await) });
        }
    }

    fn start_pass(&mut self, key: HpaKey) {
        let owner = self.field_owner.found.map(|(owner, _)| owner);
        let Some(state) = self.hpas.get_mut(&key) else {
            return;
        };
        let now = Instant::now();
        let pass = Pass {
            guard: self.guard.clone(),
            scales: self.scales.clone(),
            cap: state.cap.goal(&state.facts, owner, now),
            zero: state.zero.input(&state.facts, now),
            hpa: Arc::clone(&state.facts),
        };
        self.busy.insert(key);
        self.running
            .spawn(async move { Finished::Pass(Box::new(pass.run().await)) });
    }

    fn finish(&mut self, finished: Finished) {
        match finished {
            Finished::Pass(report) => self.finish_pass(&report),
            Finished::Event(published) => self.events.finish(published),
            Finished::FieldOwner(found) => {
                self.field_owner.is_running = false;
                self.found_field_owner(found);
            }
        }
    }

    fn finish_pass(&mut self, report: &PassReport) {
        let key = report.hpa.key();
        self.busy.remove(&key);
        // What was done is told in any case; what it means is remembered only of the same HPA.
        let mut elsewhere = HpaState::default();
        let is_same = |state: &&mut HpaState| state.facts.uid == report.hpa.uid;
        let state = self.hpas.get_mut(&key).filter(is_same);
        let state = state.unwrap_or(&mut elsewhere);
        self.claims.took_pass(report, state);
        state.took_cap(report, &key, &mut self.events);
        state.took_zero(report, &key, &mut self.events);
    }

    /// Looks up which component records the user's `maxReplicas`, if that is needed and was not looked up lately.
    fn look_for_field_owner(&mut self) {
        let lookup = &mut self.field_owner;
        let is_recent = |(_, at): (_, Instant)| at.elapsed() < FIND_OWNER_EVERY;
        let is_needed = self.hpas.values().any(|state| state.cap.target.is_some());
        if !is_needed
            || lookup.is_running
            || lookup.found.is_some_and(is_recent)
            || !lookup.attempts.may_start(Instant::now())
        {
            return;
        }
        lookup.is_running = true;
        let guard = self.guard.clone();
        self.running.spawn(async move {
            let found = match guard.time_for_write() {
                Ok(within) => find_field_owner(&guard.client, within).await,
                Err(error) => Err(error),
            };
            Finished::FieldOwner(found)
        });
    }

    fn found_field_owner(&mut self, found: Result<FieldOwner, ApiError>) {
        let now = Instant::now();
        match found {
            Ok(owner) => {
                if self.field_owner.attempts.is_failing() {
                    // What kept the caps from being written is over.
                    for state in self.hpas.values_mut() {
                        state.cap.attempts.succeeded();
                    }
                }
                self.field_owner.attempts.succeeded();
                self.field_owner.found = Some((owner, now));
                self.fill_queue();
            }
            Err(error) => {
                self.field_owner.found = None;
                // Logged of each HPA whose cap cannot be written for it.
                let _ = self
                    .field_owner
                    .attempts
                    .failed(error.clone(), LONGEST_PAUSE, now);
                for (key, state) in &mut self.hpas {
                    if state.cap.target.is_some() {
                        state.cap_failed(key, error.clone());
                    }
                }
            }
        }
    }
}

impl EpochClaims {
    fn took_pass(&mut self, report: &PassReport, state: &mut HpaState) {
        if report.term == 0 || !state.is_managed || state.claimed == report.term {
            return;
        }
        match &report.claim {
            Ok(()) => {
                state.claim.succeeded();
                state.claimed = report.term;
                self.written = self.written.saturating_add(1);
            }
            Err(error) => {
                let _ = state
                    .claim
                    .failed(error.clone(), LONGEST_PAUSE, Instant::now());
                // One line in the log, however many HPAs it concerns.
                if *error != ApiError::Changed
                    && let Some(reason) = self.failures.failed(error.clone())
                {
                    EpochUnwritten { reason }.emit();
                }
            }
        }
    }

    /// Logs how many HPAs were given the term since the last time.
    fn log(&mut self, term: u64, hpas: &BTreeMap<HpaKey, HpaState>) {
        let written = std::mem::take(&mut self.written);
        if written > 0 {
            EpochWritten {
                term,
                hpas: written,
            }
            .emit();
        }
        if !hpas.values().any(|state| state.claim.is_failing()) {
            self.failures.succeeded();
        }
    }
}

#[cfg(test)]
mod tests;
