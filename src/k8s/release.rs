//! Undoes the writes of the cap and of scale to zero, without the daemon: for `lagwise release` and for the
//! uninstallation of the chart.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::{Api, Client};
use serde::Serialize;

use super::api_error::{ApiError, in_time};
use super::field_owner::find_field_owner;
use super::hpa::{PAGE, facts_of};
use super::hpa_patch::patch_hpa;
use super::leader_pod::{LeaderPodError, registered};
use super::scale::{Scale, Scales};
use super::zero_ledger::{LedgerConfigMap, LedgerKey, StoredLedger};
use crate::model::decisions::cap::{AnnotationChange, CapPatch, HpaFields, release};
use crate::model::decisions::fencing::TERM;
use crate::model::decisions::hpa_write::HpaPatch;
use crate::model::decisions::zero_ledger::{LedgerChanges, LedgerMatch};
use crate::model::hpa::facts::{
    HpaFacts, annotated_cap_mode, has_zeroed_annotation, start_replicas,
};
use crate::model::settings::cap_mode::CapMode;
use crate::model::units::hpa_key::HpaKey;

/// Timeout for one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of attempts to release one HPA. A release takes two writes, each of which may conflict with others.
const MAX_ATTEMPTS: u32 = 10;

/// Writes that were, or would be, undone on one HPA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Released {
    /// The HPA's namespace.
    pub namespace: String,
    /// The HPA's name.
    pub name: String,
    /// `spec.maxReplicas` before.
    pub max_replicas: u32,
    /// `spec.maxReplicas` afterwards: the user's number.
    pub user_max_replicas: u32,
    /// The replicas with which its workload is woken; `None` unless the ledger says that lagwise scaled it to zero.
    pub woken_replicas: Option<u32>,
    /// Whether it has the annotation `zeroed-since`, but is not recorded, so that its workload is left as it is.
    pub not_recorded: bool,
    /// Whether `cap: enforce` is still set, so that a running daemon caps it again.
    pub asks_again: bool,
}

/// Where lagwise has recorded what it scaled to zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerChoice {
    /// In the namespace of the registered external metrics API, in a ConfigMap named as its Service with `-zero`, as
    /// the chart has it. Without such an API nothing is woken.
    OfRegisteredApi,
    Named(LedgerKey),
    /// Nowhere, so that nothing is woken.
    None,
}

/// Undoes what lagwise has written.
#[allow(missing_debug_implementations, reason = "the client has none")]
pub struct Release {
    client: Client,
    scales: Scales,
    ledger: ReleaseLedger,
    dry_run: bool,
}

/// The records of what lagwise scaled to zero.
struct ReleaseLedger {
    /// `None` if it is not known where the records are.
    map: Option<LedgerConfigMap>,
    /// The ledger as it was last read or written. It may be large, so it is only read again if it has changed.
    stored: Option<StoredLedger>,
}

impl ReleaseLedger {
    /// The ledger as it is now.
    async fn read(&mut self) -> Result<StoredLedger, ApiError> {
        let Some(map) = &self.map else {
            return Ok(StoredLedger::default());
        };
        if let Some(stored) = &self.stored
            && map.is_current(stored, REQUEST_TIMEOUT).await?
        {
            return Ok(stored.clone());
        }
        let stored = map.read(REQUEST_TIMEOUT).await?;
        self.stored = Some(stored.clone());
        Ok(stored)
    }

    /// Removes the record for this HPA, if the ledger has one.
    async fn remove(&mut self, read: &StoredLedger, hpa_uid: &Arc<str>) -> Result<(), ApiError> {
        if let Some(map) = &self.map
            && read.ledger.record(hpa_uid).is_some()
        {
            let changes = LedgerChanges::from([(Arc::clone(hpa_uid), None)]);
            self.stored = Some(map.write(read, &changes, REQUEST_TIMEOUT).await?);
        }
        Ok(())
    }
}

impl Release {
    /// Uses this client and this ledger of scale to zero. A dry run writes nothing.
    ///
    /// # Errors
    /// The API server does not respond.
    pub async fn new(
        client: Client,
        ledger: LedgerChoice,
        dry_run: bool,
    ) -> Result<Self, ApiError> {
        let key = match ledger {
            LedgerChoice::Named(key) => Some(key),
            LedgerChoice::None => None,
            LedgerChoice::OfRegisteredApi => match registered(&client, REQUEST_TIMEOUT).await {
                Ok(service) => Some(LedgerKey {
                    namespace: service.namespace,
                    name: format!("{}-zero", service.name),
                }),
                // The cap can be released all the same.
                Err(LeaderPodError::Registration(error @ ApiError::NoAnswer(_))) => {
                    return Err(error);
                }
                Err(_) => None,
            },
        };
        Ok(Self {
            scales: Scales::new(client.clone()),
            ledger: ReleaseLedger {
                map: key.map(|key| LedgerConfigMap::of_key(client.clone(), key)),
                stored: None,
            },
            client,
            dry_run,
        })
    }

