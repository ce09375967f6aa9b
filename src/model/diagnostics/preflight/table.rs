//! The table of problems that `lagwise check` can report: for each its code, whether it is a failure, the remedy, and
//! the page of the documentation.

use super::CheckStatus;

macro_rules! preflight_problems {
    ($($name:ident $code:literal $status:ident $remedy:literal $page:literal)*) => {
        /// A problem that `lagwise check` can report.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum PreflightProblem {
            $(#[doc = $code] $name,)*
        }

        impl PreflightProblem {
            pub const ALL: &'static [PreflightProblem] = &[$(PreflightProblem::$name,)*];

            /// Stable name, for machines.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self {
                    $(PreflightProblem::$name => $code,)*
                }
            }

            #[must_use]
            pub fn status(self) -> CheckStatus {
                match self {
                    $(PreflightProblem::$name => CheckStatus::$status,)*
                }
            }

            /// What to do.
            #[must_use]
            pub fn remedy(self) -> &'static str {
                match self {
                    $(PreflightProblem::$name => $remedy,)*
                }
            }

            /// The page of the documentation, relative to its start.
            #[must_use]
            pub fn page(self) -> &'static str {
                match self {
                    $(PreflightProblem::$name => $page,)*
                }
            }
        }
    };
}

preflight_problems! {
    ConfigInvalid "config_invalid" Failed
        "Correct the configuration file; lagwise config check lists all problems."
        "reference/configuration.html"
    ConfigInsecure "config_insecure" Warning
        "Encrypt the connection, or close the file to other users; lagwise config check says which."
        "guides/security.html#insecure-settings"
    LintFindings "lint_findings" Warning
        "Run lagwise lint with the same configuration; it explains each finding and how to fix it."
        "reference/findings.html"
    KafkaClientRefused "kafka_client_refused" Failed
        "Correct the properties of the cluster in the configuration."
        "guides/kafka-logins.html"
    KafkaNameUnresolved "kafka_name_unresolved" Failed
        "Correct the host in bootstrap.servers, or let the DNS of lagwise's pods resolve it."
        "guides/troubleshooting.html#messages-of-kafka"
    KafkaUnreachable "kafka_unreachable" Failed
        "Check host, port and security.protocol, and that firewalls, security groups and NetworkPolicies let lagwise connect."
        "guides/troubleshooting.html#messages-of-kafka"
    KafkaHostNotAllowed "kafka_host_not_allowed" Failed
        "Add the host to allowed_broker_hosts if it is one of your brokers."
        "guides/kafka-logins.html#keep-the-login-with-your-brokers"
    KafkaTlsFailed "kafka_tls_failed" Failed
        "Set security.protocol to that of the listener, and ssl.ca.location to the CA of the brokers."
        "guides/kafka-logins.html#tls-and-client-certificates"
    KafkaLoginRefused "kafka_login_refused" Failed
        "Correct the login in the properties or the token source of the cluster."
        "guides/kafka-logins.html#test-a-login"
    KafkaBrokerUnreachable "kafka_broker_unreachable" Failed
        "Make this broker reachable from lagwise's pods; the lag of its partitions and groups is unknown meanwhile."
        "guides/troubleshooting.html#some-brokers-cannot-be-reached"
    KafkaBootstrapUnreachable "kafka_bootstrap_unreachable" Warning
        "Remove this address from bootstrap.servers, or start the broker."
        "guides/troubleshooting.html#some-brokers-cannot-be-reached"
    KafkaCertificateExpiring "kafka_certificate_expiring" Warning
        "Renew the certificate of the broker, or of its issuer, before it expires."
        "guides/kafka-logins.html#tls-and-client-certificates"
    KafkaClientCertificateExpiring "kafka_client_certificate_expiring" Warning
        "Renew the certificate in ssl.certificate.location before it expires; lagwise reads a changed file without a restart."
        "guides/kafka-logins.html#tls-and-client-certificates"
    KafkaApiMissing "kafka_api_missing" Failed
        "Connect to a broker that supports these requests."
        "compatibility.html#kafka"
    KafkaRequestPerGroup "kafka_request_per_group" Warning
        "Upgrade the brokers to Kafka 3.0 or newer; until then each group costs a request in every poll."
        "compatibility.html#kafka"
    KafkaGroupsUnlisted "kafka_groups_unlisted" Warning
        "Without Describe on the cluster lagwise cannot list groups, which it needs for suggestions only."
        "guides/kafka-logins.html#rights-in-kafka"
    KafkaListFailed "kafka_list_failed" Warning
        "Look the message up, and check again; lagwise needs the list of groups for suggestions only."
        "guides/troubleshooting.html#messages-of-kafka"
    KafkaNothingProven "kafka_nothing_proven" Warning
        "Name a group for lagwise to read: --group GROUP, a target in the configuration, or an HPA."
        "guides/scale-on-lag.html"
    KafkaGroupDenied "kafka_group_denied" Failed
        "Allow Describe on the group to the login of lagwise."
        "guides/kafka-logins.html#rights-in-kafka"
    KafkaTopicDenied "kafka_topic_denied" Failed
        "Allow Describe on the topic to the login of lagwise."
        "guides/kafka-logins.html#rights-in-kafka"
    KafkaTopicMissing "kafka_topic_missing" Warning
        "Create the topic, or correct its name in the HPA or the target."
        "guides/scale-on-lag.html"
    KafkaTooManyGroups "kafka_too_many_groups" Failed
        "Raise max_groups of the cluster, or use a login that lagwise's own client supports."
        "guides/several-clusters.html#choose-the-kafka-client"
    KafkaUnread "kafka_unread" Failed
        "Look the message up, and check again."
        "guides/troubleshooting.html#messages-of-kafka"
    KubernetesNoClient "kubernetes_no_client" Failed
        "Name the cluster: --kubeconfig and --context, or kubernetes.kubeconfig in the configuration."
        "reference/configuration.html#kubernetes"
    KubernetesUnreachable "kubernetes_unreachable" Failed
        "Check that kubectl version reaches the API server with the same kubeconfig."
        "guides/troubleshooting.html"
    KubernetesTooOld "kubernetes_too_old" Failed
        "Upgrade the cluster to Kubernetes 1.29 or newer."
        "compatibility.html#kubernetes"
    KubernetesUnread "kubernetes_unread" Warning
        "Run the check as a user with the right to read it."
        "guides/security.html#what-lagwise-may-do-in-kubernetes"
    RightMissing "right_missing" Failed
        "Let the chart grant it: helm upgrade with rbac.create=true and the same configuration."
        "guides/security.html#what-lagwise-may-do-in-kubernetes"
    InstallRightMissing "install_right_missing" Failed
        "Install as a user with this right, such as an administrator of the cluster."
        "install.html#what-the-chart-grants"
    PolicyMissing "policy_missing" Warning
        "Let the chart install the admission policy: helm upgrade with enforce.enabled=true."
        "guides/cap.html#allow-it"
    SlotTaken "slot_taken" Failed
        "Decide who serves external metrics: remove the owner first, let lagwise replace it and pass its metrics on, or install lagwise with apiService.create=false."
        "install.html#the-slot-for-external-metrics"
    SlotUnregistered "slot_unregistered" Warning
        "If HPAs are to scale on lagwise, register it: helm upgrade with apiService.create=true."
        "install.html#the-slot-for-external-metrics"
    ApiNoEndpoints "api_no_endpoints" Failed
        "Make the pods of lagwise ready: kubectl get pods shows their state, and kubectl logs the reason."
        "guides/troubleshooting.html#the-apiservice-is-not-available"
    ApiUnreachable "api_unreachable" Failed
        "Let the API server reach port 6443 of the pods: on EKS by the security group of the nodes, with an overlay network by hostNetwork=true, with NetworkPolicies by networkPolicy.apiFrom."
        "guides/troubleshooting.html#the-apiservice-is-not-available"
    ApiUntrusted "api_untrusted" Failed
        "Let caBundle of the APIService trust the certificate: tls.type of the chart says who writes it."
        "install.html#the-certificate-of-the-api"
    ApiFailing "api_failing" Failed
        "Look the message up, and read the log of the leader."
        "guides/troubleshooting.html#the-apiservice-is-not-available"
    NoHpas "no_hpas" Warning
        "Write an HPA with the external metric kafka_lag."
        "guides/scale-on-lag.html#2-write-the-hpa"
}
