//! Marks of the objects that the daemon creates for itself: a label, and the owner with which Kubernetes deletes them
//! after an uninstallation.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::PostParams;
use kube::{Api, Client};

use super::api_error::in_time;

/// The label of an object that lagwise has created.
pub(super) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "lagwise");

/// Timeout for asking the API server. Without an answer, the object is created without an owner.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// The service account of this process, as the owner of an object in the client's own namespace. `None` for another
/// user and for an account of another namespace, whose objects Kubernetes would delete at once.
pub(super) async fn owner_references(client: &Client) -> Option<Vec<OwnerReference>> {
    let api: Api<SelfSubjectReview> = Api::all(client.clone());
    let (params, review) = (PostParams::default(), SelfSubjectReview::default());
    let answer = in_time(REQUEST_TIMEOUT, api.create(&params, &review)).await;
    let user = answer.ok()?.status?.user_info?;
    let owner = reference(&user.username?, user.uid?, client.default_namespace())?;
    Some(vec![owner])
}

fn reference(user: &str, uid: String, namespace: &str) -> Option<OwnerReference> {
    let account = user.strip_prefix("system:serviceaccount:")?;
    let name = account.strip_prefix(namespace)?.strip_prefix(':')?;
    if uid.is_empty() {
        return None;
    }
    Some(OwnerReference {
        api_version: "v1".to_owned(),
        kind: "ServiceAccount".to_owned(),
        name: name.to_owned(),
        uid,
        ..OwnerReference::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_account_of_the_namespace_is_an_owner() {
        let owner = |user: &str, uid: &str| {
            let found = reference(user, uid.to_owned(), "shop");
            found.map(|owner| (owner.kind, owner.name, owner.uid))
        };
        let expected = ("ServiceAccount".into(), "lagwise".into(), "u1".into());
        let account = "system:serviceaccount:shop:lagwise";
        assert_eq!(owner(account, "u1"), Some(expected));
        assert_eq!(owner(account, ""), None);
        for user in [
            "system:serviceaccount:shop-2:lagwise",
            "system:serviceaccount:other:lagwise",
            "mary",
        ] {
            assert_eq!(owner(user, "u1"), None, "{user}");
        }
    }
}
