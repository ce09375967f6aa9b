use clap::Parser;

use super::*;

#[derive(Parser)]
struct CheckCli {
    #[command(flatten)]
    check: PreflightArgs,
}

fn parsed(args: &[&str]) -> Result<PreflightArgs, clap::Error> {
    let args = [&["check"], args].concat();
    CheckCli::try_parse_from(args).map(|cli| cli.check)
}

fn lines() -> Vec<CheckLine> {
    let mut lines = check_configuration(&ConfigurationFacts {
        clusters: 1,
        targets: 0,
        insecure: [].into(),
        findings: Some([].into()),
    });
    let failed = PreflightProblem::KafkaLoginRefused;
    let section = "Kafka cluster main";
    let reason = "b-1:9094: Authentication failed\u{1b}[2J";
    lines.push(CheckLine::problem(section, "login", failed, reason));
    let warning = PreflightProblem::NoHpas;
    let message = "3 HPAs, none with a metric of lagwise";
    lines.push(CheckLine::problem("Kubernetes", "HPAs", warning, message));
    lines
}

#[test]
fn each_line_has_its_remedy_and_page() {
    insta::assert_snapshot!(render(&lines(), None, false));
}

#[test]
fn the_slot_is_left_to_others_with_every_kind_of_certificate() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let file = file.path().display();
    let tls = format!("tls: {{cert_file: {file}, key_file: {file}}}");
    let cluster = "clusters: [{name: main, properties: {bootstrap.servers: 'k:9092'}}]";
    for (more, expected) in [
        ("server: {external_metrics: {ca_bundle: false}}", true),
        (
            &*format!("server: {{external_metrics: {{ca_bundle: false, {tls}}}}}"),
            true,
        ),
        (
            &format!("server: {{external_metrics: {{ca_bundle: true, {tls}}}}}"),
            false,
        ),
        (&format!("server: {{external_metrics: {{{tls}}}}}"), false),
        ("", false),
        ("kubernetes: {mode: observe}", true),
        (
            "server: {external_scaler: {listen: '0.0.0.0:9443', auth: none}}",
            true,
        ),
    ] {
        let config = Config::parse(&format!("{cluster}\n{more}"), &SystemEnvironment).unwrap();
        assert_eq!(leaves_slot(&config), expected, "{more}");
    }
}

