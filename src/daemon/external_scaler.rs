//! The external scaler for KEDA: its listener, and the requested triggers as metrics of HPAs.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, watch};

use super::{HpaReceiver, Tasks};
use crate::blocking_work::do_blocking;
use crate::config::{ExternalScalerConfig, ScalerAuth};
use crate::leader_election::Leading;
use crate::model::hpa::facts::HpaMap;
use crate::model::keda::external_trigger::ExternalTrigger;
use crate::model::keda::external_triggers::ExternalTriggers;
use crate::serve::auth::RequestAuth;
use crate::serve::external_scaler::{ClientCa, TriggerAnswers};
use crate::serve::forward::Forwarder;
use crate::serve::listen::{self, BoundListener, ListenerKind};
use crate::serve::tls::ServerTls;
use crate::snapshot_channel::SnapshotReader;

/// Capacity of the channel of triggers.
const MAX_PENDING_TRIGGERS: usize = 1024;

/// How often triggers that KEDA no longer requests are removed.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(60);

/// Minimum time between two merges. Each takes some milliseconds where there are thousands of ScaledObjects, and
/// triggers that contradict each other change at every request.
const MERGE_INTERVAL: Duration = Duration::from_millis(100);

type TriggerSender = mpsc::Sender<Arc<ExternalTrigger>>;

/// Adds the metrics of triggers to the HPAs. Returns the HPAs with them, and where triggers are sent.
pub(super) fn add_triggers(hpas: HpaReceiver, tasks: &mut Tasks) -> (HpaReceiver, TriggerSender) {
    let (triggers, requested) = mpsc::channel(MAX_PENDING_TRIGGERS);
    let (merged, receiver) = watch::channel(hpas.borrow().clone());
    tasks.spawn(async move {
        merge(hpas, requested, merged).await;
        ("external scaler's triggers", Ok(()))
    });
    (receiver, triggers)
}

async fn merge(
    mut hpas: HpaReceiver,
    mut requested: mpsc::Receiver<Arc<ExternalTrigger>>,
    merged: watch::Sender<Option<HpaMap>>,
) {
    let mut triggers = ExternalTriggers::default();
    let mut expiry = tokio::time::interval(EXPIRY_INTERVAL);
    let mut hpas_end = false;
    hpas.mark_changed();
    loop {
        let mut received = Vec::new();
        let (mut hpas_changed, mut expires) = (false, false);
        tokio::select! {
            // Without a Kubernetes cluster, no HPA ever changes.
            changed = hpas.changed(), if !hpas_end => {
                hpas_end = changed.is_err();
                hpas_changed = !hpas_end;
            }
            count = requested.recv_many(&mut received, MAX_PENDING_TRIGGERS) => {
                if count == 0 {
                    return std::future::pending().await;
                }
            }
            _ = expiry.tick() => expires = true,
        }
        let found = {
            let found = hpas.borrow_and_update();
            hpas_changed |= found.has_changed();
            // Cloned, so that the watch is not blocked.
            found.clone()
        };
        // With thousands of ScaledObjects this takes longer than a task may keep a thread of the runtime.
        let merging = do_blocking(move || {
            let now = Instant::now();
            let mut is_changed = hpas_changed;
            for trigger in received {
                is_changed |= triggers.insert(trigger, now);
            }
            if expires {
                is_changed |= triggers.expire(now);
            }
            let found = found.filter(|_| is_changed);
            let all = found.map(|hpas| triggers.add_to(&hpas));
            (triggers, is_changed, all)
        });
        let (is_changed, all);
        (triggers, is_changed, all) = merging.await;
        if all.is_some() {
            merged.send_replace(all);
        }
        if is_changed {
            tokio::time::sleep(MERGE_INTERVAL).await;
        }
    }
}

/// The listener and its inputs.
pub(super) struct BoundScaler {
    pub(super) listener: BoundListener,
    pub(super) kind: ListenerKind,
    pub(super) tls: ServerTls,
    pub(super) auth: RequestAuth,
}

