//! The aggregated API with the real API server: access, responses, and behaviour under load and when certificates and
//! rights change.

mod access;
mod callers;
mod certificates;
mod faults;
mod flood_measurement;
mod floods;
mod many_clients;
mod matrix;
mod page;
mod page_crowd;
mod paths;
mod random;
mod scrapers;
mod secrets;
mod shared;
mod soak;
mod unauthorized;
mod upstream;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::Test;
use crate::daemon::{Daemon, Options, metric_path};
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::kubernetes::RegisteredApi;
use crate::testbed::poll::poll_until;
use crate::testbed::{Testbed, unique};

pub(crate) use callers::client;

pub(crate) const CASES: &[(&str, Test)] = &[
    (
        "api::every_caller_on_every_path",
        matrix::every_caller_on_every_path,
    ),
    (
        "api::every_path_of_the_contract",
        paths::every_path_of_the_contract,
    ),
    ("api::random_requests", random::random_requests),
    (
        "api::kubectl_and_namespace_deletion_work",
        paths::kubectl_and_namespace_deletion_work,
    ),
    (
        "api::a_shared_certificate_is_renewed_while_clients_connect",
        shared::is_renewed_under_readers,
    ),
    (
        "api::admin_endpoints_by_a_port_forward",
        access::admin_endpoints_by_a_port_forward,
    ),
    ("api::the_page_in_a_browser", page::in_a_browser),
    (
        "api::metrics_with_authorization",
        access::metrics_with_authorization,
    ),
    (
        "api::unauthorized_clients_do_not_block_the_front_proxy",
        unauthorized::unauthorized_clients_do_not_block_the_front_proxy,
    ),
    (
        "api::unauthorized_clients_on_random_paths_do_not_delay_others",
        unauthorized::unauthorized_clients_on_random_paths_do_not_delay_others,
    ),
    (
        "api::rights_are_revoked_and_granted_again",
        faults::rights_are_revoked_and_granted_again,
    ),
    (
        "api::a_new_authority_is_trusted_without_restart",
        faults::a_new_authority_is_trusted_without_restart,
    ),
    (
        "api::errors_of_the_api_server_are_tolerated",
        upstream::errors_of_the_api_server_are_tolerated,
    ),
    (
        "api::watches_are_cut_and_rights_are_revoked",
        upstream::watches_are_cut_and_rights_are_revoked,
    ),
    (
        "api::a_silent_network_is_tolerated",
        upstream::a_silent_network_is_tolerated,
    ),
    (
        "api::the_api_server_is_restarted",
        upstream::the_api_server_is_restarted,
    ),
    (
        "api::no_secret_is_written_anywhere",
        secrets::none_is_written_anywhere,
    ),
];

/// Scenarios of a daemon without Kubernetes.
pub(crate) const ALONE: &[(&str, Test)] = &[
    (
        "api::certificates_are_replaced_while_clients_connect",
        certificates::certificates_are_replaced_while_clients_connect,
    ),
    (
        "api::probes_answer_despite_idle_connections",
        scrapers::probes_answer_despite_idle_connections,
    ),
    (
        "api::probes_answer_despite_unfinished_requests",
        scrapers::probes_answer_despite_unfinished_requests,
    ),
    (
        "api::pages_of_all_namespaces_are_not_public",
        scrapers::pages_of_all_namespaces_are_not_public,
    ),
];

/// Long scenarios, and load tests that must not run in parallel with others.
pub(crate) const LONG: &[(&str, Test)] = &[
    ("api::scrapers_that_do_not_read", scrapers::that_do_not_read),
    (
        "api::unauthorized_clients_in_random_namespaces_do_not_delay_others",
        unauthorized::unauthorized_clients_in_random_namespaces_do_not_delay_others,
    ),
    (
        "api::floods_of_tokens_leave_reviews_to_others",
        floods::floods_of_tokens_leave_reviews_to_others,
    ),
    (
        "api::many_clients_do_not_delay_another_one",
        many_clients::many_clients_do_not_delay_another_one,
    ),
    ("api::scrapers_that_never_rest", scrapers::that_never_rest),
    (
        "api::floods_of_handshakes_do_not_delay_others",
        floods::floods_of_handshakes_do_not_delay_others,
    ),
    ("api::the_page_of_a_thousand_hpas", page_crowd::in_a_browser),
    ("api::scrapers_that_trickle", scrapers::that_trickle),
    ("api::soak_with_churn", soak::with_churn),
    (
        "api::a_silent_watch_is_ended",
        upstream::a_silent_watch_is_ended,
    ),
    (
        "api::unauthorized_clients_do_not_block_the_api_server",
        unauthorized::unauthorized_clients_do_not_block_the_api_server,
    ),
];

