//! Who has written what: the API server's own record of the writes to HPAs and to what they scale.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::control_plane::ControlPlane;

const POLICY: &str = "audit-policy.json";
const LOG: &str = "audit.log";

/// A write that the API server has answered.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    /// When, as the API server writes it (RFC 3339, in UTC): in the order of time.
    pub(crate) at: String,
    pub(crate) user: String,
    pub(crate) verb: String,
    /// `scale`, or empty.
    pub(crate) subresource: String,
    pub(crate) code: u64,
}

/// Writes the policy that the API server is started with.
pub(super) fn write_policy(folder: &Path) -> Result<()> {
    let writes = json!({
        "level": "Metadata",
        "verbs": ["create", "update", "patch"],
        "resources": [
            {"group": "autoscaling", "resources": ["horizontalpodautoscalers"]},
            {"group": "apps", "resources": ["deployments/scale", "statefulsets/scale"]},
        ],
    });
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [writes, {"level": "None"}],
    });
    std::fs::write(folder.join(POLICY), policy.to_string())?;
    Ok(())
}

/// What the API server is told of it.
pub(super) fn flags(folder: &Path) -> [String; 2] {
    [
        format!("--audit-policy-file={}", folder.join(POLICY).display()),
        format!("--audit-log-path={}", folder.join(LOG).display()),
    ]
}

impl ControlPlane {
    /// The writes to the objects of that name in a namespace, in their order.
    pub(crate) fn writes(&self, namespace: &str, name: &str) -> Result<Vec<Write>> {
        let log = std::fs::read_to_string(self.folder.join(LOG))?;
        let mut writes = Vec::new();
        // The last line may be half written yet.
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.lines() {
            let event: Value = serde_json::from_str(line)?;
            let of = &event["objectRef"];
            if of["namespace"] != namespace || of["name"] != name {
                continue;
            }
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
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

    /// The writes of a namespace's service account `lagwise` to an HPA, as far as they were taken.
    pub(crate) fn daemon_writes(&self, namespace: &str, hpa: &str) -> Result<Vec<Write>> {
        let account = format!("system:serviceaccount:{namespace}:lagwise");
        let mut writes = self.writes(namespace, hpa)?;
        writes.retain(|w| w.user == account && w.subresource.is_empty() && w.code == 200);
        Ok(writes)
    }
}