/// Binds the listener, if one is configured.
///
/// # Errors
/// An address in use, or a file that cannot be read.
pub(super) fn bind(
    config: &ExternalScalerConfig,
    api_tls: &ServerTls,
    tasks: &mut Tasks,
) -> anyhow::Result<Option<BoundScaler>> {
    let Some(address) = config.listen else {
        return Ok(None);
    };
    let listener = listen::bind(address, "server.external_scaler.listen")?;
    let tls = match &config.tls {
        None => api_tls.clone(),
        Some(files) => {
            let tls = ServerTls::from_files(&files.cert_file, &files.key_file)?;
            let renewal = tls.clone().keep_fresh(SystemTime::now);
            tasks.spawn(async move {
                renewal.await;
                ("renewal of the external scaler's certificate", Ok(()))
            });
            tls
        }
    };
    let (kind, tls, auth) = match (config.auth, &config.client_ca_file) {
        (ScalerAuth::Certificate, Some(file)) => {
            let (authority, auth) = ClientCa::read(file.clone())?;
            let tls = authority.require(&tls)?;
            tasks.spawn(async move {
                authority.keep_fresh().await;
                (
                    "renewal of the external scaler's client authorities",
                    Ok(()),
                )
            });
            (ListenerKind::Scaler, tls, auth)
        }
        (ScalerAuth::Certificate, None) => {
            anyhow::bail!("server.external_scaler.auth is certificate, so client_ca_file is needed")
        }
        (ScalerAuth::None, _) => (ListenerKind::OpenScaler, tls, RequestAuth::None),
    };
    Ok(Some(BoundScaler {
        listener,
        kind,
        tls,
        auth,
    }))
}

/// The component that answers about triggers.
pub(super) fn answers(
    reader: &SnapshotReader,
    leading: &Leading,
    forwarder: Option<&Arc<Forwarder>>,
    triggers: TriggerSender,
) -> Arc<TriggerAnswers> {
    let (reader, leading) = (reader.clone(), leading.clone());
    let forwarder = forwarder.cloned();
    Arc::new(TriggerAnswers::new(reader, leading, forwarder, triggers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hpa::facts::HpaFacts;
    use crate::model::units::hpa_key::HpaKey;

    fn trigger() -> Arc<ExternalTrigger> {
        let metadata = [("group", "billing"), ("lagThreshold", "5")];
        Arc::new(ExternalTrigger::parse("shop", "billing", metadata).unwrap())
    }

    fn has_trigger(hpas: &HpaReceiver) -> Option<u32> {
        let hpas = hpas.borrow();
        let facts = hpas
            .as_ref()?
            .get(&HpaKey::new("shop", "keda-hpa-billing"))?;
        trigger().is_in(facts).then_some(facts.max_replicas)
    }

    fn hpas_of_keda(max_replicas: u32) -> Option<HpaMap> {
        let facts = HpaFacts {
            namespace: "shop".into(),
            name: "keda-hpa-billing".into(),
            controller: Some("ScaledObject/billing".into()),
            max_replicas,
            ..HpaFacts::default()
        };
        Some(HpaMap::from_iter([Arc::new(facts)]))
    }

    /// While the only thread for blocking work is busy, nothing is merged: neither triggers nor HPAs.
    #[test]
    fn triggers_and_hpas_are_merged_off_the_runtime() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .max_blocking_threads(1)
            .build();
        runtime.unwrap().block_on(async {
            let (sender, hpas) = watch::channel(Some(HpaMap::default()));
            let mut tasks = Tasks::new();
            let (mut merged, triggers) = add_triggers(hpas, &mut tasks);
            // The HPAs of the beginning.
            merged.changed().await.unwrap();
            let changes: [&dyn Fn(); 2] = [&|| triggers.try_send(trigger()).unwrap(), &|| {
                drop(sender.send_replace(hpas_of_keda(7)))
            }];
            for change in changes {
                let (free, freed) = std::sync::mpsc::channel::<()>();
                let busy = tokio::task::spawn_blocking(move || freed.recv());
                change();
                let early = tokio::time::timeout(3 * MERGE_INTERVAL, merged.changed());
                assert!(early.await.is_err(), "the runtime has merged");
                drop(free);
                assert!(busy.await.unwrap().is_err());
                merged.changed().await.unwrap();
            }
            assert_eq!(has_trigger(&merged), Some(7));
        });
    }

    #[tokio::test]
    async fn triggers_are_added_where_there_is_no_cluster() {
        // Its sender was dropped, as in a daemon without Kubernetes.
        let (_, hpas) = watch::channel(Some(HpaMap::default()));
        let mut tasks = Tasks::new();
        let (mut merged, triggers) = add_triggers(hpas, &mut tasks);
        triggers.send(trigger()).await.unwrap();
        while has_trigger(&merged).is_none() {
            merged.changed().await.unwrap();
        }
    }

    #[tokio::test]
    async fn triggers_wait_for_the_hpas_and_follow_them() {
        let (sender, hpas) = watch::channel(None);
        let mut tasks = Tasks::new();
        let (mut merged, triggers) = add_triggers(hpas, &mut tasks);
        triggers.send(trigger()).await.unwrap();
        assert!(merged.borrow().is_none());
        for max_replicas in [7, 9] {
            sender.send_replace(hpas_of_keda(max_replicas));
            while has_trigger(&merged) != Some(max_replicas) {
                merged.changed().await.unwrap();
            }
        }
    }
}
