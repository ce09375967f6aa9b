//! Translates an [`HpaPatch`] into a merge patch of the Kubernetes API.

use std::fmt::Display;
use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Map, Value, json};

use super::api_error::{ApiError, in_time};
use crate::model::decisions::cap::AnnotationChange;
use crate::model::decisions::fencing::TERM;
use crate::model::decisions::hpa_write::HpaPatch;
use crate::model::settings::annotation_keys::{CEILING, USER_MAX, ZEROED_SINCE};

/// The name by which the API server knows which fields lagwise has written.
const FIELD_MANAGER: &str = "lagwise";

/// Writes the patch, unless the HPA has changed since `read`. Returns the HPA after the write.
///
/// # Errors
/// [`ApiError::Changed`] if it has changed, or the error of the API server.
pub(super) async fn patch_hpa(
    api: &Api<HorizontalPodAutoscaler>,
    read: &ObjectMeta,
    patch: &HpaPatch,
    timeout: Duration,
) -> Result<HorizontalPodAutoscaler, ApiError> {
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let name = read.name.as_deref().unwrap_or_default();
    let patch = Patch::Merge(merge_patch(read, patch));
    in_time(timeout, api.patch(name, &params, &patch)).await
}

fn merge_patch(read: &ObjectMeta, patch: &HpaPatch) -> Value {
    let mut annotations = Map::new();
    set(&mut annotations, TERM, patch.term);
    set(&mut annotations, CEILING, patch.cap.ceiling);
    set(&mut annotations, USER_MAX, patch.cap.user);
    let zeroed = patch.zeroed.map(|change| match change {
        AnnotationChange::Set(time) => {
            AnnotationChange::Set(humantime::format_rfc3339_seconds(time))
        }
        AnnotationChange::Remove => AnnotationChange::Remove,
    });
    set(&mut annotations, ZEROED_SINCE, zeroed);
    // With these two fields, the API server refuses a write that was decided from an older version, or for an
    // HPA that has been deleted and created again.
    let mut metadata = json!({
        "uid": read.uid,
        "resourceVersion": read.resource_version,
        "annotations": annotations,
    });
    if patch.cap.is_last() {
        // While lagwise owns `maxReplicas`, a server-side apply of another number by the user conflicts.
        metadata["managedFields"] = json!(fields_of_others(read));
    }
    let mut object = json!({"metadata": metadata});
    if let Some(max) = patch.cap.max {
        object["spec"] = json!({"maxReplicas": max});
    }
    object
}

fn set<T: Display>(
    annotations: &mut Map<String, Value>,
    key: &str,
    change: Option<AnnotationChange<T>>,
) {
    let value = match change {
        None => return,
        Some(AnnotationChange::Set(value)) => Value::String(value.to_string()),
        Some(AnnotationChange::Remove) => Value::Null,
    };
    annotations.insert(key.to_owned(), value);
}

/// The ownership of fields, without lagwise's.
fn fields_of_others(read: &ObjectMeta) -> Vec<&ManagedFieldsEntry> {
    let all = read.managed_fields.iter().flatten();
    all.filter(|entry| entry.manager.as_deref() != Some(FIELD_MANAGER))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::model::decisions::cap::CapPatch;

    fn read() -> ObjectMeta {
        let entry = |manager: &str| json!({"manager": manager, "operation": "Update"});
        serde_json::from_value(json!({
            "name": "orders", "uid": "u1", "resourceVersion": "7",
            "managedFields": [entry("kubectl"), entry("lagwise")],
        }))
        .unwrap()
    }

    #[test]
    fn patch_has_every_change_and_the_version_read() {
        let patch = HpaPatch {
            term: Some(AnnotationChange::Set(3)),
            cap: CapPatch {
                max: Some(6),
                ceiling: Some(AnnotationChange::Set(6)),
                user: Some(AnnotationChange::Set(20)),
            },
            zeroed: Some(AnnotationChange::Set(SystemTime::UNIX_EPOCH)),
        };
        let expected = json!({
            "metadata": {
                "uid": "u1",
                "resourceVersion": "7",
                "annotations": {
                    "lagwise.dev/epoch": "3",
                    "lagwise.dev/ceiling": "6",
                    "lagwise.dev/user-max-replicas": "20",
                    "lagwise.dev/zeroed-since": "1970-01-01T00:00:00Z",
                },
            },
            "spec": {"maxReplicas": 6},
        });
        assert_eq!(merge_patch(&read(), &patch), expected);
    }

    #[test]
    fn last_write_of_the_cap_gives_up_field_ownership() {
        let patch = HpaPatch {
            term: Some(AnnotationChange::Remove),
            cap: CapPatch {
                max: None,
                ceiling: Some(AnnotationChange::Remove),
                user: Some(AnnotationChange::Remove),
            },
            zeroed: None,
        };
        let expected = json!({"metadata": {
            "uid": "u1",
            "resourceVersion": "7",
            "annotations": {
                "lagwise.dev/epoch": null,
                "lagwise.dev/ceiling": null,
                "lagwise.dev/user-max-replicas": null,
            },
            "managedFields": [{"manager": "kubectl", "operation": "Update"}],
        }});
        assert_eq!(merge_patch(&read(), &patch), expected);
    }
}
