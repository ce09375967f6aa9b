//! `lagwise check` on a real Kafka and a real control plane: correct setups pass, and problems are named.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Test;
use crate::chart::Installed;
use crate::testbed::adapter::Adapter;
use crate::testbed::broker::SASL_PASSWORD;
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::kubernetes::{EXTERNAL_METRICS_API, external_metrics_api};
use crate::testbed::pki::Authority;
use crate::testbed::poll::poll_until;
use crate::testbed::ports::free_port;
use crate::testbed::secured::READER;
use crate::testbed::{Testbed, unique};

/// The scenarios with a Kubernetes cluster.
pub(crate) const CASES: &[(&str, Test)] = &[(
    "check::before_and_after_the_installation",
    before_and_after_the_installation,
)];

/// Scenarios with Kafka alone.
pub(crate) const KAFKA: &[(&str, Test)] = &[
    (
        "check::logins_and_rights_in_kafka_are_proven",
        logins_and_rights_in_kafka_are_proven,
    ),
    (
        "check::each_stage_of_a_connection_is_named",
        each_stage_of_a_connection_is_named,
    ),
    (
        "check::a_secret_in_the_place_of_a_path_is_not_shown",
        a_secret_in_the_place_of_a_path_is_not_shown,
    ),
];

/// Timeout of each wait for an expected state.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// The lines of `lagwise check -o json`, and whether it succeeded.
fn check(testbed: &Testbed, config: &Value, more: &[&str]) -> Result<(Vec<Value>, bool)> {
    let file = testbed.folder("check")?.join("lagwise.json");
    std::fs::write(&file, config.to_string())?;
    let file = file.to_string_lossy();
    let args = [&["check", "--config", &*file, "-o", "json"][..], more].concat();
    let output = testbed.lagwise(&args).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = serde_json::from_str(&text);
    let lines =
        lines.with_context(|| format!("{text} {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok((lines, output.status.success()))
}

/// The problems, as `CHECK: CODE`, without those of lint, whose findings depend on the HPAs of other
/// scenarios, and of settings that are insecure here.
fn problems(lines: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let found = lines.iter().filter(|line| {
        let is_left_out = ["lint", "HPAs", "security"]
            .iter()
            .any(|check| line["check"] == *check);
        !line["code"].is_null() && !is_left_out
    });
    found
        .map(|line| format!("{}: {}", text(&line["check"]), text(&line["code"])))
        .collect()
}

fn logins_and_rights_in_kafka_are_proven(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.secured_kafka()?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, 2)?;
    kafka.commit(&group, &topic, &[(0, 0), (1, 0)])?;
    let config = |password: &str, topics: &[&str]| {
        json!({
            "clusters": [{"name": "main", "properties": {
                "bootstrap.servers": kafka.sasl_bootstrap(),
                "security.protocol": "SASL_PLAINTEXT",
                "sasl.mechanism": "PLAIN",
                "sasl.username": READER,
                "sasl.password": password,
            }}],
            "targets": [{"name": "billing", "group": group, "topics": topics}],
            "kubernetes": {"enabled": false},
            "server": {"external_metrics": {
                "listen": format!("127.0.0.1:{}", free_port().unwrap_or(1)),
                "auth": "none",
            }},
        })
    };
    let expect = |password: &str, topics: &[&str], expected: &[&str]| {
        let (lines, succeeded) = check(testbed, &config(password, topics), &[])?;
        let found = problems(&lines);
        ensure!(found == expected, "{found:?} {lines:#?}");
        ensure!(succeeded == expected.is_empty(), "{lines:#?}");
        Ok(lines)
    };
    let refused = expect(
        "not-the-password",
        &[&topic],
        &["login: kafka_login_refused"],
    )?;
    let line = refused.last().context("no line")?;
    let message = line["message"].as_str().unwrap_or_default();
    ensure!(message.contains("Authentication failed"), "{line}");
    expect(
        SASL_PASSWORD,
        &[&topic],
        &[
            "describe groups: kafka_group_denied",
            "fetch offsets: kafka_group_denied",
        ],
    )?;
    kafka.allow_describe(&[], &[&group])?;
    expect(
        SASL_PASSWORD,
        &[&topic],
        &["describe topics: kafka_topic_denied"],
    )?;
    kafka.allow_describe(&[&topic], &[&group])?;
    let passed = expect(SASL_PASSWORD, &[&topic], &[])?;
    for right in [
        "describe groups",
        "fetch offsets",
        "describe topics",
        "list offsets",
    ] {
        let is_proven = passed
            .iter()
            .any(|line| line["check"] == right && line["status"] == "passed");
        ensure!(is_proven, "{right} is not proven: {passed:#?}");
    }
    // What is insecure is said, and is no failure.
    let security = passed.iter().filter(|line| line["check"] == "security");
    let warnings: Vec<_> = security
        .filter_map(|line| line["message"].as_str())
        .collect();
    for words in [
        "the password for Kafka cluster \"main\" is sent unencrypted",
        "to every host that a broker of Kafka cluster \"main\" advertises",
    ] {
        let is_said = warnings.iter().any(|warning| warning.contains(words));
        ensure!(is_said, "no {words:?} in {warnings:?}");
    }
    let cost = passed.iter().find(|line| line["check"] == "cost");
    let cost = cost.context("no cost")?["message"]
        .as_str()
        .unwrap_or_default();
    ensure!(
        cost.contains("over 1 connection in a poll of 1 group"),
        "{cost}"
    );
    // No server listens there.
    let mut unreachable = config(SASL_PASSWORD, &[&topic]);
    unreachable["clusters"][0]["properties"]["bootstrap.servers"] =
        json!(format!("127.0.0.1:{}", free_port()?));
    let (lines, _) = check(testbed, &unreachable, &["--timeout", "2s"])?;
    let found = problems(&lines);
    ensure!(
        found.contains(&"reach: kafka_unreachable".to_owned()),
        "{found:?}"
    );
    Ok(())
}

/// A mistake at each stage of a connection, and the line that names it.
fn each_stage_of_a_connection_is_named(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.secured_kafka()?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, 1)?;
    kafka.commit(&group, &topic, &[(0, 0)])?;
    let other = testbed.folder("check")?.join("other-ca.crt");
    std::fs::write(&other, &Authority::new("somebody else's CA")?.pem)?;
    let plain = kafka.bootstrap();
    let tls = |authority: &Path| {
        json!({
            "bootstrap.servers": kafka.ssl_bootstrap(),
            "security.protocol": "SSL",
            "ssl.ca.location": authority,
        })
    };
    let servers = |servers: &str| json!({"bootstrap.servers": servers});
    let some_down = format!("{plain},127.0.0.1:{}", free_port()?);
    let missing = unique("missing");
    for (properties, topic, hosts, expected, is_failure) in [
        (servers(&plain), &topic, json!([]), None, false),
        (tls(&kafka.ca_file()), &topic, json!([]), None, false),
        (
            tls(&other),
            &topic,
            json!([]),
            Some("tls: kafka_tls_failed"),
            true,
        ),
        (
            servers("no-such-host.invalid:9092"),
            &topic,
            json!([]),
            Some("reach: kafka_name_unresolved"),
            true,
        ),
        (
            servers(&some_down),
            &topic,
            json!([]),
            Some("reach: kafka_bootstrap_unreachable"),
            false,
        ),
        // The broker advertises its address by number.
        (
            servers(&plain.replace("127.0.0.1", "localhost")),
            &topic,
            json!(["*.example.com"]),
            Some("reach: kafka_host_not_allowed"),
            true,
        ),
        (
            servers(&plain),
            &missing,
            json!([]),
            Some("describe topics: kafka_topic_missing"),
            false,
        ),
    ] {
        let cluster =
            json!({"name": "main", "properties": properties, "allowed_broker_hosts": hosts});
        let config = json!({
            "clusters": [cluster],
            "targets": [{"name": "billing", "group": group, "topics": [topic]}],
            "kubernetes": {"enabled": false},
            "server": {"external_metrics": {"listen": "127.0.0.1:0", "auth": "none"}},
        });
        let (lines, succeeded) = check(testbed, &config, &["--timeout", "5s"])?;
        let found = problems(&lines);
        let is_named = expected.is_none_or(|expected| found.contains(&expected.to_owned()));
        ensure!(is_named, "no {expected:?}: {lines:#?}");
        ensure!(expected.is_some() || found.is_empty(), "{lines:#?}");
        ensure!(succeeded != is_failure, "{expected:?}: {lines:#?}");
        if expected.is_none() && cluster["properties"]["security.protocol"] == "SSL" {
            let tls = lines.iter().find(|line| line["check"] == "tls");
            let message = tls.context("no line about TLS")?["message"].as_str();
            let words = "are trusted; the first one expires in";
            ensure!(message.is_some_and(|m| m.contains(words)), "{message:?}");
        }
    }
    Ok(())
}

