//! Inputs of a daemon that only observes: KEDA's objects, with their metrics in KEDA's HPAs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{HpaReceiver, Tasks};
use crate::blocking_work::do_blocking;
use crate::config::Config;
use crate::k8s::client::Client;
use crate::k8s::keda_objects::{self, KedaState};
use crate::model::findings::ReportedFindings;
use crate::model::hpa::facts::HpaMap;
use crate::model::keda::authentications::LoginKind;
use crate::model::keda::convert::observed::KnownCluster;
use crate::model::keda::shadow::{ObservedSet, ShadowMerge, find_unread_objects};
use crate::serve::shadow::{SHADOW_STEP, ShadowReader, shadow};
use crate::snapshot_channel::SnapshotReader;

/// Minimum time between two merges, each of which takes some milliseconds where there are thousands of objects.
const MERGE_INTERVAL: Duration = Duration::from_millis(100);

/// The configured Kafka clusters, by which triggers find theirs.
pub(crate) fn known_clusters(config: &Config) -> Vec<KnownCluster> {
    let clusters = config.clusters.iter();
    let known = clusters.map(|cluster| {
        let property = |key| cluster.properties.get(key);
        let mechanism = property("sasl.mechanism").or(property("sasl.mechanisms"));
        let login = LoginKind::from_properties(property("security.protocol"), mechanism);
        let servers = property("bootstrap.servers").unwrap_or_default();
        KnownCluster::new(cluster.name.clone(), servers, login)
    });
    known.collect()
}

/// The outputs for other parts of the daemon.
pub(super) struct ShadowParts {
    /// The HPAs with the metrics that lagwise would have there.
    pub(super) hpas: HpaReceiver,
    pub(super) reports: ShadowReader,
    /// Which of KEDA's objects cannot be read.
    pub(super) findings: watch::Receiver<ReportedFindings>,
}

/// Watches KEDA's objects, merges them with the HPAs, and compares KEDA's replicas with lagwise's.
pub(super) fn observe(
    config: &Config,
    client: Client,
    hpas: HpaReceiver,
    snapshots: &SnapshotReader,
    tasks: &mut Tasks,
) -> ShadowParts {
    let (state_in, state) = watch::channel(KedaState::default());
    let namespaces = config.kubernetes.namespaces.clone();
    let watched = keda_objects::watch(client, namespaces, known_clusters(config), state_in);
    tasks.spawn(async move {
        watched.await;
        ("watch of KEDA's objects", Ok(()))
    });
    let (merged, merged_hpas) = watch::channel(hpas.borrow().clone());
    let (objects_in, objects) = watch::channel((ObservedSet::default(), Vec::new()));
    let (findings_in, findings) = watch::channel(ReportedFindings::default());
    let outputs = ShadowOutputs {
        merged,
        objects: objects_in,
        findings: findings_in,
    };
    tasks.spawn(async move {
        outputs.merge(hpas, state).await;
        ("merge of KEDA's objects", Ok(()))
    });
    let (reports, sampling) = shadow(snapshots.clone(), objects, SHADOW_STEP);
    tasks.spawn(async move {
        sampling.await;
        ("comparison with KEDA", Ok(()))
    });
    ShadowParts {
        hpas: merged_hpas,
        reports,
        findings,
    }
}

/// Where the merged objects go.
struct ShadowOutputs {
    merged: watch::Sender<Option<HpaMap>>,
    objects: watch::Sender<(ObservedSet, Vec<String>)>,
    findings: watch::Sender<ReportedFindings>,
}

impl ShadowOutputs {
    /// Merges forever. The HPAs are published as soon as they are listed, so that neither waits for KEDA's objects.
    async fn merge(self, mut hpas: HpaReceiver, mut state: watch::Receiver<KedaState>) {
        let mut merge = ShadowMerge::default();
        hpas.mark_changed();
        loop {
            let is_open = tokio::select! {
                changed = hpas.changed() => changed.is_ok(),
                changed = state.changed() => changed.is_ok(),
            };
            if !is_open {
                return std::future::pending().await;
            }
            let (objects, problems) = state.borrow_and_update().clone().into_parts();
            let found = hpas.borrow_and_update().clone();
            if let Some(found) = found {
                let set = objects.clone();
                let merging = do_blocking(move || {
                    let all = merge.add_to(&set, &found);
                    (merge, all)
                });
                let all;
                (merge, all) = merging.await;
                self.merged.send_replace(Some(all));
            }
            self.findings
                .send_replace(Arc::new(find_unread_objects(&problems)));
            self.objects.send_replace((objects, problems));
            tokio::time::sleep(MERGE_INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SystemEnvironment;
    use crate::model::findings::FindingCode;

    #[test]
    fn clusters_are_known_by_their_servers() {
        let text = "clusters: [{name: main, properties: {bootstrap.servers: 'a:9092,b:9092'}}]";
        let config = Config::parse(text, &SystemEnvironment).unwrap();
        let known = known_clusters(&config);
        let plain = LoginKind::default();
        let expected = KnownCluster::new("main".into(), "b:9092,a:9092", plain);
        assert_eq!(known[0], expected);
    }

    #[tokio::test]
    async fn hpas_do_not_wait_for_keda_and_problems_become_findings() {
        let (hpas_in, hpas) = watch::channel(None);
        let (state_in, state) = watch::channel(KedaState::default());
        let (merged, mut merged_hpas) = watch::channel(None);
        let (objects, _objects) = watch::channel((ObservedSet::default(), Vec::new()));
        let (findings, mut found) = watch::channel(ReportedFindings::default());
        let outputs = ShadowOutputs {
            merged,
            objects,
            findings,
        };
        let merging = tokio::spawn(outputs.merge(hpas, state));
        hpas_in.send_replace(Some(HpaMap::default()));
        let is_merged = |hpas: &Option<HpaMap>| hpas.is_some();
        merged_hpas.wait_for(is_merged).await.unwrap();
        state_in.send_modify(|state| state.problems = vec!["no right".to_owned()]);
        let found = found.wait_for(|found| !found.is_empty()).await.unwrap();
        let finding = found.first().unwrap();
        assert_eq!(finding.code, FindingCode::KedaUnread);
        assert_eq!(finding.to_string(), "kubernetes.mode: no right");
        merging.abort();
    }
}