    /// Lists the HPAs of `namespaces` (empty = all) that carry anything of lagwise's.
    ///
    /// # Errors
    /// The API server's.
    pub async fn hpas_to_release(
        &mut self,
        namespaces: &[String],
    ) -> Result<Vec<HpaKey>, ApiError> {
        if namespaces.is_empty() {
            return self.hpas_to_release_in(Api::all(self.client.clone())).await;
        }
        let mut annotated = Vec::new();
        for namespace in namespaces.iter().collect::<BTreeSet<_>>() {
            let api = Api::namespaced(self.client.clone(), namespace);
            annotated.extend(self.hpas_to_release_in(api).await?);
        }
        Ok(annotated)
    }

    async fn hpas_to_release_in(
        &mut self,
        api: Api<HorizontalPodAutoscaler>,
    ) -> Result<Vec<HpaKey>, ApiError> {
        let mut annotated = Vec::new();
        let recorded = self.ledger.read().await?.ledger;
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let listed = in_time(REQUEST_TIMEOUT, api.list(&page)).await?;
            let facts = listed.items.iter().map(|object| (facts_of(object), object));
            let ours = facts.filter(|(hpa, object)| {
                let is_recorded = recorded.record(&hpa.uid).is_some();
                HpaFields::of(hpa).is_annotated()
                    || has_zeroed_annotation(hpa)
                    || has_term(object)
                    || is_recorded
            });
            annotated.extend(ours.map(|(hpa, _)| hpa.key()));
            match listed.metadata.continue_ {
                Some(rest) if !rest.is_empty() => page = page.continue_token(&rest),
                _ => return Ok(annotated),
            }
        }
    }

    /// Deletes the ledger if it has no record left. A dry run deletes nothing.
    ///
    /// # Errors
    /// The API server's.
    pub async fn delete_empty_ledger(&self) -> Result<(), ApiError> {
        match &self.ledger.map {
            Some(map) if !self.dry_run => map.delete_if_empty(REQUEST_TIMEOUT).await,
            _ => Ok(()),
        }
    }

    /// Releases one HPA. `None` if it carries nothing of lagwise's.
    ///
    /// # Errors
    /// Why it was not released, or not completely.
    pub async fn release(&mut self, key: &HpaKey) -> Result<Option<Released>, ApiError> {
        let api: Api<HorizontalPodAutoscaler> =
            Api::namespaced(self.client.clone(), &key.namespace);
        let mut first: Option<Released> = None;
        for _ in 0..MAX_ATTEMPTS {
            let object = in_time(REQUEST_TIMEOUT, api.get(&key.name)).await?;
            let hpa = facts_of(&object);
            let live = HpaFields::of(&hpa);
            let ledger = self.ledger.read().await?;
            let is_recorded = ledger.ledger.record(&hpa.uid).is_some();
            if !live.is_annotated()
                && !has_zeroed_annotation(&hpa)
                && !has_term(&object)
                && !is_recorded
            {
                return Ok(first);
            }
            let at_zero = self.read_workload_at_zero(&hpa, &ledger).await?;
            first.get_or_insert_with(|| Released {
                namespace: key.namespace.to_string(),
                name: key.name.to_string(),
                max_replicas: live.max,
                user_max_replicas: live.user_max(None),
                woken_replicas: at_zero.as_ref().map(|_| start_replicas(&hpa)),
                not_recorded: has_zeroed_annotation(&hpa) && !is_recorded,
                asks_again: annotated_cap_mode(&hpa) == Some(CapMode::Enforce),
            });
            if self.dry_run {
                return Ok(first);
            }
            let next = self.write_next(&api, &hpa, &object.metadata, at_zero, &ledger);
            match next.await {
                Ok(()) | Err(ApiError::Changed) => {}
                Err(error) => return Err(error),
            }
        }
        Err(ApiError::Changed)
    }

    /// Makes the next write of a release.
    async fn write_next(
        &mut self,
        api: &Api<HorizontalPodAutoscaler>,
        hpa: &HpaFacts,
        read: &ObjectMeta,
        at_zero: Option<Scale>,
        ledger: &StoredLedger,
    ) -> Result<(), ApiError> {
        let owner = find_field_owner(&self.client, REQUEST_TIMEOUT).await?;
        if let Some(cap) = release(HpaFields::of(hpa), None, owner) {
            let patch = HpaPatch {
                // The last of these writes leaves nothing of lagwise on the HPA.
                term: cap.is_last().then_some(AnnotationChange::Remove),
                cap,
                zeroed: None,
            };
            let written = patch_hpa(api, read, &patch, REQUEST_TIMEOUT).await;
            return written.map(drop);
        }
        if let Some(scale) = at_zero {
            let (namespace, target) = (&hpa.namespace, &hpa.scale_target);
            let start = start_replicas(hpa);
            let set = self
                .scales
                .set(namespace, target, &scale, start, REQUEST_TIMEOUT);
            set.await?;
        }
        let patch = HpaPatch {
            term: Some(AnnotationChange::Remove),
            cap: CapPatch::default(),
            zeroed: Some(AnnotationChange::Remove),
        };
        patch_hpa(api, read, &patch, REQUEST_TIMEOUT).await?;
        self.ledger.remove(ledger, &hpa.uid).await
    }

    /// The scale of the workload, if lagwise has scaled it to zero and it is still there.
    async fn read_workload_at_zero(
        &self,
        hpa: &HpaFacts,
        ledger: &StoredLedger,
    ) -> Result<Option<Scale>, ApiError> {
        if ledger.ledger.record(&hpa.uid).is_none() {
            return Ok(None);
        }
        let (namespace, target) = (&hpa.namespace, &hpa.scale_target);
        let scale = match self.scales.read(namespace, target, REQUEST_TIMEOUT).await {
            // The workload was deleted: there is nothing to wake.
            Err(ApiError::Gone(_) | ApiError::NoKind { .. }) => return Ok(None),
            other => other?,
        };
        let found = ledger.ledger.find(&hpa.uid, scale.uid.as_deref());
        let is_at_zero = found == LedgerMatch::Recorded && scale.replicas == 0;
        Ok(is_at_zero.then_some(scale))
    }
}

