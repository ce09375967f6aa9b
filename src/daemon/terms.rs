//! Polls Kafka while this process leads. Each term has its own clients, poller and state, which end with it.

use std::sync::Arc;

use anyhow::Context;
use tokio::sync::{oneshot, watch};

use super::state_store::Store;
use super::{clusters, options, wait_for_stop};
use crate::config::Config;
use crate::kafka::KafkaSource;
use crate::leader_election::{Leadership, Term};
use crate::model::snapshot::LagSnapshot;
use crate::model::targets::Targets;
use crate::model::units::newtypes::ClusterName;
use crate::poller::{HistoryStore, Inputs, Poller};
use crate::snapshot_channel::Publisher;

/// Inputs of the poller, the same in every term.
pub(super) struct TermInputs {
    pub(super) config: Config,
    pub(super) leadership: Leadership,
    /// Storage of the state of earlier terms.
    pub(super) store: Option<Store>,
    pub(super) publisher: Publisher,
    pub(super) inputs: Inputs,
    /// Becomes true at shutdown.
    pub(super) stop: watch::Receiver<bool>,
}

type Sources = Vec<(ClusterName, Arc<KafkaSource>)>;

impl TermInputs {
    /// Polls in every term until shutdown; returns once the poller's last state is saved.
    ///
    /// # Errors
    /// A sweep panicked, which is a bug that must not go unnoticed, or a client could not be created in a later term.
    pub(super) async fn poll(mut self) -> anyhow::Result<()> {
        let mut stop = self.stop.clone();
        loop {
            let term = tokio::select! {
                term = self.leadership.wait_for_term() => term,
                () = wait_for_stop(self.stop.clone()) => return Ok(()),
            };
            let sources = self.sources()?;
            let mut leadership = self.leadership.clone();
            tokio::select! {
                polled = self.poll_in(term, sources.clone()) => polled.context("a sweep panicked")?,
                () = leadership.wait_for_end(term.number) => {}
            }
            // Closing librdkafka's clients blocks for a while.
            tokio::task::spawn_blocking(move || drop(sources));
            if *stop.borrow_and_update() {
                return Ok(());
            }
            self.publisher
                .of_term(term.number)
                .publish(unknown_snapshot(&self.config));
        }
    }

    /// Creates the clients; followers have no connections to Kafka.
    fn sources(&self) -> anyhow::Result<Sources> {
        let sources = clusters::sources(&self.config)?.into_iter();
        Ok(sources
            .map(|(name, source)| (name, Arc::new(source)))
            .collect())
    }

    async fn poll_in(
        &mut self,
        term: Term,
        sources: Sources,
    ) -> Result<(), tokio::task::JoinError> {
        let config = &self.config;
        let poller = Poller::new(
            sources,
            options::poller_options(config),
            self.publisher.of_term(term.number),
        );
        let Some(store) = self.store.clone() else {
            return tokio::select! {
                polled = poller.run_on(&mut self.inputs) => polled,
                () = wait_for_stop(self.stop.clone()) => Ok(()),
            };
        };
        let (loaded_sender, loaded) = oneshot::channel();
        let (histories, received) = watch::channel(None);
        let poller = poller.with_history(HistoryStore {
            loaded,
            histories,
            stop: self.stop.clone(),
        });
        // The state is loaded at the start of the term, because the previous leader may have saved until then. The
        // store ends after the poller, so that it saves the poller's last history.
        let storing = store.run(loaded_sender, received, self.leadership.clone());
        let (polled, ()) = tokio::join!(poller.run_on(&mut self.inputs), storing);
        polled
    }
}

/// The snapshot of a process that does not poll: nothing is known, not even the HPAs.
pub(super) fn unknown_snapshot(config: &Config) -> LagSnapshot {
    let snapshot = LagSnapshot {
        targets: Arc::new(Targets::default().with_hpas_unlisted()),
        ..LagSnapshot::default()
    };
    snapshot.evaluated(&options::serving_policy(config))
}
