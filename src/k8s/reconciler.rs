//! Reconciles HPAs: one task decides from the latest snapshot which of them have something to do, and runs one [`Pass`]
//! over each, some of them concurrently.
//!
//! Level-triggered: every sweep decides from the current state of the watch, and every pass from what it reads. So a
//! later pass repeats a write that was lost, refused or undone. The work for a snapshot between sweeps is proportional
//! to what it changes.

mod event_publisher;
mod inputs;
mod ledger_view;
mod options;
mod pass;
mod pass_queue;
mod retry;
mod state;
mod term_log;
mod zero_state;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::api_error::ApiError;
use super::field_owner::find_field_owner;
use super::scale::Scales;
use super::write_guard::WriteGuard;
use super::zero_ledger::LedgerHandle;
use crate::model::decisions::cap::FieldOwner;
use crate::model::decisions::enforceable::complete_read;
use crate::model::decisions::fencing::is_managed_for_zero;
use crate::model::decisions::scale_to_zero::candidate;
use crate::model::hpa::facts::{HpaFacts, is_paused};
use crate::model::settings::cap_mode::CapMode;
use crate::model::snapshot::LagSnapshot;
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::Moment;
use event_publisher::{EventPublisher, PublishedEvent};
use inputs::ReconcilerInputs;
use ledger_view::{LedgerFollower, LedgerNews};
use pass::{Pass, PassReport};
use pass_queue::PassQueue;
use retry::RetryState;
use state::HpaState;
use term_log::TermLog;

/// Maximum number of concurrent passes, so that many HPAs do not cause a flood of requests.
const MAX_PASSES: usize = 8;

/// How often the admission policy is looked up.
const OWNER_LOOKUP_INTERVAL: Duration = Duration::from_secs(60);

/// Maximum backoff between two attempts that fail, at an HPA or a lookup.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

pub use options::ReconcilerOptions;