#[test]
fn links_begin_with_the_given_address() {
    let text = render(&lines(), Some("https://docs.example/lagwise/"), false);
    let expected = "see https://docs.example/lagwise/guides/kafka-logins.html#test-a-login";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn colors_are_only_in_signs() {
    let text = render(&lines(), None, true);
    assert!(text.contains("\x1b[31m×\x1b[0m login"), "{text}");
    // Text of a broker cannot add escape sequences.
    assert!(!text.contains("\x1b[2J"), "{text}");
}

#[test]
fn json_has_a_code_and_a_status_for_each_line() {
    let json = Output::Json.serialize(&lines()).unwrap().unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let login = &json[3];
    assert_eq!(login["status"], "failed");
    assert_eq!(login["code"], "kafka_login_refused");
    assert_eq!(json[0]["status"], "passed");
    assert!(json[0]["code"].is_null());
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_fails() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lagwise.yaml");
    std::fs::write(&file, "clusters: []").unwrap();
    let args = parsed(&["--config", file.to_str().unwrap()]).unwrap();
    let lines = check_file(&args).await;
    assert_eq!(lines[0].code, Some("config_invalid"));
    assert_eq!(run(args).await.unwrap(), ExitCode::FAILURE);
}

#[tokio::test]
async fn checks_kubernetes_although_kafka_does_not_answer() {
    let kubeconfig = tempfile::NamedTempFile::new().unwrap();
    let kubeconfig = kubeconfig.path().display();
    // No server listens on port 1, and the kubeconfig has no cluster.
    let text = format!(
        "clusters: [{{name: main, properties: {{bootstrap.servers: '127.0.0.1:1'}}}}]\n\
         kubernetes: {{kubeconfig: {kubeconfig}}}"
    );
    let config = Config::parse(&text, &SystemEnvironment).unwrap();
    let args = parsed(&["--timeout", "1s"]).unwrap();
    let lines = check_all(&args, &config).await;
    let codes: Vec<_> = lines.iter().filter_map(|line| line.code).collect();
    assert_eq!(codes, ["kafka_unreachable", "kubernetes_no_client"]);
}

#[tokio::test]
async fn an_api_server_that_does_not_answer_is_one_problem() {
    let kubeconfig = tempfile::NamedTempFile::new().unwrap();
    // Nobody listens on port 1.
    let server = "apiVersion: v1\nkind: Config\ncurrent-context: here\n\
                  contexts: [{name: here, context: {cluster: here, user: me}}]\n\
                  clusters: [{name: here, cluster: {server: 'https://127.0.0.1:1'}}]\n\
                  users: [{name: me, user: {token: none}}]\n";
    std::fs::write(kubeconfig.path(), server).unwrap();
    let text = format!(
        "clusters: [{{name: main, properties: {{bootstrap.servers: '127.0.0.1:1'}}}}]\n\
         kubernetes: {{kubeconfig: {}}}",
        kubeconfig.path().display()
    );
    let config = Config::parse(&text, &SystemEnvironment).unwrap();
    let args = parsed(&["--timeout", "1s"]).unwrap();
    let lines = check_all(&args, &config).await;
    let codes: Vec<_> = lines.iter().filter_map(|line| line.code).collect();
    assert_eq!(codes, ["kafka_unreachable", "kubernetes_unreachable"]);
}

#[test]
fn parses_arguments() {
    let args = parsed(&["--pre", "-g", "orders", "-n", "lagwise"]).unwrap();
    assert!(args.pre);
    assert_eq!(args.group, ["orders"]);
    assert!(parsed(&["--timeout", "soon"]).is_err());
    assert!(parsed(&["--pre", "extra"]).is_err());
}

#[test]
fn renders_the_example_of_the_guide() {
    use crate::model::decisions::cap::FieldOwner;
    use crate::model::diagnostics::kafka_service::KafkaAccess;
    use crate::model::diagnostics::preflight::kafka::{
        ApiSupport, BrokerProbe, BrokerSession, ClientFacts, KafkaFacts, ListedGroups, PollCost,
        SaslLogin, TlsSession,
    };
    use crate::model::diagnostics::preflight::kubernetes::HpaCounts;
    use crate::model::diagnostics::preflight::rights::DaemonScope;
    use crate::model::fixtures::read;
    use crate::model::kafka::group::{GroupDescription, GroupKind, GroupState};
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let mut observation = read(
        Duration::ZERO,
        "billing",
        "orders",
        &[(0, Ok(Some(5)), Ok(9))],
    );
    let empty = GroupDescription::memberless(GroupKind::Classic, GroupState::Empty);
    observation.groups[0].description = Ok(Arc::new(empty));
    let kafka = KafkaFacts {
        cluster: "main".into(),
        access: KafkaAccess::new("kafka.kafka.svc:9093", false, Some("lagwise")),
        client: Ok(ClientFacts {
            is_wire: true,
            reasons: Vec::new(),
        }),
        client_certificate: None,
        bootstrap: vec![BrokerProbe {
            address: "kafka.kafka.svc:9093".into(),
            outcome: Ok(BrokerSession {
                login: Some(SaslLogin {
                    mechanism: "SCRAM-SHA-512",
                    name: "lagwise".into(),
                }),
                tls: Some(TlsSession {
                    is_verified: true,
                    expires: Some(now + Duration::from_secs(89 * 24 * 3600)),
                }),
                apis: vec![ApiSupport {
                    name: "OffsetFetch",
                    version: Some(9),
                    is_needed: true,
                }],
            }),
        }],
        listed: Some(ListedGroups {
            count: 14,
            faults: Vec::new(),
            connection: None,
        }),
        observation: Some(observation),
        is_sample: false,
        cost: Some(PollCost {
            requests: 3,
            connections: 3,
        }),
        interval: Duration::from_secs(5),
    };
    let rights = install_rights(&DaemonScope {
        own: "lagwise".into(),
        ..DaemonScope::default()
    });
    let kubernetes = KubernetesFacts {
        is_before_install: true,
        version: "1.36".parse().unwrap(),
        account: Some("admin".into()),
        rights: rights.into_iter().map(|right| (right, Ok(true))).collect(),
        enforces: false,
        policy: Ok(FieldOwner::Lagwise),
        hpas: Ok(HpaCounts { all: 3, lagwise: 0 }),
        monitors: vec!["PodMonitor".into(), "ServiceMonitor".into()],
    };
    let registration = RegistrationFacts {
        is_before_install: true,
        leaves_slot: false,
        service: "lagwise".into(),
        namespace: Some("lagwise".into()),
        registered: Ok(Some(
            crate::model::diagnostics::preflight::registration::RegisteredApi {
                namespace: "keda".into(),
                service: "keda-operator-metrics-apiserver".into(),
                availability: None,
            },
        )),
        answer: Ok(()),
    };
    let mut lines = check_configuration(&ConfigurationFacts {
        clusters: 1,
        targets: 0,
        insecure: [].into(),
        findings: Some([].into()),
    });
    lines.extend(check_kafka(&kafka, now));
    lines.extend(check_kubernetes(&kubernetes));
    lines.extend(check_registration(&registration));
    lines.extend(check_objects(&kubernetes));
    insta::assert_snapshot!(render(&lines, None, false));
}
