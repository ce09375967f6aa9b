//! The poller: sweeps every cluster, evaluates the readings, publishes snapshots. It owns targets, lag history and policy
//! state, and shares none of it: it publishes immutable snapshots, and sends the state to persist to `persistence`.

mod findings_tracker;
mod partition_ledger;
mod polled_cluster;
mod recent_requests;
mod saved_state;
mod state;
mod sweeps;
mod transitions;

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinError;
use tokio::time::MissedTickBehavior;

use self::saved_state::{HistoryEvent, HistoryHandle};
use self::state::MAX_AD_HOC;
use self::sweeps::Sweeps;
use crate::model::evaluation::ServingPolicy;
use crate::model::findings::ReportedFindings;
use crate::model::hpa::facts::HpaMap;
use crate::model::kafka::observation::Observation;
use crate::model::kafka::sweep_plan::SweepPlan;
use crate::model::targets::metric_query::AdHocQuery;
use crate::model::targets::{TargetOptions, WatchKey};
use crate::model::units::newtypes::ClusterName;
use crate::snapshot_channel::Publisher;

pub use self::saved_state::HistoryStore;
pub use self::state::PollerState;
pub use self::sweeps::PlannedSweep;

/// A client of one Kafka cluster.
pub trait OffsetSource: Send + Sync + 'static {
    /// Executes the plan; reads committed offsets before log ends.
    ///
    /// The source enforces `deadline` itself and returns the results so far, with a fault for each missing reading. It
    /// is never cancelled from outside, because an abandoned request would still occupy its connection.
    fn observe(
        &self,
        plan: SweepPlan,
        deadline: Instant,
    ) -> impl Future<Output = Observation> + Send;
}

/// The shortest time between two snapshots that are published because HPAs changed. The first change is published
/// at once; those that follow within this time are published together.
const HPA_CHANGE_INTERVAL: Duration = Duration::from_millis(50);

/// The inputs of the poller.
#[derive(Debug)]
pub struct Inputs {
    /// The HPAs of the Kubernetes cluster, always all of them; `None` until they have been listed.
    pub hpas: watch::Receiver<Option<HpaMap>>,
    /// Groups of requests that no HPA uses. Bounded, so that a flood of requests cannot grow memory.
    pub watch_keys: mpsc::Receiver<WatchKey>,
    /// Queries that were answered and that are not of an HPA. Bounded as well.
    pub queries: mpsc::Receiver<AdHocQuery>,
    /// Findings of other components, which are published with those of the next whole sweep.
    pub reported_findings: watch::Receiver<ReportedFindings>,
}

/// How often to poll, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Cadence {
    /// From the start of one sweep to the start of the next.
    pub interval: Duration,
    /// The longest time that a sweep may take.
    pub deadline: Duration,
}

/// Options of the poller that the operator configures.
#[derive(Clone, Debug)]
pub struct PollerOptions {
    pub targets: TargetOptions,
    /// The policy that targets are evaluated by.
    pub policy: ServingPolicy,
    pub cadence: Cadence,
}

/// The poller. Its task owns everything that changes between snapshots.
#[derive(Debug)]
pub struct Poller<S> {
    interval: Duration,
    state: PollerState,
    sweeps: Sweeps<S>,
    saved_state: Option<HistoryHandle>,
}

impl<S: OffsetSource> Poller<S> {
    /// A poller of these clusters, in the order of the configuration.
    pub fn new(
        sources: Vec<(ClusterName, S)>,
        options: PollerOptions,
        publisher: Publisher,
    ) -> Self {
        let PollerOptions {
            targets,
            policy,
            cadence,
        } = options;
        let names: Vec<_> = sources.iter().map(|(name, _)| name.clone()).collect();
        Self {
            interval: cadence.interval,
            state: PollerState::new(&names, targets, policy, publisher),
            sweeps: Sweeps::new(sources, cadence.deadline),
            saved_state: None,
        }
    }

    /// Loads and saves the history that must survive a restart.
    #[must_use]
    pub fn with_history(self, store: HistoryStore) -> Self {
        Self {
            saved_state: Some(HistoryHandle::new(store)),
            ..self
        }
    }

    /// Polls until [`HistoryStore::stop`] is set; without a [`HistoryStore`], forever.
    ///
    /// # Errors
    /// A sweep or a change of the state panicked.
    pub async fn run(self, mut inputs: Inputs) -> Result<(), JoinError> {
        self.run_on(&mut inputs).await
    }

