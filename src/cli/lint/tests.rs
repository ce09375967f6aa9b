//! Checks of files, and how findings are printed.

use std::sync::Arc;

use clap::Parser;

use super::*;
use crate::model::evaluation::ServingPolicy;
use crate::model::findings::FindingCode;
use crate::model::fixtures;
use crate::model::hpa::facts::MetricTarget;
use crate::model::targets::{TargetOptions, Targets};
use crate::model::units::quantity::Milli;

#[derive(Parser)]
struct LintCli {
    #[command(flatten)]
    lint: LintArgs,
}

const MANIFESTS: &str = r#"
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: billing
  namespace: shop
  annotations: {lagwise.dev/even: "yes", lagwise.dev/evn: "true"}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: StatefulSet, name: billing}
  maxReplicas: 20
  metrics:
    - type: External
      external:
        metric: {name: kafka_lag, selector: {matchLabels: {group: billing, topic: orders}}}
        target: {type: Value, value: "100"}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: billing, namespace: shop}
spec:
  replicas: 3
---
# An object without a metric of lagwise.
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web, namespace: shop}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  maxReplicas: 20
---
apiVersion: v1
kind: List
items:
  - apiVersion: autoscaling/v2
    kind: HorizontalPodAutoscaler
    metadata: {name: mail}
    spec:
      scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: mail}
      behavior: {scaleUp: {tolerance: "0"}, scaleDown: {tolerance: "0"}}
      maxReplicas: 6
      metrics:
        - type: External
          external:
            metric: {name: kafka_lag, selector: {matchLabels: {group: mail, cluster: other}}}
            target: {type: AverageValue, averageValue: "100"}
"#;

const CONFIG: &str = r#"
clusters: [{name: main, properties: {bootstrap.servers: "kafka:9092"}}]
"#;

