//! Every value of the chart has an effect.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::chart;
use super::rendering::render;
use crate::testbed::Testbed;

/// A change of each value, and the other values with which it has an effect. Both as for `--set`.
const CHANGES: &[(&str, &str)] = &[
    ("config.clusters[0].name=other", ""),
    ("mode=observe", ""),
    ("existingSecret.name=login", ""),
    (
        "existingSecret.mountPath=/login",
        "existingSecret.name=login",
    ),
    ("env[0].name=A,env[0].value=b", ""),
    ("envFrom[0].secretRef.name=more", ""),
    ("volumes[0].name=more", ""),
    (
        "volumeMounts[0].name=more,volumeMounts[0].mountPath=/more",
        "",
    ),
    (
        "podIdentity.awsRoleArn=arn:aws:iam::123456789012:role/lagwise",
        "",
    ),
    ("podIdentity.azureClientId=id", ""),
    ("podIdentity.gcpServiceAccount=lw@shop", ""),
    ("image.repository=registry.example.com/lagwise", ""),
    ("image.tag=next", ""),
    (
        "image.digest=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "",
    ),
    ("image.kerberos=true", ""),
    ("image.pullPolicy=Always", ""),
    ("imagePullSecrets[0].name=pull", ""),
    ("extraArgs={--log,debug}", ""),
    ("replicaCount=3", ""),
    ("tls.type=helm", ""),
    (
        "tls.existingSecret=own",
        "tls.type=existingSecret,tls.existingSecret=other,tls.caBundle=CA",
    ),
    (
        "tls.caBundle=other",
        "tls.type=existingSecret,tls.existingSecret=own,tls.caBundle=CA",
    ),
    (
        "tls.certManager.issuerRef.name=own",
        "tls.type=certManager,tls.certManager.issuerRef.name=other",
    ),
    ("apiService.create=false", ""),
    ("upstream.serviceAccount=true", ""),
    ("enforce.enabled=true", ""),
    ("enforce.namespaces={shop}", "enforce.enabled=true"),
    (
        "enforce.bindUsers=true",
        "enforce.enabled=true,config.cap.default=enforce",
    ),
    (
        "enforce.exempt.users={ci}",
        "enforce.enabled=true,config.cap.default=enforce,enforce.bindUsers=true",
    ),
    (
        "enforce.exempt.groups={ci}",
        "enforce.enabled=true,config.cap.default=enforce,enforce.bindUsers=true",
    ),
    ("scaleToZero.enabled=true", ""),
    ("scaleToZero.namespaces={shop}", "scaleToZero.enabled=true"),
    (
        "scaleToZero.targets[0].apiGroups={apps},scaleToZero.targets[0].resources={deployments/scale}",
        "scaleToZero.enabled=true",
    ),
    ("annotationPolicy.action=Warn", ""),
    ("releaseJob.enabled=false", "enforce.enabled=true"),
    ("releaseJob.timeoutSeconds=60", "enforce.enabled=true"),
    ("rbac.create=false", ""),
    ("serviceAccount.create=false", "serviceAccount.name=own"),
    ("serviceAccount.name=own", ""),
    ("serviceAccount.annotations.a=b", ""),
    ("podAnnotations.a=b", ""),
    ("podLabels.a=b", ""),
    (r"hookPods.labels.sidecar\.istio\.io/inject=other", ""),
    (r"hookPods.annotations.linkerd\.io/inject=other", ""),
    ("podSecurityContext.runAsNonRoot=false", ""),
    ("podSecurityContext.runAsUser=1000", ""),
    ("podSecurityContext.runAsGroup=1000", ""),
    ("podSecurityContext.fsGroup=1000", ""),
    ("podSecurityContext.seccompProfile.type=Unconfined", ""),
    ("securityContext.allowPrivilegeEscalation=true", ""),
    ("securityContext.readOnlyRootFilesystem=false", ""),
    ("securityContext.capabilities.drop={NET_RAW}", ""),
    ("resources.requests.cpu=1", ""),
    ("resources.requests.memory=1Gi", ""),
    ("resources.limits.memory=1Gi", ""),
    ("nodeSelector.a=b", ""),
    ("tolerations[0].key=a", ""),
    ("affinity.nodeAffinity.a=b", ""),
    ("topologySpreadConstraints[0].maxSkew=2", ""),
    ("priorityClassName=high", ""),
    ("hostNetwork=true", ""),
    ("dnsPolicy=Default", ""),
    ("dnsConfig.nameservers={10.0.0.10}", ""),
    ("hostAliases[0].ip=10.0.0.7", ""),
    ("service.annotations.a=b", ""),
    ("podDisruptionBudget.enabled=false", ""),
    ("serviceMonitor.enabled=true", ""),
    ("serviceMonitor.interval=7s", "serviceMonitor.enabled=true"),
    ("serviceMonitor.labels.a=b", "serviceMonitor.enabled=true"),
    (
        "serviceMonitor.relabelings[0].targetLabel=a",
        "serviceMonitor.enabled=true",
    ),
    (
        "serviceMonitor.metricRelabelings[0].targetLabel=a",
        "serviceMonitor.enabled=true",
    ),
    ("podMonitor.enabled=true", ""),
    ("podMonitor.interval=7s", "podMonitor.enabled=true"),
    ("podMonitor.labels.a=b", "podMonitor.enabled=true"),
    (
        "podMonitor.relabelings[0].targetLabel=a",
        "podMonitor.enabled=true",
    ),
    (
        "podMonitor.metricRelabelings[0].targetLabel=a",
        "podMonitor.enabled=true",
    ),
    ("prometheusRule.enabled=true", ""),
    ("prometheusRule.labels.a=b", "prometheusRule.enabled=true"),
    (
        "prometheusRule.alertLabels.a=b",
        "prometheusRule.enabled=true",
    ),
    (
        "prometheusRule.lagSecondsMax=60",
        "prometheusRule.enabled=true",
    ),
    (
        "prometheusRule.disabled={LagwiseLagTooOld}",
        "prometheusRule.enabled=true",
    ),
    (
        "prometheusRule.kminionNames=true",
        "prometheusRule.enabled=true",
    ),
    (
        "prometheusRule.runbookBaseUrl=https://docs.example.com",
        "prometheusRule.enabled=true",
    ),
    ("dashboard.enabled=true", ""),
    (
        "dashboard.labels.grafana_dashboard=a",
        "dashboard.enabled=true",
    ),
    ("dashboard.annotations.a=b", "dashboard.enabled=true"),
    ("networkPolicy.enabled=true", ""),
    (
        "networkPolicy.apiFrom[0].podSelector.matchLabels.a=b",
        "networkPolicy.enabled=true",
    ),
    (
        "networkPolicy.metricsFrom[0].podSelector.matchLabels.a=b",
        "networkPolicy.enabled=true",
    ),
    (
        "networkPolicy.scalerFrom[0].podSelector.matchLabels.a=b",
        "networkPolicy.enabled=true,config.server.external_scaler.listen=0.0.0.0:9443",
    ),
    (
        "networkPolicy.kafkaPorts={9094}",
        "networkPolicy.enabled=true",
    ),
    (
        "networkPolicy.egress[0].ports[0].port=8443",
        "networkPolicy.enabled=true",
    ),
    ("nameOverride=other", ""),
    ("fullnameOverride=other", ""),
];

