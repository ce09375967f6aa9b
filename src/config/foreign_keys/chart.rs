//! The chart's values, which people take for the daemon's own configuration.

/// Their keys, sorted.
pub(super) const CHART_KEYS: &[&str] = &[
    "affinity",
    "annotationPolicy",
    "apiService",
    "config",
    "dashboard",
    "dnsConfig",
    "dnsPolicy",
    "enforce",
    "env",
    "envFrom",
    "existingSecret",
    "extraArgs",
    "fullnameOverride",
    "hookPods",
    "hostAliases",
    "hostNetwork",
    "image",
    "imagePullSecrets",
    "mode",
    "nameOverride",
    "networkPolicy",
    "nodeSelector",
    "podAnnotations",
    "podDisruptionBudget",
    "podIdentity",
    "podLabels",
    "podMonitor",
    "podSecurityContext",
    "priorityClassName",
    "prometheusRule",
    "rbac",
    "releaseJob",
    "replicaCount",
    "resources",
    "scaleToZero",
    "securityContext",
    "service",
    "serviceAccount",
    "serviceMonitor",
    "tls",
    "tolerations",
    "topologySpreadConstraints",
    "upstream",
    "volumeMounts",
    "volumes",
];

#[cfg(test)]
mod tests {
    use super::super::meaning;
    use super::*;

    #[test]
    fn all_values_of_the_chart_are_known() {
        let values = include_str!("../../../charts/lagwise/values.yaml");
        let keys = values.lines().filter_map(|line| {
            let (key, _) = line.split_once(':')?;
            key.starts_with(|c: char| c.is_ascii_alphabetic())
                .then_some(key)
        });
        let mut keys = Vec::from_iter(keys);
        keys.sort_unstable();
        assert_eq!(keys, CHART_KEYS);
        for key in keys {
            let meaning = meaning("", key).unwrap();
            assert!(
                meaning.starts_with("a key of the chart's values; "),
                "{meaning}"
            );
        }
    }
}