fn written(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

fn check(files: &[(&str, &str)]) -> anyhow::Result<LintResult> {
    let folder = written(files);
    files::check_files(&[folder.path().to_owned()], None, None, None)
}

#[test]
fn checks_manifests_in_files() {
    let found = check(&[("hpa.yaml", MANIFESTS)]).unwrap();
    insta::assert_snapshot!(
        "files",
        render_findings(&FindingReport::sorted(&found.findings, None), found.checked)
    );
    let yaml = Output::Yaml
        .serialize(&FindingReport::sorted(&found.findings, None))
        .unwrap();
    insta::assert_snapshot!("files_as_yaml", yaml.unwrap());
    assert_eq!(exit_code(&found, FailOn::Error), ExitCode::FAILURE);
}

#[test]
fn prints_the_table_of_codes() {
    insta::assert_snapshot!("codes", render_codes(Output::Table).unwrap());
    let one = render_code(FindingCode::ToleranceAbove, Output::Table).unwrap();
    insta::assert_snapshot!("code", one);
}

#[test]
fn configuration_among_the_files_sets_clusters() {
    let labels = |files: &[(&str, &str)]| {
        let found = check(files).unwrap().findings;
        let of_mail = found
            .into_iter()
            .filter(|f| f.subject.path() == "hpa/default/mail");
        of_mail
            .map(|finding| finding.code.label())
            .collect::<Vec<_>>()
    };
    let manifests = ("a/hpa.yml", MANIFESTS);
    assert_eq!(labels(&[manifests]), [""; 0]);
    let configured = labels(&[manifests, ("b/c/lagwise.yaml", CONFIG)]);
    assert_eq!(configured, ["unknown_cluster"]);
    let two = check(&[("a.yaml", CONFIG), ("b.yaml", CONFIG)]).unwrap_err();
    assert!(
        two.to_string().contains("second lagwise configuration"),
        "{two}"
    );
}

#[test]
fn error_names_the_unreadable_file() {
    for (name, text, expected) in [
        ("a.yaml", "spec: {{ .Values.x }}", "a.yaml: invalid YAML"),
        ("a.yaml", "kind: [", "a.yaml: invalid YAML"),
        (
            "a.json",
            r#"{"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "x"}}"#,
            "a.json: HorizontalPodAutoscaler \"x\" is of autoscaling/v1",
        ),
        ("a.yaml", "clusters: []", "a.yaml"),
        ("a.txt", "", "no .yaml, .yml or .json file"),
    ] {
        let error = format!("{:#}", check(&[(name, text)]).unwrap_err());
        assert!(error.contains(expected), "{text}: {error}");
    }
    let missing = files::check_files(&["/nowhere/hpa.yaml".into()], None, None, None).unwrap_err();
    assert!(format!("{missing:#}").starts_with("/nowhere/hpa.yaml: "));
}

#[test]
fn files_with_nothing_to_check_are_an_error() {
    for text in ["", "just a text", "apiVersion: v1\nkind: Service\n"] {
        let error = check(&[("a.yaml", text)]).unwrap_err().to_string();
        assert!(
            error.starts_with("nothing to check: the files have no "),
            "{error}"
        );
    }
    let error = check(&[(
        "a.yaml",
        "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoScaler\n",
    )]);
    let error = format!("{:#}", error.unwrap_err());
    assert!(
        error.ends_with("(did you mean HorizontalPodAutoscaler?)"),
        "{error}"
    );
    let workload = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {}\n";
    assert!(check(&[("a.yaml", workload)]).unwrap().findings.is_empty());
    assert!(check(&[("a.yaml", CONFIG)]).unwrap().findings.is_empty());
}

#[test]
fn hpas_that_kubernetes_refuses_are_errors() {
    let hpa = r#"{"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "x"},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}, "maxReplicas": 9}}"#;
    for (from, to, expected) in [
        (
            "\"maxReplicas\": 9",
            "\"maxReplica\": 9",
            &["refused_hpa", "unknown_hpa_key"][..],
        ),
        ("9", "0", &["refused_hpa"]),
        // Of this one nothing else can be read.
        ("9", "\"9\"", &["refused_hpa"]),
        ("9", "9", &[]),
    ] {
        let found = check(&[("a.json", &hpa.replace(from, to))]).unwrap();
        let labels = found.findings.iter().map(|finding| finding.code.label());
        assert_eq!(Vec::from_iter(labels), expected, "{to}");
        let subjects = found.findings.iter().map(|finding| finding.subject.path());
        assert!(subjects.into_iter().all(|path| path == "hpa/default/x"));
        let CheckedObjects {
            hpas, other_hpas, ..
        } = found.checked;
        assert_eq!(hpas + other_hpas, 1);
    }
}

#[test]
fn exit_code_follows_severity() {
    let found = |findings: &[Finding], unread: &[&str]| LintResult {
        findings: findings.iter().cloned().collect(),
        unread: unread.iter().map(|text| (*text).to_owned()).collect(),
        ..LintResult::default()
    };
    let finding = |code| Finding::new(code, HpaKey::new("n", "h"), "m");
    let error = finding(FindingCode::ValueTarget);
    let warning = finding(FindingCode::TopicsTwice);
    let info = finding(FindingCode::ToleranceLeft);
    let (ok, bad, unread) = (ExitCode::SUCCESS, ExitCode::FAILURE, ExitCode::from(2));
    for (found, fail_on, expected) in [
        (found(&[], &[]), FailOn::Info, ok),
        (
            found(&[info.clone(), warning.clone()], &[]),
            FailOn::Error,
            ok,
        ),
        (
            found(&[info.clone(), error.clone()], &[]),
            FailOn::Error,
            bad,
        ),
        (found(std::slice::from_ref(&info), &[]), FailOn::Warning, ok),
        (found(&[warning], &[]), FailOn::Warning, bad),
        (found(std::slice::from_ref(&info), &[]), FailOn::Info, bad),
        // Objects that could not be read might have findings.
        (found(&[info], &["pods: forbidden"]), FailOn::Error, unread),
        (found(&[error], &["pods: forbidden"]), FailOn::Error, bad),
    ] {
        assert_eq!(
            exit_code(&found, fail_on),
            expected,
            "{found:?} {fail_on:?}"
        );
    }
}

#[test]
fn requires_config_file_or_codes() {
    for args in [
        &[][..],
        &["--codes", "-f", "a"],
        &["-f", "a", "--context", "c"],
    ] {
        let args = [&["lint"], args].concat();
        assert!(LintCli::try_parse_from(&args).is_err(), "{args:?}");
    }
    for args in [
        &["--codes"][..],
        &["--config", "c"],
        &["-f", "a", "-f", "b", "--config", "c"],
    ] {
        let args = [&["lint"], args].concat();
        assert!(LintCli::try_parse_from(&args).is_ok(), "{args:?}");
    }
}

#[test]
fn findings_of_one_code_are_together_and_all_objects_are_counted() {
    let tolerant = |name: &str| {
        format!(
            r#"
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{name: {name}, namespace: shop}}
spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: {name}}}
  maxReplicas: 6
  metrics:
    - type: External
      external:
        metric: {{name: kafka_lag, selector: {{matchLabels: {{group: {name}, topic: t}}}}}}
        target: {{type: AverageValue, averageValue: "100"}}
---"#
        )
    };
    let text = ["a", "b", "c"].map(tolerant).concat();
    let found = check(&[("hpas.yaml", &text)]).unwrap();
    let reported = FindingReport::sorted(&found.findings, None);
    insta::assert_snapshot!("grouped", render_findings(&reported, found.checked));
    let text = render_findings(&[], CheckedObjects::default());
    assert_eq!(text, "nothing found in 0 HPAs and 0 workloads\n");
    let checked = CheckedObjects {
        hpas: 9,
        other_hpas: 3,
        workloads: 1,
        groups: Some(8),
        ..CheckedObjects::default()
    };
    assert_eq!(
        checked.to_string(),
        "9 HPAs (and 3 without a metric of lagwise), 8 consumer groups and 1 workload"
    );
}

