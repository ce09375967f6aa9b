//! What to do about a finding on a Kubernetes cluster of a known version.

use super::FindingCode;
use crate::model::units::kubernetes_version::KubernetesVersion;

/// A version without any of the features that advice depends on, and one with all of them.
const OLDEST: KubernetesVersion = KubernetesVersion { major: 1, minor: 0 };
const NEWEST: KubernetesVersion = KubernetesVersion {
    major: u32::MAX,
    minor: 0,
};

impl FindingCode {
    /// Whether its advice depends on the version of Kubernetes.
    #[must_use]
    pub fn depends_on_version(self) -> bool {
        let versions = [OLDEST, NEWEST].map(|version| self.advice(Some(version)));
        versions.iter().any(|advice| *advice != self.fix())
    }

    /// What to do about it, as far as this version of Kubernetes allows. Without a version the advice names the
    /// versions that it needs.
    #[must_use]
    pub fn advice(self, on: Option<KubernetesVersion>) -> &'static str {
        let Some(version) = on else {
            return self.fix();
        };
        match self {
            Self::ToleranceAbove | Self::ToleranceBelow | Self::ToleranceLeft
                if !version.has_tolerance() =>
            {
                "Set lagwise.dev/cap: enforce. A tolerance in the HPA's behavior does not help: this cluster drops or refuses it, since it is older than Kubernetes 1.35."
            }
            Self::ToleranceAbove | Self::ToleranceLeft => {
                "Set behavior.scaleUp.tolerance and behavior.scaleDown.tolerance to \"0\", or lagwise.dev/cap: enforce."
            }
            Self::ToleranceBelow => {
                "Set behavior.scaleUp.tolerance to \"0\", or lagwise.dev/cap: enforce."
            }
            Self::OthersAbove if !version.has_cap_policy() => {
                "Lower maxReplicas to the ceiling, or set lagwise.dev/cap: enforce. lagwise then patches maxReplicas, so GitOps tools have to ignore that field (on Kubernetes 1.36 and later an admission policy applies the ceiling instead)."
            }
            Self::ZeroLedgerUnusable if version.has_native_zero() => {
                "Set minReplicas: 0, with which the HPA goes to zero by itself and needs no record. Or let lagwise create, get and patch the ConfigMap of scale_to_zero.config_map in its own namespace, and outside of a pod set that key."
            }
            Self::WritesNotEnabled if version.has_native_zero() => {
                "Have it enabled for the namespace, by cap.enforce or scale_to_zero in the configuration (enforce or scaleToZero in the chart's values), or remove the annotation. To scale to zero without it, set minReplicas: 0."
            }
            _ => self.fix(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_depends_on_the_kubernetes_version() {
        let advice = |code: FindingCode, version: &str| code.advice(Some(version.parse().unwrap()));
        let tolerant = [
            FindingCode::ToleranceAbove,
            FindingCode::ToleranceBelow,
            FindingCode::ToleranceLeft,
        ];
        for code in tolerant {
            let old = advice(code, "1.34");
            assert!(old.starts_with("Set lagwise.dev/cap: enforce."), "{old}");
            assert!(!advice(code, "1.35").contains("1.35"), "{code:?}");
            assert!(code.advice(None).contains("1.35"), "{code:?}");
        }
        assert!(advice(FindingCode::OthersAbove, "1.35").contains("GitOps"));
        assert!(!advice(FindingCode::OthersAbove, "1.36").contains("GitOps"));
        assert!(advice(FindingCode::ZeroLedgerUnusable, "1.37").contains("minReplicas: 0"));
        assert!(!advice(FindingCode::ZeroLedgerUnusable, "1.36").contains("minReplicas: 0"));
        for code in FindingCode::ALL {
            let dependent = tolerant.contains(code)
                || [
                    FindingCode::OthersAbove,
                    FindingCode::ZeroLedgerUnusable,
                    FindingCode::WritesNotEnabled,
                ]
                .contains(code);
            assert_eq!(code.depends_on_version(), dependent, "{code:?}");
        }
        let same = FindingCode::TopicMissing;
        assert_eq!(advice(same, "1.29"), same.fix());
    }
}