/// Secrets where the configuration wants the path of a file: neither the check nor the daemon shows them.
fn a_secret_in_the_place_of_a_path_is_not_shown(testbed: &Testbed) -> Result<()> {
    let login = |protocol: &str| {
        json!({
            "bootstrap.servers": "127.0.0.1:1",
            "security.protocol": protocol,
            "sasl.mechanism": "PLAIN",
            "sasl.username": READER,
            "sasl.password": SASL_PASSWORD,
        })
    };
    let file = testbed.folder("check")?.join("lagwise.json");
    let path = file.to_string_lossy();
    for secret in [
        "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJsYWcifQ.c2lnbmF0dXJl",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    ] {
        let mut password = json!({"name": "main", "properties": login("SASL_PLAINTEXT")});
        password["properties"]["sasl.password"] = json!(format!("${{file:{secret}}}"));
        let mut authority = json!({"name": "main", "properties": login("SASL_SSL")});
        authority["properties"]["ssl.ca.location"] = json!(secret);
        let token = json!({
            "name": "main",
            "token": {"file": {"path": secret}},
            "properties": {"bootstrap.servers": "127.0.0.1:1", "security.protocol": "SASL_SSL"},
        });
        for cluster in [password, authority, token] {
            let config = json!({
                "clusters": [cluster],
                "kubernetes": {"enabled": false},
                "server": {"external_metrics": {"listen": "127.0.0.1:0", "auth": "none"}},
            });
            std::fs::write(&file, config.to_string())?;
            for command in [["config", "check", &*path], ["run", "--config", &*path]] {
                let output = testbed.lagwise(&command).output()?;
                let text = [output.stdout, output.stderr].concat();
                let text = String::from_utf8_lossy(&text);
                ensure!(!output.status.success(), "{command:?}: {text}");
                ensure!(!text.contains(secret), "{command:?}: {text}");
                let is_explained = text.contains("not look like a path");
                ensure!(is_explained, "{command:?}: {text}");
            }
        }
    }
    Ok(())
}

