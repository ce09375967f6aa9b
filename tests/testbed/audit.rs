//! Audit log of the API server: writes to HPAs and scale subresources, and all requests of service accounts.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::control_plane::ControlPlane;

const POLICY: &str = "audit-policy.json";
const LOG: &str = "audit.log";
const WRITES: [&str; 3] = ["create", "update", "patch"];

/// A write to which the API server has responded.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    /// Time in the API server's format (RFC 3339, UTC), in which the order of texts is the order of times.
    pub(crate) at: String,
    pub(crate) user: String,
    pub(crate) verb: String,
    /// `scale`, or empty for the object itself.
    pub(crate) subresource: String,
    pub(crate) code: u64,
}

/// Writes the audit policy for the API server.
pub(super) fn write_policy(folder: &Path) -> Result<()> {
    let writes = json!({
        "level": "Metadata",
        "verbs": WRITES,
        "resources": [
            {"group": "autoscaling", "resources": ["horizontalpodautoscalers"]},
            {"group": "apps", "resources": ["deployments/scale", "statefulsets/scale"]},
        ],
    });
    // The many requests of the controllers are of no interest.
    let of_controllers =
        json!({"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]});
    let of_accounts = json!({"level": "Metadata", "userGroups": ["system:serviceaccounts"]});
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [writes, of_controllers, of_accounts, {"level": "None"}],
    });
    std::fs::write(folder.join(POLICY), policy.to_string())?;
    Ok(())
}

/// Flags of the API server for the policy and the log.
pub(super) fn flags(folder: &Path) -> [String; 2] {
    [
        format!("--audit-policy-file={}", folder.join(POLICY).display()),
        format!("--audit-log-path={}", folder.join(LOG).display()),
    ]
}

/// A request of a service account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Request {
    pub(crate) verb: String,
    pub(crate) group: String,
    /// Resource, with the subresource after a slash; empty for a path that is not a resource.
    pub(crate) resource: String,
    pub(crate) name: String,
    /// Empty for all namespaces.
    pub(crate) namespace: String,
    pub(crate) is_forbidden: bool,
}

impl ControlPlane {
    /// All requests of a service account so far.
    pub(crate) fn requests(&self, namespace: &str, account: &str) -> Result<BTreeSet<Request>> {
        let account = format!("system:serviceaccount:{namespace}:{account}");
        let mut events = self.audited_events(&account)?;
        events.retain(|event| event["user"]["username"] == account);
        let requests = events.iter().map(|event| {
            let of = &event["objectRef"];
            let resource = match of["subresource"].as_str() {
                Some(subresource) => format!("{}/{subresource}", text(&of["resource"])),
                None => text(&of["resource"]),
            };
            Request {
                verb: text(&event["verb"]),
                group: text(&of["apiGroup"]),
                resource,
                name: text(&of["name"]),
                namespace: text(&of["namespace"]),
                is_forbidden: event["responseStatus"]["code"] == 403,
            }
        });
        Ok(requests.collect())
    }

    /// The audit events whose text contains `part`.
    fn audited_events(&self, part: &str) -> Result<Vec<Value>> {
        let log = std::fs::read_to_string(self.folder.join(LOG))?;
        // The last line may be incomplete.
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let events = whole.lines().filter(|line| line.contains(part));
        let events = events.map(serde_json::from_str);
        Ok(events.collect::<serde_json::Result<_>>()?)
    }

    /// The writes to the objects of this name in a namespace, in order.
    pub(crate) fn writes(&self, namespace: &str, name: &str) -> Result<Vec<Write>> {
        let mut writes = Vec::new();
        for event in self.audited_events(namespace)? {
            let of = &event["objectRef"];
            let is_write = WRITES.iter().any(|verb| event["verb"] == *verb);
            let is_scalable = matches!(of["apiGroup"].as_str(), Some("autoscaling" | "apps"));
            if of["namespace"] != namespace || of["name"] != name || !is_write || !is_scalable {
                continue;
            }
            writes.push(Write {
                at: text(&event["stageTimestamp"]),
                user: text(&event["user"]["username"]),
                verb: text(&event["verb"]),
                subresource: text(&of["subresource"]),
                code: event["responseStatus"]["code"]
                    .as_u64()
                    .context("an answer without a code")?,
            });
        }
        Ok(writes)
    }

    /// The successful writes of a namespace's service account `lagwise` to an HPA.
    pub(crate) fn daemon_writes(&self, namespace: &str, hpa: &str) -> Result<Vec<Write>> {
        let account = format!("system:serviceaccount:{namespace}:lagwise");
        let mut writes = self.writes(namespace, hpa)?;
        writes.retain(|w| w.user == account && w.subresource.is_empty() && w.code == 200);
        Ok(writes)
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
