//! The version of a Kubernetes cluster, and the features of the HPA that depend on it.

use std::fmt;
use std::str::FromStr;

/// Version of a Kubernetes cluster, such as 1.35.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KubernetesVersion {
    pub major: u32,
    pub minor: u32,
}

impl KubernetesVersion {
    /// Whether lagwise supports it: it serves the metric, and `cap: advise` works. The chart requires it too.
    #[must_use]
    pub fn is_supported(self) -> bool {
        self >= Self::new(1, 29)
    }

    /// Whether the API server keeps `behavior.*.tolerance` of an HPA (KEP-4951). An older one drops it.
    #[must_use]
    pub fn has_tolerance(self) -> bool {
        self >= Self::new(1, 35)
    }

    /// Whether the cluster has MutatingAdmissionPolicy v1, with which the chart applies the cap.
    #[must_use]
    pub fn has_cap_policy(self) -> bool {
        self >= Self::new(1, 36)
    }

    /// Whether an HPA may have `minReplicas: 0` without a feature gate (KEP-2021).
    #[must_use]
    pub fn has_native_zero(self) -> bool {
        self >= Self::new(1, 37)
    }

    const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }
}

impl fmt::Display for KubernetesVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Text that is not a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a version of Kubernetes, such as 1.35")]
pub struct InvalidKubernetesVersion;

impl FromStr for KubernetesVersion {
    type Err = InvalidKubernetesVersion;

    /// Parses `1.35`, and what clusters report: `v1.35.2`, `1.35+`, `v1.34.1-gke.100`.
    fn from_str(text: &str) -> Result<Self, InvalidKubernetesVersion> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let (major, rest) = text.split_once('.').ok_or(InvalidKubernetesVersion)?;
        let end = rest.find(|c: char| !c.is_ascii_digit());
        let minor = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        let number = |text: &str| text.parse().map_err(|_| InvalidKubernetesVersion);
        Ok(Self::new(number(major)?, number(minor)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_clusters_report() {
        for (text, expected) in [
            ("1.35", (1, 35)),
            ("v1.37.0", (1, 37)),
            ("1.34+", (1, 34)),
            ("v1.29.15-gke.100", (1, 29)),
        ] {
            let (major, minor) = expected;
            assert_eq!(
                text.parse(),
                Ok(KubernetesVersion { major, minor }),
                "{text}"
            );
        }
        for text in ["", "1", "1.", "one.35", "1.x", "-1.35"] {
            let parsed = text.parse::<KubernetesVersion>();
            assert_eq!(parsed, Err(InvalidKubernetesVersion), "{text}");
        }
    }

    #[test]
    fn the_chart_requires_the_first_supported_version() {
        let chart = include_str!("../../../charts/lagwise/Chart.yaml");
        let required = chart.lines().find_map(|line| {
            let range = line.strip_prefix("kubeVersion: \">=")?;
            range.split('-').next()?.parse::<KubernetesVersion>().ok()
        });
        let required = required.unwrap();
        assert!(required.is_supported());
        let KubernetesVersion { major, minor } = required;
        assert!(!KubernetesVersion::new(major, minor - 1).is_supported());
    }

    #[test]
    fn features_come_with_their_versions() {
        let features = |text: &str| {
            let version: KubernetesVersion = text.parse().unwrap();
            let all = [
                version.has_tolerance(),
                version.has_cap_policy(),
                version.has_native_zero(),
            ];
            all.into_iter().filter(|has| *has).count()
        };
        for (text, count) in [
            ("1.29", 0),
            ("1.34", 0),
            ("1.35", 1),
            ("1.36", 2),
            ("1.37", 3),
            ("2.0", 3),
        ] {
            assert_eq!(features(text), count, "{text}");
        }
    }
}