/// Deletes the objects of the scenario.
struct Cleanup<'a>(&'a ControlPlane, &'a str);

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        let Self(plane, namespace) = self;
        let args = [
            "uninstall",
            "lagwise",
            "--no-hooks",
            "--ignore-not-found",
            "--namespace",
            namespace,
        ];
        let _ = plane.helm(&args);
        let _ = plane.kubectl(&[
            "delete",
            "apiservice",
            EXTERNAL_METRICS_API,
            "--ignore-not-found",
        ]);
    }
}

fn before_and_after_the_installation(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let namespace = plane.namespace("check")?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, 2)?;
    kafka.commit(&group, &topic, &[(0, 0), (1, 0)])?;
    let values = json!({"config": {
        "clusters": [{"name": "main", "properties": {"bootstrap.servers": kafka.bootstrap()}}],
        "targets": [{"name": "billing", "group": group, "topics": [topic]}],
    }});
    let _cleanup = Cleanup(plane, &namespace);
    let administrator = plane.kubeconfig().to_string_lossy();
    let pre = [
        "--pre",
        "--namespace",
        &namespace,
        "--kubeconfig",
        &*administrator,
    ];
    let (lines, succeeded) = check(testbed, &values["config"], &pre)?;
    ensure!(succeeded && problems(&lines).is_empty(), "{lines:#?}");

    // Another owner of the one slot.
    let other = external_metrics_api("keda", "keda-operator-metrics-apiserver", 443);
    plane.kubectl_with_input(&["apply", "-f", "-"], &other.to_string())?;
    let (lines, succeeded) = check(testbed, &values["config"], &pre)?;
    ensure!(
        !succeeded && problems(&lines) == ["external metrics: slot_taken"],
        "{lines:#?}"
    );
    ensure!(
        lines
            .iter()
            .any(|line| line["message"].as_str().is_some_and(|m| m.contains("KEDA"))),
        "{lines:#?}"
    );
    plane.kubectl(&["delete", "apiservice", EXTERNAL_METRICS_API])?;

    // Installed, but no pod runs here.
    let file = testbed.folder("check")?.join("values.json");
    std::fs::write(&file, values.to_string())?;
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/lagwise");
    let folder = chart.to_string_lossy();
    let install = ["install", "lagwise", &*folder, "--namespace", &namespace];
    plane.helm(&[&install[..], &["--values", &file.to_string_lossy()]].concat())?;
    let map = plane.get("configmap", "lagwise", Some(&namespace))?;
    let text = map["data"]["lagwise.yaml"]
        .as_str()
        .context("no configuration")?;
    let config: Value = serde_saphyr::from_str(text)?;
    let account = plane.account_kubeconfig(&namespace, "lagwise")?;
    let account = account.to_string_lossy();
    let after = ["--namespace", &namespace, "--kubeconfig", &*account];
    let (lines, succeeded) = check(testbed, &config, &after)?;
    let expected = ["API server to lagwise: api_no_endpoints"];
    ensure!(!succeeded && problems(&lines) == expected, "{lines:#?}");
    // The policy of the cap is missing, and with the rights of an administrator nothing else.
    let mut enforcing = config.clone();
    enforcing["cap"]["enforce"] = json!({"enabled": true});
    let by_administrator = ["--namespace", &namespace, "--kubeconfig", &*administrator];
    let (lines, _) = check(testbed, &enforcing, &by_administrator)?;
    let is_named = problems(&lines).contains(&"admission policy: policy_missing".to_owned());
    ensure!(is_named, "{lines:#?}");

    // Nobody listens where the Service leads to, and then a server with a certificate of another authority.
    let wait_for = |expected: &str| {
        poll_until(WAIT_TIMEOUT, expected, || {
            let (lines, _) = check(testbed, &config, &after)?;
            ensure!(problems(&lines) == [expected], "{lines:#?}");
            Ok(())
        })
    };
    let installed = Installed {
        plane,
        namespace: &namespace,
    };
    installed.reach(free_port()?)?;
    wait_for("API server to lagwise: api_unreachable")?;
    let certificate = plane.serving_certificate(&namespace, "lagwise")?;
    let server = Adapter::start(&certificate, 1)?;
    installed.reach(server.port())?;
    wait_for("API server to lagwise: api_untrusted")?;
    plane.kubectl(&["delete", "apiservice", EXTERNAL_METRICS_API])?;
    wait_for("external metrics: slot_unregistered")?;

    // A verb is missing.
    let patch = r#"[{"op": "replace", "path": "/rules/0/verbs", "value": ["list"]}]"#;
    plane.kubectl(&[
        "patch",
        "clusterrole",
        "lagwise",
        "--type=json",
        "-p",
        patch,
    ])?;
    let (lines, succeeded) = check(testbed, &config, &after)?;
    let missing = lines.iter().find(|line| line["code"] == "right_missing");
    let missing = missing.with_context(|| format!("{lines:#?}"))?;
    let expected = format!(
        "system:serviceaccount:{namespace}:lagwise may not watch horizontalpodautoscalers.autoscaling"
    );
    ensure!(!succeeded && missing["message"] == expected, "{missing}");
    Ok(())
}

