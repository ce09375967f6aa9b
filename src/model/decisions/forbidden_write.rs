//! Findings about writes for which lagwise lacks a right.

use crate::model::findings::{Finding, FindingCode};
use crate::model::hpa::facts::{HpaFacts, scale_target_name};
use crate::model::units::untrusted_text::Printable;

/// What lagwise does not do for an HPA, since it lacks a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForbiddenWrite {
    /// Keep `maxReplicas` at the ceiling, or restore it.
    Cap,
    /// Scale the workload to zero and wake it.
    Zero,
}

impl ForbiddenWrite {
    /// The finding about it. `reason` is the answer of the API server, which names the verb and the resource.
    #[must_use]
    pub fn finding(self, hpa: &HpaFacts, reason: &str) -> Finding {
        let target = scale_target_name(hpa);
        let reason = Printable::message(reason);
        let what = match self {
            ForbiddenWrite::Cap => "lagwise may not write maxReplicas".to_owned(),
            ForbiddenWrite::Zero => {
                format!("lagwise may not scale {target} to zero or wake it")
            }
        };
        let message = format!("{what}: {reason}");
        Finding::new(FindingCode::WriteForbidden, hpa.key(), message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hpa::facts::ScaleTarget;

    #[test]
    fn names_what_is_not_done_and_the_missing_right() {
        let hpa = HpaFacts {
            namespace: "shop".into(),
            name: "billing".into(),
            scale_target: ScaleTarget {
                api_version: "apps/v1".into(),
                kind: "Deployment".into(),
                name: "billing".into(),
            },
            ..HpaFacts::default()
        };
        let reason = "User \"lagwise\" cannot patch resource \"deployments/scale\"";
        for (write, expected) in [
            (
                ForbiddenWrite::Zero,
                "lagwise may not scale Deployment shop/billing to zero or wake it: User \"lagwise\" cannot patch resource \"deployments/scale\"",
            ),
            (
                ForbiddenWrite::Cap,
                "lagwise may not write maxReplicas: User \"lagwise\" cannot patch resource \"deployments/scale\"",
            ),
        ] {
            assert_eq!(write.finding(&hpa, reason).message, expected);
        }
        let long = ForbiddenWrite::Cap.finding(&hpa, &"x".repeat(100_000));
        assert!(long.message.len() < 1200);
    }
}