#[test]
fn counts_hpas_with_invalid_selectors_too() {
    let hpa = |name: &str, selectors: &[&str]| {
        let metrics = selectors.iter().map(|labels| {
            format!(
                "\n    - type: External\n      external:\n        metric: {{name: kafka_lag, selector: {{matchLabels: {{{labels}}}}}}}\n        target: {{type: AverageValue, averageValue: \"100\"}}"
            )
        });
        let metrics: String = metrics.collect();
        format!(
            "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
             scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: {name}}}\n  maxReplicas: 20\n  metrics:{metrics}\n---\n"
        )
    };
    let (valid, slash, long) = (
        "group: orders, topic: t",
        "group: team/orders",
        &*format!("group: orders, topic: {}", "x".repeat(70)),
    );
    for (hpas, expected) in [
        (vec![hpa("a", &[valid])], "1 HPA and 0 workloads"),
        (
            vec![hpa("a", &[slash])],
            "1 HPA (1 of them with an invalid selector) and 0 workloads",
        ),
        (
            vec![
                hpa("a", &[valid, long]),
                hpa("b", &[slash]),
                hpa("c", &[valid]),
            ],
            "3 HPAs (2 of them with invalid selectors) and 0 workloads",
        ),
        (
            vec![
                hpa("a", &[slash]),
                hpa("b", &[]).replace("metrics:", "metrics: []"),
            ],
            "1 HPA (1 of them with an invalid selector, and 1 without a metric of lagwise) and 0 workloads",
        ),
    ] {
        let found = check(&[("hpas.yaml", &hpas.concat())]).unwrap();
        let invalid = found.findings.iter();
        let invalid = invalid.filter(|finding| finding.code == FindingCode::InvalidSelector);
        assert_eq!(invalid.count(), found.checked.invalid_hpas, "{expected}");
        assert_eq!(found.checked.to_string(), expected);
    }
}

#[test]
fn an_old_cluster_drops_the_tolerance_of_manifests() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hpa.yaml");
    std::fs::write(&path, MANIFESTS).unwrap();
    let messages = |version: Option<&str>| {
        let version = version.map(|version| version.parse().unwrap());
        let found = files::check_files(std::slice::from_ref(&path), None, None, version).unwrap();
        let reported = FindingReport::sorted(&found.findings, found.version);
        let text = render_findings(&reported, found.checked);
        let tolerance = text.split("\n\n").find(|part| part.contains("LW037"));
        tolerance.unwrap_or_default().to_owned()
    };
    let dropped = "HPA default/mail: Kubernetes 1.34 drops the tolerance in its behavior";
    let old = messages(Some("1.34"));
    assert!(old.contains(dropped), "{old}");
    assert!(
        old.contains("fix: Set lagwise.dev/cap: enforce. A tolerance"),
        "{old}"
    );
    for version in [None, Some("1.35")] {
        let new = messages(version);
        assert!(!new.contains("default/mail"), "{new}");
        assert!(new.contains("behavior.scaleUp.tolerance"), "{new}");
    }
}