/// Reconciles HPAs with each snapshot, until the publisher of snapshots is gone.
pub async fn run(guard: WriteGuard, options: ReconcilerOptions) {
    let mut reader = guard.reader.clone();
    let mut reconciler = Reconciler::new(guard, options);
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

/// Result of a task of the reconciler.
enum TaskResult {
    Pass(Box<PassReport>),
    FieldOwner(Result<FieldOwner, ApiError>),
    Event(PublishedEvent),
    LedgerRead(Result<(), ApiError>),
}

struct Reconciler {
    guard: WriteGuard,
    scales: Scales,
    read_only: bool,
    /// The HPAs for which there is or may be something to write.
    hpas: BTreeMap<HpaKey, HpaState>,
    /// The inputs from which `hpas` were derived; `None` to check every HPA again.
    inputs: Option<ReconcilerInputs>,
    /// The HPAs that need a pass and have none under way.
    queue: PassQueue,
    /// The HPAs of the passes under way.
    busy: BTreeSet<HpaKey>,
    /// The HPAs to check with the next snapshot even if it does not change them, because their pass has ended.
    recheck: BTreeSet<HpaKey>,
    running: JoinSet<TaskResult>,
    field_owner: FieldOwnerLookup,
    term_log: TermLog,
    events: EventPublisher,
    ledger: LedgerFollower,
}

/// Which component records the user's `maxReplicas`, as far as it was looked up.
#[derive(Default)]
struct FieldOwnerLookup {
    found: Option<(FieldOwner, Instant)>,
    is_running: bool,
    retry: RetryState,
}

impl Reconciler {
    fn new(guard: WriteGuard, options: ReconcilerOptions) -> Self {
        let ledger = options.ledger.map(|map| {
            LedgerHandle::start(map, guard.hpas.clone(), guard.policy.namespaces.clone())
        });
        Self {
            ledger: LedgerFollower::new(ledger, options.findings),
            scales: Scales::new(guard.client.clone()),
            events: EventPublisher::new(guard.clone()),
            guard,
            read_only: options.read_only,
            hpas: BTreeMap::new(),
            inputs: None,
            queue: PassQueue::default(),
            busy: BTreeSet::new(),
            recheck: BTreeSet::new(),
            running: JoinSet::new(),
            field_owner: FieldOwnerLookup::default(),
            term_log: TermLog::default(),
        }
    }

    /// Reads the latest snapshot and decides which HPAs need a pass.
    fn observe(&mut self) {
        let snapshot = self.guard.take_snapshot();
        self.events.observe(snapshot.as_ref());
        let Some(snapshot) = snapshot else {
            // Another process leads and may write, so the state here is out of date.
            self.hpas.clear();
            self.ledger.clear();
            self.start_over();
            return;
        };
        let hpas = self.guard.hpas.borrow().clone();
        // Decide nothing before the HPAs are listed, nor when the term or the snapshot is too old to write.
        let Some(hpas) = hpas.filter(|_| !self.read_only && self.guard.time_for_write().is_ok())
        else {
            self.start_over();
            return;
        };
        let sweeps = snapshot.clusters.values().filter_map(|c| c.sweep);
        let next = ReconcilerInputs {
            hpas,
            swept: sweeps.map(|sweep| sweep.started.monotonic).collect(),
            snapshot,
        };
        self.update(next);
        self.start_field_owner_lookup();
        if let Some(read) = self.ledger.next_read(&self.guard) {
            self.running
                .spawn(async move { TaskResult::LedgerRead(read.await) });
        }
    }

    /// Makes the next snapshot check every HPA.
    fn start_over(&mut self) {
        self.inputs = None;
        self.queue.clear();
    }

    /// Checks the HPAs for which the decision may differ from the last one: all in `hpas` after a sweep, since
    /// values age and backoffs end, and otherwise those that have changed.
    fn update(&mut self, next: ReconcilerInputs) {
        let now = Moment::now();
        let (changed_in_ledger, is_ledger_replaced) = match self.ledger.update() {
            LedgerNews::All => (BTreeSet::new(), true),
            LedgerNews::Some(hpas) => (hpas, false),
        };
        let before = self.inputs.take().filter(|_| !is_ledger_replaced);
        let before = before.filter(|before| before.snapshot.term == next.snapshot.term);
        let is_swept = before
            .as_ref()
            .is_none_or(|before| before.swept != next.swept);
        let mut changed = std::mem::take(&mut self.recheck);
        changed.extend(changed_in_ledger);
        let note = |hpa: &HpaKey| {
            changed.insert(hpa.clone());
        };
        match &before {
            // New readings alone make no HPA relevant, and those in `hpas` are added below. So it is enough to compare
            // the targets.
            Some(before) if is_swept => before.diff_targets(&next, note),
            Some(before) => before.diff(&next, note),
            None => next.hpas.keys().for_each(note),
        }
        if is_swept {
            changed.extend(self.hpas.keys().cloned());
        }
        for key in &changed {
            self.update_state(key, next.hpas.get(key), &next.snapshot, &now, is_swept);
        }
        self.term_log.log_written(next.snapshot.term, &self.hpas);
        self.ledger.publish();
        for key in changed {
            self.update_queue(key);
        }
        self.inputs = Some(next);
    }

    /// Updates the state of one HPA; `facts` are `None` if it was deleted. Decides about its cap only after a sweep.
    fn update_state(
        &mut self,
        key: &HpaKey,
        facts: Option<&Arc<HpaFacts>>,
        snapshot: &LagSnapshot,
        now: &Moment,
        is_swept: bool,
    ) {
        let Some(hpa) = facts.filter(|hpa| !is_paused(hpa)) else {
            self.hpas.remove(key);
            self.ledger.remove(key);
            return;
        };
        let (policy, evaluations) = (&self.guard.policy, snapshot.at(now));
        let candidate = candidate(evaluations, key);
        let is_recorded = self.ledger.has_record(&hpa.uid);
        // Most HPAs have no setting. Detect that without parsing anything.
        let has_settings =
            policy.cap == CapMode::Enforce || !hpa.annotations.is_empty() || is_recorded;
        if candidate.is_none() && !has_settings && !self.hpas.contains_key(key) {
            self.ledger.remove(key);
            return;
        }
        let state = self.hpas.entry(key.clone()).or_default();
        let idle = snapshot.idle.get(key).map(|since| now.since(since));
        let asks_for_zero = candidate.is_some() && is_managed_for_zero(hpa, policy, false);
        // Scaling to zero must be recorded first, so it needs a ledger.
        let candidate = candidate.filter(|_| self.ledger.handle.is_some());
        let is_relevant = state.update(hpa, policy, candidate, idle, is_recorded);
        let refusal = state.zero.refusal.as_ref();
        // An HPA without any setting is not checked again, so its findings end now.
        let forbidden = state.forbidden_writes().filter(|_| is_relevant);
        self.ledger.note(hpa, asks_for_zero, refusal, forbidden);
        if !is_relevant {
            self.hpas.remove(key);
        } else if is_swept {
            let read = complete_read(evaluations, key);
            state.cap.decide(hpa, policy.cap_mode(hpa), read);
        }
    }

    /// Queues an HPA if it has something to do and no pass under way.
    fn update_queue(&mut self, key: HpaKey) {
        self.queue.remove(&key);
        let Some(state) = self.hpas.get(&key).filter(|_| !self.busy.contains(&key)) else {
            return;
        };
        let owner = self.field_owner.found.map(|(owner, _)| owner);
        match state.urgency(self.guard.from.term, owner, Instant::now()) {
            Some(urgency) => self.queue.insert(urgency, key),
            // It needs a pass once its backoff is over.
            None if state.is_failing() => {
                self.recheck.insert(key);
            }
            None => {}
        }
    }

    /// Starts as many passes as there is room for, and the publication of the next event.
    fn start(&mut self) {
        while self.busy.len() < MAX_PASSES
            && let Some(key) = self.queue.take_next()
        {
            self.start_pass(key);
        }
        if let Some(event) = self.events.next_publication() {
            self.running
                .spawn(async move { TaskResult::Event(event.publish().await) });
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
            ledger: self.ledger.handle.clone(),
            is_recorded: self.ledger.has_record(&state.facts.uid),
            hpa: Arc::clone(&state.facts),
        };
        self.busy.insert(key);
        self.running
            .spawn(async move { TaskResult::Pass(Box::new(pass.run().await)) });
    }

    fn finish(&mut self, result: TaskResult) {
        match result {
            TaskResult::Pass(report) => self.finish_pass(&report),
            TaskResult::Event(published) => self.events.finish(published),
            TaskResult::FieldOwner(found) => self.finish_field_owner_lookup(found),
            TaskResult::LedgerRead(read) => self.ledger.finish_read(read),
        }
    }

    fn finish_pass(&mut self, report: &PassReport) {
        let key = report.hpa.key();
        self.busy.remove(&key);
        // The outcome is always reported. State is only updated if the HPA is still the same object.
        let mut discarded = HpaState::default();
        let is_same = |state: &&mut HpaState| state.facts.uid == report.hpa.uid;
        let state = self.hpas.get_mut(&key).filter(is_same);
        let state = state.unwrap_or(&mut discarded);
        self.term_log.record_pass(report, state);
        state.record_cap(report, &key, &mut self.events);
        state.record_zero(report, &key, &mut self.events);
        self.recheck.insert(key);
    }

    /// Looks up which component records the user's `maxReplicas`, if that is needed and was not looked up lately.
    fn start_field_owner_lookup(&mut self) {
        let lookup = &mut self.field_owner;
        let is_recent = |(_, at): (_, Instant)| at.elapsed() < OWNER_LOOKUP_INTERVAL;
        if lookup.is_running
            || lookup.found.is_some_and(is_recent)
            || !lookup.retry.may_start(Instant::now())
        {
            return;
        }
        let is_needed = self.hpas.values().any(|state| state.cap.target.is_some());
        if !is_needed {
            return;
        }
        lookup.is_running = true;
        let guard = self.guard.clone();
        self.running.spawn(async move {
            let found = match guard.time_for_write() {
                Ok(timeout) => find_field_owner(&guard.client, timeout).await,
                Err(error) => Err(error),
            };
            TaskResult::FieldOwner(found)
        });
    }

    fn finish_field_owner_lookup(&mut self, found: Result<FieldOwner, ApiError>) {
        let now = Instant::now();
        self.field_owner.is_running = false;
        match found {
            Ok(owner) => {
                if self.field_owner.retry.is_failing() {
                    for state in self.hpas.values_mut() {
                        state.cap.record_lookup_success();
                    }
                }
                self.field_owner.retry.record_success();
                self.field_owner.found = Some((owner, now));
                // Caps wait for the result of the lookup.
                for key in Vec::from_iter(self.hpas.keys().cloned()) {
                    self.update_queue(key);
                }
            }
            Err(error) => {
                self.field_owner.found = None;
                // The failure is logged below, for each HPA whose cap waits for the lookup.
                let _ = self
                    .field_owner
                    .retry
                    .record_failure(error.clone(), MAX_BACKOFF, now);
                for (key, state) in &mut self.hpas {
                    state.cap.record_lookup_failure(key, &error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