/// The base of the API.
const BASE: &str = "/apis/external.metrics.k8s.io/v1beta1";

/// A registered daemon, a group with a lag of 7, and two namespaces. In the first, the service account `reader` may
/// list
/// `kafka_lag`, and `stranger` may not.
struct Scene<'a> {
    plane: &'a ControlPlane,
    // Unregistered before the daemon ends.
    _api: RegisteredApi<'a>,
    daemon: Daemon,
    namespace: String,
    other: String,
    group: String,
    topic: String,
}

impl<'a> Scene<'a> {
    fn set(testbed: &'a Testbed, more: impl FnOnce(&mut Options)) -> Result<Self> {
        Self::set_by(testbed, more, Ok)
    }

    /// Like [`Self::set`], with a kubeconfig for the daemon that is derived from its own.
    fn set_by(
        testbed: &'a Testbed,
        more: impl FnOnce(&mut Options),
        kubeconfig: impl FnOnce(PathBuf) -> Result<PathBuf>,
    ) -> Result<Self> {
        let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
        let (topic, group) = (unique("orders"), unique("billing"));
        kafka.create_topic(&topic, 2)?;
        kafka.produce(&topic, 0, 9)?;
        kafka.commit(&group, &topic, &[(0, 2), (1, 0)])?;
        let (namespace, other) = (plane.namespace("shop")?, plane.namespace("other")?);
        for account in ["reader", "stranger"] {
            plane.kubectl(&[
                "create",
                "serviceaccount",
                account,
                "--namespace",
                &namespace,
            ])?;
        }
        let role = serde_json::json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": "lag-reader"},
            "rules": [{
                "apiGroups": ["external.metrics.k8s.io"], "resources": ["kafka_lag"], "verbs": ["list"],
            }],
        });
        plane.apply(&namespace, &role.to_string())?;
        plane.kubectl(&[
            "create",
            "rolebinding",
            "lag-reader",
            "--namespace",
            &namespace,
            "--role=lag-reader",
            &format!("--serviceaccount={namespace}:reader"),
        ])?;
        let mut options = Options::main(&kafka.bootstrap());
        more(&mut options);
        if !options.leader["lease"].is_null() {
            crate::leader::allow(plane, &namespace)?;
        }
        let kubeconfig = kubeconfig(plane.daemon_kubeconfig(&namespace)?)?;
        let (daemon, api) =
            Daemon::registered_by(testbed, plane, &namespace, &options, &kubeconfig)?;
        let scene = Self {
            plane,
            daemon,
            _api: api,
            namespace,
            other,
            group,
            topic,
        };
        poll_until(Duration::from_secs(60), "the lag to be served", || {
            let body = plane.get_raw(&scene.metric(&scene.namespace))?;
            ensure!(crate::daemon::value_of(&body)? == 7, "{body}");
            Ok(())
        })?;
        Ok(scene)
    }

    /// The path of the group's lag for requests of that namespace.
    fn metric(&self, namespace: &str) -> String {
        metric_path(
            namespace,
            &format!("cluster=main,group={},topic={}", self.group, self.topic),
        )
    }

    /// A token of a service account of the scene's namespace.
    fn token(&self, account: &str) -> Result<String> {
        let token =
            self.plane
                .kubectl(&["create", "token", account, "--namespace", &self.namespace])?;
        Ok(token.trim().to_owned())
    }

    /// The address of a path at the API server.
    fn through(&self, path: &str) -> String {
        format!("{}{path}", self.plane.server)
    }
}