fn has_term(object: &HorizontalPodAutoscaler) -> bool {
    let annotations = object.metadata.annotations.as_ref();
    annotations.is_some_and(|all| all.contains_key(TERM))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;

    use axum::http::{Request, Response, StatusCode, header};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;
    use crate::k8s::write_guard::testing::refusal;
    use crate::model::decisions::zero_ledger::testing::record;

    const NAMES: [&str; 3] = ["billing", "mail", "orders"];

    /// The ConfigMap of the ledger, and how often it was read as a whole.
    #[derive(Default)]
    struct LedgerServer {
        data: Value,
        version: u32,
        reads: usize,
    }

    impl LedgerServer {
        fn answer(&mut self, path: &str, accept: &str) -> (StatusCode, Value) {
            if path.ends_with("/configmaps/lagwise-zero") {
                self.reads += usize::from(!accept.contains("PartialObjectMetadata"));
                let metadata = json!({
                    "name": "lagwise-zero", "resourceVersion": self.version.to_string(),
                });
                return (
                    StatusCode::OK,
                    json!({"metadata": metadata, "data": self.data}),
                );
            }
            let hpas = "/horizontalpodautoscalers";
            match path.split_once(hpas) {
                Some((_, "")) => {
                    let items = Vec::from_iter(NAMES.map(hpa));
                    (StatusCode::OK, json!({"metadata": {}, "items": items}))
                }
                Some((_, name)) => (StatusCode::OK, hpa(&name[1..])),
                None => refusal(StatusCode::NOT_FOUND, "not found"),
            }
        }
    }

    fn hpa(name: &str) -> Value {
        json!({
            "metadata": {
                "namespace": "shop", "name": name, "uid": format!("uid-of-{name}"),
                "annotations": {"lagwise.dev/zeroed-since": "2026-01-01T00:00:00Z"},
            },
            "spec": {
                "maxReplicas": 9,
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            },
        })
    }

    /// A dry run against this server.
    fn dry_run(server: &Arc<Mutex<LedgerServer>>) -> Release {
        let server = Arc::clone(server);
        let serve = move |request: Request<Body>| {
            let accept = request.headers().get(header::ACCEPT);
            let accept = accept.and_then(|accept| accept.to_str().ok());
            let path = request.uri().path();
            let mut server = server.lock().unwrap();
            let (code, body) = server.answer(path, accept.unwrap_or_default());
            let mut response = Response::new(Body::from(body.to_string().into_bytes()));
            *response.status_mut() = code;
            std::future::ready(Ok::<_, Infallible>(response))
        };
        let client = Client::new(tower::service_fn(serve), "lagwise");
        let key = "lagwise/lagwise-zero".parse().unwrap();
        Release {
            scales: Scales::new(client.clone()),
            ledger: ReleaseLedger {
                map: Some(LedgerConfigMap::of_key(client.clone(), key)),
                stored: None,
            },
            client,
            dry_run: true,
        }
    }

    #[tokio::test]
    async fn the_ledger_is_read_again_only_if_it_has_changed() {
        let server = Arc::new(Mutex::new(LedgerServer {
            data: json!({}),
            ..LedgerServer::default()
        }));
        let mut release = dry_run(&server);
        let annotated = release.hpas_to_release(&[]).await.unwrap();
        assert_eq!(annotated, NAMES.map(|name| HpaKey::new("shop", name)));
        for hpa in &annotated {
            let released = release.release(hpa).await.unwrap().unwrap();
            assert!(released.not_recorded, "{released:?}");
        }
        assert_eq!(server.lock().unwrap().reads, 1);
        {
            let mut server = server.lock().unwrap();
            server.version += 1;
            server.data = json!({"uid-of-mail": record("mail", "d1").encode()});
        }
        for (hpa, not_recorded) in annotated.iter().zip([true, false, true]) {
            let released = release.release(hpa).await.unwrap().unwrap();
            assert_eq!(released.not_recorded, not_recorded, "{released:?}");
        }
        assert_eq!(server.lock().unwrap().reads, 2);
    }
}
