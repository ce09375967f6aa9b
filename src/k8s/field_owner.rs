//! Finds which component records the user's `maxReplicas`: the admission policy or lagwise.

use std::time::Duration;

use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::{Api, Client};

use super::api_error::{ApiError, in_time};
use crate::model::decisions::cap::FieldOwner;

/// The name of the admission policy and of its binding.
pub(super) const POLICY: &str = "lagwise-cap";

/// Looks up whether the admission policy is installed and bound.
///
/// # Errors
/// The API server's, except that it does not know the kind.
pub(super) async fn find_field_owner(
    client: &Client,
    timeout: Duration,
) -> Result<FieldOwner, ApiError> {
    for (kind, plural) in [
        ("MutatingAdmissionPolicy", "mutatingadmissionpolicies"),
        (
            "MutatingAdmissionPolicyBinding",
            "mutatingadmissionpolicybindings",
        ),
    ] {
        let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, plural);
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        if in_time(timeout, api.get_metadata_opt(POLICY))
            .await?
            .is_none()
        {
            return Ok(FieldOwner::Lagwise);
        }
    }
    Ok(FieldOwner::Policy)
}
