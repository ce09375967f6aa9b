//! Checks of the registration of the external metrics API, of which a cluster has only one, and of the way from the API
//! server to lagwise.

use super::kubernetes::SECTION;
use super::{CheckLine, PreflightProblem};
use crate::model::findings::{Finding, FindingCode, FindingSubject};

/// The registration of the external metrics API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredApi {
    /// Namespace and name of the Service that serves it.
    pub namespace: String,
    pub service: String,
    /// `None` while the API server has not checked it.
    pub availability: Option<Availability>,
}

/// Whether the API server reaches the Service, in its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Availability {
    pub is_available: bool,
    pub reason: String,
    pub message: String,
}

/// Facts about the registration.
#[derive(Clone, Debug)]
pub struct RegistrationFacts {
    pub is_before_install: bool,
    /// Whether the configuration leaves external metrics to another server.
    pub leaves_slot: bool,
    /// Service of lagwise, and its namespace where that is known.
    pub service: String,
    pub namespace: Option<String>,
    /// The registration, or why it could not be read.
    pub registered: Result<Option<RegisteredApi>, String>,
    /// The answer to a request for the API through the API server.
    pub answer: Result<(), String>,
}

/// Programs known by the Service that they register.
const KNOWN_OWNERS: [(&str, &str); 3] = [
    ("keda-operator-metrics-apiserver", "KEDA"),
    (
        "datadog-cluster-agent-metrics-api",
        "the Datadog cluster agent",
    ),
    ("prometheus-adapter", "prometheus-adapter"),
];

/// The program that registers this Service, if it is a known one.
fn known_owner(service: &str) -> Option<&'static str> {
    let known = KNOWN_OWNERS.iter().find(|(name, _)| *name == service);
    known.map(|(_, owner)| *owner)
}

/// The finding that the APIService names another Service than lagwise's, as `NAMESPACE/NAME`.
#[must_use]
pub fn find_lost_slot(holder: &str) -> Finding {
    let service = holder.rsplit('/').next().unwrap_or_default();
    let owner = known_owner(service).map_or_else(String::new, |owner| format!(" of {owner}"));
    let subject = FindingSubject::Setting("server.external_metrics".to_owned());
    let message = format!(
        "the APIService v1beta1.external.metrics.k8s.io names Service {holder}{owner}, so HPAs do not ask lagwise for external metrics"
    );
    Finding::new(FindingCode::SlotLost, subject, message)
}

/// The lines about who serves external metrics, and whether the API server gets an answer.
#[must_use]
pub fn check_registration(facts: &RegistrationFacts) -> Vec<CheckLine> {
    let registered = match &facts.registered {
        Ok(Some(registered)) => registered,
        Ok(None) if facts.is_before_install => {
            let free = "no server is registered for external metrics yet";
            return vec![CheckLine::passed(SECTION, "external metrics", free)];
        }
        Ok(None) => {
            let message = "no server is registered for external metrics, so HPAs get none";
            let problem = PreflightProblem::SlotUnregistered;
            return vec![CheckLine::problem(
                SECTION,
                "external metrics",
                problem,
                message,
            )];
        }
        Err(reason) => {
            let message = format!("who is registered for external metrics is unknown: {reason}");
            let problem = PreflightProblem::KubernetesUnread;
            let unread = CheckLine::problem(SECTION, "external metrics", problem, message);
            return vec![unread, answered(facts)];
        }
    };
    let place = format!("{}/{}", registered.namespace, registered.service);
    let is_ours = registered.service == facts.service
        && facts
            .namespace
            .as_ref()
            .is_none_or(|namespace| *namespace == registered.namespace);
    if !is_ours {
        let owner = known_owner(&registered.service).unwrap_or("another program");
        let message = format!("external metrics belong to {owner} (Service {place})");
        if facts.leaves_slot {
            let message = format!("{message}, and the configuration leaves them there");
            return vec![CheckLine::passed(SECTION, "external metrics", message)];
        }
        let problem = PreflightProblem::SlotTaken;
        return vec![CheckLine::problem(
            SECTION,
            "external metrics",
            problem,
            message,
        )];
    }
    let owner = format!("served by lagwise (Service {place})");
    let owner = CheckLine::passed(SECTION, "external metrics", owner);
    let available = match &registered.availability {
        Some(available) if available.is_available => answered(facts),
        Some(unavailable) => {
            let message = format!("{}: {}", unavailable.reason, unavailable.message);
            CheckLine::problem(
                SECTION,
                "API server to lagwise",
                cause(unavailable),
                message,
            )
        }
        None => {
            let message = "the API server has not reached the Service yet";
            let problem = PreflightProblem::ApiNoEndpoints;
            CheckLine::problem(SECTION, "API server to lagwise", problem, message)
        }
    };
    vec![owner, available]
}

fn answered(facts: &RegistrationFacts) -> CheckLine {
    match &facts.answer {
        Ok(()) => CheckLine::passed(
            SECTION,
            "API server to lagwise",
            "the API server reaches the external metrics API",
        ),
        Err(reason) => {
            let message = format!("external metrics are not served: {reason}");
            CheckLine::problem(
                SECTION,
                "API server to lagwise",
                PreflightProblem::ApiFailing,
                message,
            )
        }
    }
}

