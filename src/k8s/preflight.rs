//! Collects the facts about a Kubernetes cluster for `lagwise check`. A fact that cannot be read is an `Err` with the
//! reason.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::PostParams;
use kube::{Api, Client};

use super::api_error::{ApiError, in_time};
use super::certificates::API_SERVICE;
use super::field_owner::{POLICY, find_field_owner};
use super::hpa::HpaList;
use super::reviews::ClusterReviewer;
use crate::authentication::Authenticator as _;
use crate::model::decisions::cap::FieldOwner;
use crate::model::diagnostics::preflight::kubernetes::HpaCounts;
use crate::model::diagnostics::preflight::registration::{Availability, RegisteredApi};
use crate::model::diagnostics::preflight::rights::AccessRight;
use crate::model::hpa::facts::{HpaFacts, has_lagwise_metric, has_rejected_lagwise_metric};

/// Maximum number of reviews at the same time.
const MAX_CONCURRENT_REVIEWS: usize = 8;

/// The registration of the external metrics API.
#[must_use]
pub fn api_service_name() -> String {
    API_SERVICE.to_owned()
}

/// The admission policy of the cap.
#[must_use]
pub fn cap_policy_name() -> String {
    POLICY.to_owned()
}

/// The user of the requests; `None` if the API server does not report it.
pub async fn account(client: &Client) -> Option<String> {
    let reviewer = ClusterReviewer::new(client.clone());
    reviewer.self_subject().await.ok()
}

/// Whether this account has each of these rights, in their order.
pub async fn review_rights(
    client: &Client,
    rights: BTreeSet<AccessRight>,
    timeout: Duration,
) -> Vec<(AccessRight, Result<bool, String>)> {
    let reviews = stream::iter(rights).map(|right| async move {
        let answer = review_right(client, &right, timeout).await;
        (right, answer.map_err(|error| error.to_string()))
    });
    reviews.buffered(MAX_CONCURRENT_REVIEWS).collect().await
}

async fn review_right(
    client: &Client,
    right: &AccessRight,
    timeout: Duration,
) -> Result<bool, ApiError> {
    let (resource, subresource) = match right.resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (right.resource, None),
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                group: Some(right.group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource,
                verb: Some(right.verb.to_owned()),
                name: right.name.clone(),
                namespace: right.namespace.clone(),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = in_time(timeout, api.create(&PostParams::default(), &review)).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// Who records the user's `maxReplicas`.
///
/// # Errors
/// The API server's.
pub async fn policy(client: &Client, timeout: Duration) -> Result<FieldOwner, String> {
    let found = find_field_owner(client, timeout).await;
    found.map_err(|error| error.to_string())
}

/// The registration of the external metrics API; `None` if there is none.
///
/// # Errors
/// The API server's.
pub async fn registered(
    client: &Client,
    timeout: Duration,
) -> Result<Option<RegisteredApi>, String> {
    let api: Api<APIService> = Api::all(client.clone());
    let found = in_time(timeout, api.get_opt(API_SERVICE)).await;
    let found = found.map_err(|error| error.to_string())?;
    Ok(found.map(registered_api))
}

fn registered_api(found: APIService) -> RegisteredApi {
    let service = found.spec.and_then(|spec| spec.service).unwrap_or_default();
    let conditions = found.status.and_then(|status| status.conditions);
    let mut conditions = conditions.into_iter().flatten();
    let available = conditions.find(|condition| condition.type_ == "Available");
    RegisteredApi {
        namespace: service.namespace.unwrap_or_default(),
        service: service.name.unwrap_or_default(),
        availability: available.map(|condition| Availability {
            is_available: condition.status == "True",
            reason: condition.reason.unwrap_or_default(),
            message: condition.message.unwrap_or_default(),
        }),
    }
}

/// Requests the external metrics API through the API server.
///
/// # Errors
/// The error of the API server, or of the server behind it.
pub async fn request_api(client: &Client, timeout: Duration) -> Result<(), String> {
    let version = "external.metrics.k8s.io/v1beta1";
    let listed = in_time(timeout, client.list_api_group_resources(version)).await;
    listed.map(drop).map_err(|error| error.to_string())
}

/// The kinds of the Prometheus operator for scrape targets that the cluster has.
pub async fn monitors(client: &Client, timeout: Duration) -> Vec<String> {
    let version = "monitoring.coreos.com/v1";
    let Ok(listed) = in_time(timeout, client.list_api_group_resources(version)).await else {
        return Vec::new();
    };
    let mut kinds: Vec<_> = listed.resources.into_iter().map(|kind| kind.kind).collect();
    kinds.retain(|kind| ["ServiceMonitor", "PodMonitor"].contains(&kind.as_str()));
    kinds.sort();
    kinds.dedup();
    kinds
}

/// How many HPAs are listed.
#[must_use]
pub fn count_hpas(list: &HpaList) -> HpaCounts {
    let is_ours = |hpa: &HpaFacts| has_lagwise_metric(hpa) || has_rejected_lagwise_metric(hpa);
    let ours = list.facts.iter().filter(|hpa| is_ours(hpa));
    HpaCounts {
        all: list.facts.len(),
        lagwise: ours.count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_registration_with_and_without_a_status() {
        let read = |status: serde_json::Value| {
            let object = serde_json::json!({
                "apiVersion": "apiregistration.k8s.io/v1",
                "kind": "APIService",
                "metadata": {"name": API_SERVICE},
                "spec": {
                    "service": {"namespace": "lagwise", "name": "lagwise"},
                    "groupPriorityMinimum": 100,
                    "versionPriority": 100,
                },
                "status": status,
            });
            registered_api(serde_json::from_value(object).unwrap())
        };
        let unavailable = read(serde_json::json!({"conditions": [{
            "type": "Available",
            "status": "False",
            "reason": "MissingEndpoints",
            "message": "endpoints have no addresses",
        }]}));
        assert_eq!(unavailable.service, "lagwise");
        let availability = unavailable.availability.unwrap();
        assert!(!availability.is_available);
        assert_eq!(availability.reason, "MissingEndpoints");
        assert!(read(serde_json::json!({})).availability.is_none());
    }
}