/// Everything passes for an installed and running daemon, and `check` tests exactly the rights that the chart grants.
pub(crate) fn passes(
    testbed: &Testbed,
    config: &Value,
    namespace: &str,
    kubeconfig: &Path,
    granted: &[Value],
) -> Result<()> {
    let kubeconfig = kubeconfig.to_string_lossy();
    let more = ["--namespace", namespace, "--kubeconfig", &*kubeconfig];
    let (lines, succeeded) = check(testbed, config, &more)?;
    let failed: Vec<_> = lines
        .iter()
        .filter(|line| line["status"] == "failed")
        .collect();
    ensure!(succeeded && failed.is_empty(), "{failed:#?}");
    let rights = lines
        .iter()
        .find(|line| line["check"] == "rights" && line["section"] == "Kubernetes");
    let rights = rights.context("no line about rights")?["details"].as_array();
    let checked_rights: Vec<_> = rights
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut unchecked = Vec::new();
    for rule in granted {
        let texts = |key: &str| {
            let list = rule[key].as_array().into_iter().flatten();
            list.filter_map(Value::as_str)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let mut names: Vec<_> = texts("resourceNames")
            .iter()
            .map(|name| format!(" {name}"))
            .collect();
        if names.is_empty() {
            names.push(String::new());
        }
        for group in texts("apiGroups") {
            let group = if group.is_empty() {
                group
            } else {
                format!(".{group}")
            };
            for resource in texts("resources") {
                for verb in texts("verbs") {
                    for name in &names {
                        let right = format!("{verb} {resource}{group}{name}");
                        let place = format!("{right} in namespace ");
                        let is_checked = checked_rights
                            .iter()
                            .any(|checked| *checked == right || checked.starts_with(&place));
                        // Only rights for workloads that an HPA scales to zero are needed.
                        if !is_checked && !resource.ends_with("/scale") {
                            unchecked.push(right);
                        }
                    }
                }
            }
        }
    }
    ensure!(
        unchecked.is_empty(),
        "granted and not checked: {unchecked:#?} of {checked_rights:#?}"
    );
    Ok(())
}