/// The cause, derived from the message of the API server's aggregator (kube-aggregator
/// `pkg/controllers/status/remote/remote_available_controller.go`).
fn cause(unavailable: &Availability) -> PreflightProblem {
    let message = unavailable.message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    match unavailable.reason.as_str() {
        "ServiceNotFound" | "ServicePortError" | "EndpointsNotFound" | "MissingEndpoints" => {
            PreflightProblem::ApiNoEndpoints
        }
        _ if says(&["x509", "tls:", "certificate"]) => PreflightProblem::ApiUntrusted,
        _ if says(&[
            "deadline exceeded",
            "timeout",
            "refused",
            "no route",
            "unreachable",
            "no such host",
            "eof",
            "reset",
        ]) =>
        {
            PreflightProblem::ApiUnreachable
        }
        _ => PreflightProblem::ApiFailing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::diagnostics::preflight::CheckStatus;

    fn facts() -> RegistrationFacts {
        RegistrationFacts {
            is_before_install: false,
            leaves_slot: false,
            service: "lagwise".into(),
            namespace: Some("lagwise".into()),
            registered: Ok(Some(registered("lagwise", "lagwise", None))),
            answer: Ok(()),
        }
    }

    fn registered(namespace: &str, service: &str, problem: Option<(&str, &str)>) -> RegisteredApi {
        let (reason, message) = problem.unwrap_or(("Passed", "all checks passed"));
        RegisteredApi {
            namespace: namespace.into(),
            service: service.into(),
            availability: Some(Availability {
                is_available: problem.is_none(),
                reason: reason.into(),
                message: message.into(),
            }),
        }
    }

    fn codes(facts: &RegistrationFacts) -> Vec<&'static str> {
        let lines = check_registration(facts);
        lines.iter().filter_map(|line| line.code).collect()
    }

    #[test]
    fn an_available_registration_of_lagwise_passes() {
        let lines = check_registration(&facts());
        assert!(lines.iter().all(|line| line.status == CheckStatus::Passed));
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn unavailability_is_explained_by_its_cause() {
        for (reason, message, code) in [
            (
                "MissingEndpoints",
                "endpoints for service/lagwise have no addresses",
                "api_no_endpoints",
            ),
            (
                "ServiceNotFound",
                "service/lagwise is not present",
                "api_no_endpoints",
            ),
            (
                "FailedDiscoveryCheck",
                "Get \"https://10.0.0.1:6443\": context deadline exceeded",
                "api_unreachable",
            ),
            (
                "FailedDiscoveryCheck",
                "dial tcp 10.0.0.1:6443: connect: connection refused",
                "api_unreachable",
            ),
            (
                "FailedDiscoveryCheck",
                "dial tcp 10.0.0.1:6443: connect: no route to host",
                "api_unreachable",
            ),
            (
                "FailedDiscoveryCheck",
                "tls: failed to verify certificate: x509: signed by unknown authority",
                "api_untrusted",
            ),
            (
                "FailedDiscoveryCheck",
                "bad status from https://10.0.0.1:6443: 503",
                "api_failing",
            ),
        ] {
            let facts = RegistrationFacts {
                registered: Ok(Some(registered(
                    "lagwise",
                    "lagwise",
                    Some((reason, message)),
                ))),
                ..facts()
            };
            assert_eq!(codes(&facts), [code], "{message}");
        }
        let mut unknown = registered("lagwise", "lagwise", None);
        unknown.availability = None;
        let unknown = RegistrationFacts {
            registered: Ok(Some(unknown)),
            ..facts()
        };
        assert_eq!(codes(&unknown), ["api_no_endpoints"]);
    }

    #[test]
    fn other_owners_are_named() {
        for (namespace, service, owner) in [
            ("keda", "keda-operator-metrics-apiserver", "KEDA"),
            (
                "datadog",
                "datadog-cluster-agent-metrics-api",
                "the Datadog cluster agent",
            ),
            ("monitoring", "prometheus-adapter", "prometheus-adapter"),
            ("else", "lagwise", "another program"),
        ] {
            for is_before_install in [false, true] {
                let facts = RegistrationFacts {
                    is_before_install,
                    registered: Ok(Some(registered(namespace, service, None))),
                    ..facts()
                };
                let lines = check_registration(&facts);
                assert_eq!(codes(&facts), ["slot_taken"]);
                let message = &lines[0].message;
                let expected = format!("{owner} (Service {namespace}/{service})");
                assert!(message.ends_with(&expected), "{message}");
            }
        }
        // From outside of the cluster the namespace of lagwise may not be known.
        let outside = RegistrationFacts {
            namespace: None,
            registered: Ok(Some(registered("else", "lagwise", None))),
            ..facts()
        };
        assert_eq!(codes(&outside), [""; 0]);
    }

    #[test]
    fn another_owner_of_the_registration_is_allowed_if_lagwise_does_not_use_it() {
        let left = RegistrationFacts {
            leaves_slot: true,
            registered: Ok(Some(registered(
                "keda",
                "keda-operator-metrics-apiserver",
                None,
            ))),
            ..facts()
        };
        assert_eq!(codes(&left), [""; 0]);
        let message = &check_registration(&left)[0].message;
        assert!(message.contains("belong to KEDA"), "{message}");
    }

    #[test]
    fn a_missing_registration_is_allowed_before_the_installation_only() {
        let free = |is_before_install| RegistrationFacts {
            is_before_install,
            registered: Ok(None),
            ..facts()
        };
        assert_eq!(codes(&free(true)), [""; 0]);
        assert_eq!(codes(&free(false)), ["slot_unregistered"]);
    }

    #[test]
    fn without_the_right_to_read_the_registration_the_answer_counts() {
        let unread = |answer: Result<(), String>| RegistrationFacts {
            registered: Err("forbidden".into()),
            answer,
            ..facts()
        };
        assert_eq!(codes(&unread(Ok(()))), ["kubernetes_unread"]);
        let failing = unread(Err("503".into()));
        assert_eq!(codes(&failing), ["kubernetes_unread", "api_failing"]);
    }
}