#[test]
fn codes_are_explained() {
    for (code, expected) in [
        ("LW018", "LW018"),
        ("18", "LW018"),
        ("value_target", "LW004"),
    ] {
        let parsed = LintCli::try_parse_from(["lint", "--explain", code]).unwrap();
        assert_eq!(parsed.lint.explain.unwrap().code(), expected);
    }
    for (code, words) in [
        ("LW999", "--codes lists all"),
        ("value_targt", "did you mean value_target?"),
    ] {
        let error = LintCli::try_parse_from(["lint", "--explain", code])
            .err()
            .unwrap();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn the_cause_for_a_whole_cluster_is_named_once() {
    let hpa = |name: &str, selector: &str| {
        let target = MetricTarget::AverageValue(Milli::from_units(10));
        Arc::new(fixtures::hpa(name, selector, target))
    };
    let hpas = [
        hpa("a", "cluster=down,group=a,topic=t"),
        hpa("b", "cluster=down,group=b,topic=t"),
        hpa("c", "cluster=main,group=partial,topic=refunds"),
    ];
    let names: Vec<ClusterName> = vec!["main".into(), "down".into()];
    let targets = Targets::new(&names, TargetOptions::default(), None);
    let targets = targets.with_hpas(&hpas.into_iter().collect(), None);
    let snapshot = LagSnapshot {
        targets: Arc::new(targets),
        ..fixtures::snapshot()
    };
    let snapshot = snapshot.evaluated(&ServingPolicy::default());
    let now = fixtures::at(Duration::from_secs(600));
    let metrics = snapshot.at(&now).hpa_metrics();
    let unread: Vec<String> = unread_data(&snapshot, &metrics).into_iter().collect();
    let [hpa, cluster] = unread.as_slice() else {
        panic!("{unread:#?}");
    };
    assert!(hpa.starts_with("HPA shop/c: lag of group"), "{hpa}");
    assert!(
        cluster.starts_with("Kafka cluster down: broker said"),
        "{cluster}"
    );
    assert!(
        cluster.ends_with("; the lag of 2 HPAs is unknown"),
        "{cluster}"
    );
}

#[test]
fn scaled_objects_get_the_findings_of_convert() {
    let scaled = "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {name: mail}\nspec:\n  \
         scaleTargetRef: {name: mail}\n  minReplicaCount: 1\n  triggers:\n    - type: kafka\n      \
         metadata: {bootstrapServers: \"k:9092\", consumerGroup: mail, topic: mails, allowIdleConsumers: \"true\"}\n";
    let plain = scaled.replace(", allowIdleConsumers: \"true\"", "");
    let job = "apiVersion: keda.sh/v1alpha1\nkind: ScaledJob\nmetadata: {name: job, namespace: shop}\nspec: {}\n";
    let found = check(&[("a.yaml", scaled), ("b.yaml", job)]).unwrap();
    let findings = found.findings.iter();
    let texts: Vec<_> = findings
        .map(|f| (f.code.label(), f.subject.path(), f.to_string()))
        .collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    let (code, path, message) = &texts[0];
    assert_eq!(
        (*code, path.as_str()),
        ("keda_object", "scaledjob/shop/job")
    );
    assert!(
        message.starts_with("ScaledJob shop/job: lagwise convert says not converted: kind: "),
        "{message}"
    );
    let (_, path, message) = &texts[1];
    assert_eq!(path, "scaledobject/default/mail");
    assert!(
        message.contains("no equivalent: triggers[0].metadata.allowIdleConsumers"),
        "{message}"
    );
    let plain = check(&[("a.yaml", &plain)]).unwrap().findings;
    let messages: Vec<_> = plain.iter().map(|f| f.message.as_str()).collect();
    assert_eq!(messages, ["lagwise convert makes an equal HPA of it"]);
}