    /// Like [`run`](Self::run), but leaves the inputs to the next poller.
    ///
    /// # Errors
    /// A sweep or a change of the state panicked.
    pub async fn run_on(self, inputs: &mut Inputs) -> Result<(), JoinError> {
        let Self {
            interval,
            mut state,
            mut sweeps,
            mut saved_state,
        } = self;
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut hpas_due = tokio::time::Instant::now();
        let (mut hpas_closed, mut watch_keys_closed, mut queries_closed) = (false, false, false);
        let (mut watch_keys, mut queries) = (Vec::new(), Vec::new());
        let hpas = inputs.hpas.borrow_and_update().clone();
        // The first tick sweeps everything, so the partial sweeps that this plans are not started.
        (state, _) = change(state, move |state| {
            state.update_hpas(hpas.as_ref());
            state.replan()
        })
        .await?;
        // Readers need the configured targets even before the HPAs are listed.
        publish(&state);
        match HistoryHandle::first_event(&mut saved_state).await {
            Some(HistoryEvent::Stop) => return Ok(()),
            Some(HistoryEvent::Loaded(saved)) => {
                (state, ()) = change(state, move |state| state.load(&saved)).await?;
            }
            None => {}
        }
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    // The deadline of the sweeps is counted from here, so that they have ended by the next tick.
                    let due = Instant::now();
                    // A sweep that has ended must not keep its cluster from being swept now.
                    let finished = sweeps.take_finished()?;
                    let has_finished = !finished.is_empty();
                    let sweeping = sweeps.sweeping();
                    state.set_busy(sweeps.busy());
                    let reported_findings = inputs.reported_findings.borrow().clone();
                    let planned;
                    (state, planned) = change(state, move |state| {
                        state.apply_finished(finished, reported_findings);
                        state.expire();
                        state.plan_sweeps(&sweeping)
                    }).await?;
                    state = save_if_due(state, &mut saved_state).await?;
                    if has_finished {
                        publish(&state);
                    }
                    sweeps.start(planned, due);
                }
                event = HistoryHandle::next_event(&mut saved_state) => match event {
                    HistoryEvent::Loaded(saved) => {
                        (state, ()) = change(state, move |state| state.load(&saved)).await?;
                        publish(&state);
                    }
                    HistoryEvent::Stop => {
                        save(state, &mut saved_state).await?;
                        return Ok(());
                    }
                },
                // The channel holds only the latest HPAs, so a burst of changes is applied at once.
                changed = changed_after(&mut inputs.hpas, hpas_due), if !hpas_closed => {
                    hpas_closed = !changed;
                    hpas_due = tokio::time::Instant::now() + HPA_CHANGE_INTERVAL;
                    // Cloned, so that the watch is not blocked.
                    let hpas = inputs.hpas.borrow_and_update().clone();
                    state.set_busy(sweeps.busy());
                    let new;
                    (state, new) = change(state, move |state| {
                        state.update_hpas(hpas.as_ref());
                        state.replan()
                    }).await?;
                    publish(&state);
                    sweeps.start(new, Instant::now());
                }
                // Drain the channel so that a burst of requests triggers one sweep.
                received = inputs.watch_keys.recv_many(&mut watch_keys, MAX_AD_HOC), if !watch_keys_closed => {
                    watch_keys_closed = received == 0;
                    // Nearly all requests are for groups that are read anyway.
                    if state.record_requests(watch_keys.drain(..)) {
                        state.set_busy(sweeps.busy());
                        let new;
                        (state, new) = change(state, |state| {
                            state.update_ad_hoc();
                            state.replan()
                        }).await?;
                        sweeps.start(new, Instant::now());
                    }
                }
                received = inputs.queries.recv_many(&mut queries, MAX_AD_HOC), if !queries_closed => {
                    queries_closed = received == 0;
                    for query in queries.drain(..) {
                        state.keep_query(query);
                    }
                }
                Some(done) = sweeps.next() => {
                    let finished = vec![done?];
                    let reported_findings = inputs.reported_findings.borrow().clone();
                    state.set_busy(sweeps.busy());
                    let new;
                    (state, new) = change(state, move |state| {
                        state.apply_finished(finished, reported_findings);
                        state.replan()
                    }).await?;
                    state = save_if_due(state, &mut saved_state).await?;
                    publish(&state);
                    sweeps.start(new, Instant::now());
                }
            }
        }
    }
}

/// Changes the state on a thread for blocking tasks. A change may take long, because it depends on the HPAs that
/// tenants write, and must not block the threads that serve requests. A change must not publish, because it continues
/// after its poller is dropped.
async fn change<T: Send + 'static>(
    mut state: PollerState,
    change: impl FnOnce(&mut PollerState) -> T + Send + 'static,
) -> Result<(PollerState, T), JoinError> {
    tokio::task::spawn_blocking(move || {
        let result = change(&mut state);
        (state, result)
    })
    .await
}

/// Publishes the latest evaluations.
fn publish(state: &PollerState) {
    let replaced = state.publish();
    // Freeing a large snapshot takes long, so this happens on a thread for blocking tasks, too.
    tokio::task::spawn_blocking(move || drop(replaced));
}

/// Saves decisions of policies before they are served, and everything at intervals.
async fn save_if_due(
    state: PollerState,
    saved_state: &mut Option<HistoryHandle>,
) -> Result<PollerState, JoinError> {
    let has_decisions = state.has_unsaved_decisions();
    let saved = saved_state.as_mut();
    match saved.is_some_and(|saved| saved.is_due(has_decisions)) {
        true => save(state, saved_state).await,
        false => Ok(state),
    }
}

/// Saves the history, if the history of earlier processes is loaded.
async fn save(
    state: PollerState,
    saved_state: &mut Option<HistoryHandle>,
) -> Result<PollerState, JoinError> {
    let Some(saved_state) = saved_state.as_mut().filter(|saved| saved.is_loaded()) else {
        return Ok(state);
    };
    let (state, exported) = change(state, PollerState::export).await?;
    saved_state.save(exported);
    Ok(state)
}

/// Waits for a change, but not before `due`. Returns `false` once no more will come.
async fn changed_after<T>(receiver: &mut watch::Receiver<T>, due: tokio::time::Instant) -> bool {
    tokio::time::sleep_until(due).await;
    receiver.changed().await.is_ok()
}

#[cfg(test)]
mod tests;