/// Values whose effect is that something in the cluster is not refused: here no cluster is asked. With their scenario.
const OF_CLUSTERS: &[(&str, &str)] = &[(
    "apiService.takeOver",
    "chart::objects_of_others_are_refused_with_a_reason",
)];

pub(super) fn every_value_has_an_effect(testbed: &Testbed) -> Result<()> {
    let text = fs::read_to_string(chart().join("values.yaml"))?;
    let mut values = Vec::new();
    collect_values(&serde_saphyr::from_str(&text)?, "", &mut values);
    ensure!(values.len() > 90, "only {values:?}");
    let mut problems = Vec::new();
    for value in &values {
        let is_changed = CHANGES.iter().any(|(change, _)| changes(change, value));
        let is_of_cluster = OF_CLUSTERS.iter().any(|(of, _)| of == value);
        if is_changed == is_of_cluster {
            problems.push(format!(
                "{value}: not in exactly one of CHANGES and OF_CLUSTERS"
            ));
        }
    }
    let mut unchanged: BTreeMap<&str, String> = BTreeMap::new();
    for (change, companions) in CHANGES {
        if !values.iter().any(|value| changes(change, value)) {
            problems.push(format!("{change}: changes no value of values.yaml"));
        }
        if !unchanged.contains_key(companions) {
            let rendered = render(testbed, companions, &[]).context(*companions)?;
            unchanged.insert(companions, rendered);
        }
        let changed = render(testbed, companions, &["--set", change]).context(*change)?;
        if changed == unchanged[companions] {
            problems.push(format!("{change}: no effect with {companions:?}"));
        }
    }
    for (value, scenario) in OF_CLUSTERS {
        let mut all = super::CASES.iter().chain(super::LONG);
        if !all.any(|(name, _)| name == scenario) {
            problems.push(format!("{value}: there is no scenario {scenario}"));
        }
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

/// Keys of all values that have no keys of their own.
fn collect_values(value: &Value, place: &str, found: &mut Vec<String>) {
    match value.as_object().filter(|inner| !inner.is_empty()) {
        Some(inner) => {
            for (key, value) in inner {
                let dot = if place.is_empty() { "" } else { "." };
                let key = key.replace('.', r"\.");
                collect_values(value, &format!("{place}{dot}{key}"), found);
            }
        }
        None => found.push(place.to_owned()),
    }
}

/// Whether a change as for `--set` is of this value.
fn changes(change: &str, value: &str) -> bool {
    let rest = change.strip_prefix(value);
    rest.is_some_and(|rest| rest.starts_with(['=', '.', '[']))
}
