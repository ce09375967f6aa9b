//! The scope of the daemon's access to Kubernetes, for `lagwise check`.

use super::{certificate, leader, state_store, writers};
use crate::config::{AuthMode, Config};
use crate::k8s::preflight::{api_service_name, cap_policy_name};
use crate::model::diagnostics::preflight::rights::DaemonScope;

/// The scope of a daemon that runs in a pod of the namespace `own`. `scaled` are the resources of the group `apps` that
/// lagwise is to scale to zero.
pub(crate) fn daemon_scope(config: &Config, own: &str, scaled: Vec<&'static str>) -> DaemonScope {
    let external = &config.server.external_metrics;
    let named =
        |name: &Option<String>, default: &str| name.clone().unwrap_or_else(|| default.to_owned());
    let observes = config.kubernetes.observes();
    let has_secret = external.tls.is_none() && !observes;
    let modes = [external.auth, config.server.metrics.auth];
    let writes = !config.cap.read_only && !observes;
    let (enforce, zero) = (&config.cap.enforce, &config.scale_to_zero);
    DaemonScope {
        own: own.to_owned(),
        watched: config.kubernetes.namespaces.clone(),
        enforced: (enforce.enabled && writes).then(|| enforce.namespaces.clone()),
        zeroed: (zero.enabled && writes).then(|| zero.namespaces.clone()),
        scaled,
        observes,
        lease: (!observes).then(|| named(&config.leader.lease, leader::LEASE_NAME)),
        state: match config.state.file {
            Some(_) => None,
            None if observes => None,
            None => Some(named(
                &config.state.config_map,
                state_store::STATE_CONFIG_MAP,
            )),
        },
        ledger: named(&zero.config_map, writers::LEDGER_CONFIG_MAP),
        certificate: has_secret.then(|| named(&external.secret, certificate::SECRET)),
        registration: (has_secret && external.ca_bundle).then(api_service_name),
        policy: cap_policy_name(),
        reviews: !observes && modes.contains(&AuthMode::Kubernetes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SystemEnvironment;

    fn scope(more: &str) -> DaemonScope {
        let text = format!(
            "clusters: [{{name: main, properties: {{bootstrap.servers: 'k:9092'}}}}]\n{more}"
        );
        let config = Config::parse(&text, &SystemEnvironment).unwrap();
        daemon_scope(&config, "lagwise", Vec::new())
    }

    #[test]
    fn names_are_those_of_a_daemon_in_a_pod() {
        let scope = scope("");
        assert_eq!(scope.lease.as_deref(), Some("lagwise"));
        assert_eq!(scope.state.as_deref(), Some("lagwise-state"));
        assert_eq!(scope.certificate.as_deref(), Some("lagwise-tls"));
        assert!(scope.registration.is_some() && scope.reviews);
    }

    #[test]
    fn a_daemon_that_only_reads_writes_nowhere() {
        let modes = "cap: {enforce: {enabled: true}}\nscale_to_zero: {enabled: true}";
        let both = scope(modes);
        assert!(both.enforced.is_some() && both.zeroed.is_some());
        let modes =
            "cap: {read_only: true, enforce: {enabled: true}}\nscale_to_zero: {enabled: true}";
        let none = scope(modes);
        assert!(none.enforced.is_none() && none.zeroed.is_none());
    }

    #[test]
    fn a_daemon_that_observes_needs_no_objects() {
        let modes = "kubernetes: {mode: observe}\nscale_to_zero: {enabled: true}";
        let scope = scope(modes);
        assert!(scope.observes && scope.lease.is_none() && scope.state.is_none());
        assert!(scope.certificate.is_none() && scope.registration.is_none() && !scope.reviews);
        assert!(scope.enforced.is_none() && scope.zeroed.is_none());
    }

    #[test]
    fn files_replace_objects_of_the_cluster() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let file = file.path().display();
        let scope = scope(&format!(
            "state: {{file: /var/lib/lagwise/state}}\n\
             server: {{external_metrics: {{tls: {{cert_file: {file}, key_file: {file}}}}}}}"
        ));
        assert!(scope.state.is_none() && scope.certificate.is_none());
        assert!(scope.registration.is_none());
    }
}
