//! The corpus in `tests/convert`: what becomes of each file, and whether the result is one that Kubernetes and `lagwise
//! lint` accept.

use std::collections::BTreeSet;
use std::env::VarError;
use std::io;
use std::path::Path;

use clap::Parser;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde::Deserialize;
use serde_json::Value;

use super::*;
use crate::cli::lint::files::check_files;
use crate::config::{Config, Environment};
use crate::model::keda::convert::note::Note;
use crate::model::keda::external_trigger::ExternalTrigger;

#[derive(Parser)]
struct ConvertCli {
    #[command(flatten)]
    convert: ConvertArgs,
}

/// An environment with every variable and file.
struct Everything;

impl Environment for Everything {
    fn variable(&self, _: &str) -> Result<String, VarError> {
        Ok("value".to_owned())
    }

    fn read_file(&self, _: &Path) -> io::Result<String> {
        Ok("value".to_owned())
    }

    fn check_file(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn is_open_to_all(&self, _: &Path) -> bool {
        false
    }
}

fn corpus() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/convert");
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "yaml"));
    paths.sort();
    assert!(paths.len() >= 30, "only {} files", paths.len());
    paths
}

fn converted(path: &Path, more: &[&str]) -> Conversion {
    let path = path.to_str().unwrap();
    let arguments = [&["lagwise", "-f", path], more].concat();
    let args = ConvertCli::parse_from(arguments).convert;
    let options = options(&args, args.kubernetes);
    let mut conversion = convert(&read(&args).unwrap(), &options);
    for object in &mut conversion.objects {
        // Snapshots must not depend on the folder.
        object.source = object.source.rsplit('/').next().unwrap().to_owned();
    }
    conversion
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn converts_the_corpus() {
    let settings = &mut insta::Settings::clone_current();
    settings.set_snapshot_path("../../../tests/convert/snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.bind(|| {
        for path in corpus() {
            let conversion = converted(&path, &[]);
            let hpas = render(&conversion, Print::Hpas).unwrap();
            let config = render(&conversion, Print::Config).unwrap();
            let summary = summarize(&conversion, Print::Hpas);
            let all = format!("{hpas}=== configuration\n{config}=== summary\n{summary}\n");
            insta::assert_snapshot!(stem(&path), all);
        }
    });
}

/// Kubernetes drops or refuses what it does not know, so every field must survive the types of its API.
#[test]
fn every_hpa_has_only_fields_that_kubernetes_knows() {
    for path in corpus() {
        for hpa in converted(&path, &[])
            .objects
            .iter()
            .filter_map(|object| object.hpa.as_ref())
        {
            let typed = HorizontalPodAutoscaler::deserialize(hpa);
            let typed = typed.unwrap_or_else(|error| panic!("{}: {error}", stem(&path)));
            assert_eq!(
                serde_json::to_value(&typed).unwrap(),
                *hpa,
                "{}",
                stem(&path)
            );
        }
    }
}

/// Findings of a converted object that its notes announce, or that KEDA's object had as well.
const EXPECTED_FINDINGS: &[(&str, &str)] = &[("38-hpa-behavior-and-name", "stabilised")];

#[test]
fn every_result_passes_lint() {
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = String::new();
    for path in corpus() {
        let conversion = converted(&path, &[]);
        let file = folder.path().join("hpas.yaml");
        std::fs::write(&file, render(&conversion, Print::Hpas).unwrap()).unwrap();
        let found = check_files(&[file], None, None, None).unwrap().findings;
        for finding in found {
            let (stem, label) = (stem(&path), finding.code.label());
            if !EXPECTED_FINDINGS.contains(&(stem.as_str(), label)) {
                wrong += &format!("{stem}: {label}: {finding}\n");
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn every_configuration_is_valid_with_the_files_that_it_refers_to() {
    for path in corpus() {
        let conversion = converted(&path, &[]);
        if conversion.config.is_none() {
            continue;
        }
        let text = render(&conversion, Print::Config).unwrap();
        if let Err(error) = Config::parse(&text, &Everything) {
            panic!("{}: {error}", stem(&path));
        }
    }
}

#[test]
fn manifests_are_the_same_as_the_json() {
    for path in corpus() {
        let conversion = converted(&path, &[]);
        let text = render(&conversion, Print::Hpas).unwrap();
        let documents = parse_documents(&text).unwrap();
        let hpas = conversion
            .objects
            .iter()
            .filter_map(|object| object.hpa.clone());
        assert_eq!(documents, Vec::from_iter(hpas), "{}", stem(&path));
    }
}

#[test]
fn older_kubernetes_gets_no_tolerance() {
    let path = corpus().remove(0);
    let hpa = |more: &[&str]| converted(&path, more).objects.remove(0);
    let tolerance = |object: &ConvertedObject| {
        let hpa = object.hpa.as_ref().unwrap();
        hpa.pointer("/spec/behavior/scaleUp/tolerance").cloned()
    };
    let (new, old) = (hpa(&[]), hpa(&["--kubernetes", "1.34"]));
    assert_eq!(tolerance(&new), Some(Value::from("0")));
    assert_eq!(tolerance(&old), None);
    assert!(
        old.notes
            .iter()
            .any(|note| note.text.contains("has no tolerance"))
    );
}

fn written(text: &str) -> Conversion {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.yaml");
    std::fs::write(&path, text).unwrap();
    converted(&path, &[])
}

/// A ScaledObject with this name and authentication.
fn object(name: &str) -> String {
    format!(
        "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {{name: {name}}}\nspec:\n  \
         scaleTargetRef: {{name: a}}\n  minReplicaCount: 1\n  triggers:\n    - type: kafka\n      \
         metadata: {{bootstrapServers: \"k:9092\", consumerGroup: g, topic: t, sasl: plaintext}}\n      \
         authenticationRef: {{name: a}}\n"
    )
}

#[test]
fn null_is_as_good_as_nothing() {
    let nulls = object("a")
        .replace("{name: a}\nspec:", "{name: a, labels: null, annotations: null}\nspec:\n  advanced: null\n  fallback: null\n  pollingInterval: null")
        .replace("    - type: kafka", "    - type: kafka\n      useCachedMetrics: null\n      metricType: null");
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: [odd]}\n";
    let (nulls, plain) = (written(&[&nulls, map].join("---\n")), written(&object("a")));
    assert_eq!(nulls.objects[0].hpa, plain.objects[0].hpa);
    assert_eq!(nulls.objects[0].notes, plain.objects[0].notes);
}

#[test]
fn groups_whose_names_make_the_same_label_have_different_ones() {
    let head = "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {name: a}\nspec:\n  \
                scaleTargetRef: {name: a}\n  minReplicaCount: 1\n  triggers:\n";
    let trigger = |group: &str| {
        format!(
            "    - type: kafka\n      \
             metadata: {{bootstrapServers: \"k:9092\", consumerGroup: \"{group}\", topic: t}}\n"
        )
    };
    let triggers = ["a/b", "a:b", "a-b", "a/b"].map(trigger).concat();
    let conversion = written(&[head, &triggers].concat());
    let hpa = conversion.objects[0].hpa.as_ref().unwrap();
    let label = |place: usize| {
        let metric = &hpa["spec"]["metrics"][place]["external"]["metric"];
        metric["selector"]["matchLabels"]["group"].clone()
    };
    assert_eq!([0, 1, 2, 3].map(label), ["a-b-2", "a-b-3", "a-b", "a-b-2"]);
    assert_eq!(
        hpa["metadata"]["annotations"],
        serde_json::json!({
            "lagwise.dev/consumer-group.a-b-2": "a/b",
            "lagwise.dev/consumer-group.a-b-3": "a:b",
        })
    );
}

#[test]
fn secrets_are_never_copied() {
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: hunter2, username: me}\n";
    let authentication = "apiVersion: keda.sh/v1alpha1\nkind: TriggerAuthentication\nmetadata: {name: a}\nspec:\n  \
         secretTargetRef:\n    - {parameter: username, name: s, key: username}\n    - {parameter: password, name: s, key: password}\n";
    let conversion = written(&[object("a").as_str(), secret, authentication].join("---\n"));
    let all = format!(
        "{}{}{}",
        render(&conversion, Print::Hpas).unwrap(),
        render(&conversion, Print::Config).unwrap(),
        serde_json::to_string(&conversion).unwrap()
    );
    assert!(!all.contains("hunter2"), "{all}");
    assert!(
        all.contains("${file:/etc/lagwise/keda/default/s/password}"),
        "{all}"
    );
}

/// Neither the names of clusters nor the notes take time with the square of their number.
#[test]
fn many_clusters_have_distinct_names() {
    let trigger = |number: u32| {
        format!(
            "    - {{type: kafka, metadata: {{bootstrapServers: \"k:{number}\", consumerGroup: g, version: x}}}}\n"
        )
    };
    let triggers = String::from_iter((1..=5_000).map(trigger));
    let text = object("a").replace("triggers:\n", &format!("triggers:\n{triggers}"));
    let config = written(&text).config.unwrap();
    let clusters = config["clusters"].as_array().unwrap();
    let names = BTreeSet::from_iter(clusters.iter().map(|cluster| cluster["name"].to_string()));
    assert_eq!((clusters.len(), names.len()), (5_001, 5_001));
    assert_eq!(clusters[1]["name"], "k-2");
}

#[test]
fn options_that_cannot_be_converted_are_named() {
    let authentication = "apiVersion: keda.sh/v1alpha1\nkind: TriggerAuthentication\nmetadata: {name: a}\nspec:\n  \
         secretTargetRef: [{parameter: oauthExtensions, name: s, key: e}]\n";
    for (old, new, expected) in [
        (
            "sasl: plaintext",
            "tls: \"true\"",
            "triggers[0].metadata.tls",
        ),
        (
            "sasl: plaintext",
            "tls: enable, unsafeSsl: \"yes\"",
            "triggers[0].metadata.unsafeSsl",
        ),
        (
            "sasl: plaintext",
            "sasl: aws_msk_iam",
            "triggers[0].metadata.awsRegion",
        ),
        (
            "sasl: plaintext",
            "lagThresholdFromEnv: LAG",
            "triggers[0].metadata.lagThresholdFromEnv",
        ),
        (
            "topic: t",
            "topic: \"\", topicFromEnv: TOPIC",
            "triggers[0].metadata.topicFromEnv",
        ),
        (
            "type: kafka",
            "type: kafka\n      metricType: Utilization",
            "triggers[0].metricType",
        ),
        (
            "minReplicaCount: 1",
            "minReplicaCount: 1\n  cooldownPeriod: 60",
            "cooldownPeriod",
        ),
    ] {
        let conversion = written(&object("a").replace(old, new));
        let notes = &conversion.objects[0].notes;
        assert!(notes.iter().any(|note| note.field == expected), "{notes:?}");
    }
    let oauth = object("a").replace("sasl: plaintext", "sasl: oauthbearer");
    let conversion = written(&[oauth.as_str(), authentication].join("---\n"));
    let notes = &conversion.objects[0].notes;
    let text = "write the pairs of ${file:/etc/lagwise/keda/default/s/e}";
    assert!(
        notes.iter().any(|note| note.text.starts_with(text)),
        "{notes:?}"
    );
}

#[test]
fn notes_name_the_trigger_by_its_place_among_all_triggers() {
    let before = "triggers:\n    - {type: cron, metadata: {}}\n    - {type: kafka, metadata: {bootstrapServers: \"k:9092\", \
                  consumerGroup: g, topic: t, partitionLimitation: \"0\"}}\n";
    let text = object("a").replace("triggers:\n", before);
    let conversion = written(&text);
    let lost = |note: &&Note| note.text.starts_with("annotations apply to all metrics");
    let note = conversion.objects[0].notes.iter().find(lost).unwrap();
    assert_eq!(note.field, "triggers[2].metadata");
}

#[test]
fn a_paused_workload_is_not_scaled_to_zero() {
    let to_zero = object("a").replace("minReplicaCount: 1", "minReplicaCount: 0");
    let annotations = |conversion: &Conversion| {
        let hpa = conversion.objects[0].hpa.as_ref().unwrap();
        hpa.pointer("/metadata/annotations").cloned()
    };
    assert!(annotations(&written(&to_zero)).is_some());
    for pause in ["paused-replicas: \"4\"", "paused-scale-in: \"true\""] {
        let metadata = format!("{{name: a, annotations: {{autoscaling.keda.sh/{pause}}}}}\nspec:");
        let conversion = written(&to_zero.replace("{name: a}\nspec:", &metadata));
        assert_eq!(annotations(&conversion), None, "{pause}");
        let notes = &conversion.objects[0].notes;
        let expected = "lagwise.dev/cooldown: \"5m\" and lagwise.dev/scale-to-zero: \"true\"";
        assert!(
            notes.iter().any(|note| note.text.contains(expected)),
            "{notes:?}"
        );
    }
}

#[test]
fn what_kubernetes_would_refuse_is_not_printed() {
    let cpu = |value: &str| {
        let trigger = format!(
            "triggers:\n    - {{type: cpu, metricType: AverageValue, metadata: {{value: {value}}}}}\n"
        );
        written(&object("a").replace("triggers:\n", &trigger))
    };
    let has_cpu = |conversion: &Conversion| {
        serde_json::to_string(&conversion.objects[0].hpa)
            .unwrap()
            .contains("cpu")
    };
    assert!(has_cpu(&cpu("500m")));
    assert!(!has_cpu(&cpu("half")));
    let unnamed = written(&object("\"\""));
    assert_eq!(unnamed.objects[0].hpa, None);
    let few = "minReplicaCount: 5\n  maxReplicaCount: 3";
    let conversion = written(&object("a").replace("minReplicaCount: 1", few));
    let hpa = conversion.objects[0].hpa.as_ref().unwrap();
    assert_eq!(hpa.pointer("/spec/maxReplicas"), Some(&Value::from(5)));
    let notes = &conversion.objects[0].notes;
    assert!(
        notes.iter().any(|note| note.field == "maxReplicaCount"),
        "{notes:?}"
    );
}

#[test]
fn passwords_in_config_maps_are_not_copied_either() {
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {password: hunter2, username: me}\n";
    let authentication = "apiVersion: keda.sh/v1alpha1\nkind: TriggerAuthentication\nmetadata: {name: a}\nspec:\n  \
         configMapTargetRef:\n    - {parameter: username, name: m, key: username}\n    - {parameter: password, name: m, key: password}\n";
    let conversion = written(&[object("a").as_str(), map, authentication].join("---\n"));
    let config = render(&conversion, Print::Config).unwrap();
    assert!(!config.contains("hunter2"), "{config}");
    for expected in [
        "sasl.username: me",
        "${file:/etc/lagwise/keda/default/m/password}",
        "to do: ConfigMap \"m\" of namespace default at /etc/lagwise/keda/default/m: copy it",
    ] {
        assert!(config.contains(expected), "{config}");
    }
}

#[test]
fn config_maps_of_a_cluster_trigger_authentication_are_in_the_namespace_of_keda() {
    let map = |namespace: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m, namespace: {namespace}}}\ndata: {{user: of-{namespace}}}\n"
        )
    };
    let authentication = "apiVersion: keda.sh/v1alpha1\nkind: ClusterTriggerAuthentication\nmetadata: {name: a}\nspec:\n  \
         configMapTargetRef: [{parameter: username, name: m, key: user}]\n";
    let of_cluster = object("a").replace(
        "authenticationRef: {name: a}",
        "authenticationRef: {name: a, kind: ClusterTriggerAuthentication}",
    );
    let documents = [
        of_cluster,
        map("default"),
        map("keda"),
        authentication.to_owned(),
    ];
    let config = render(&written(&documents.join("---\n")), Print::Config).unwrap();
    assert!(config.contains("sasl.username: of-keda"), "{config}");
}

/// Whoever writes a ScaledObject must not choose which files and variables lagwise reads.
#[test]
fn names_and_servers_cannot_smuggle_in_references() {
    let authentication = |spec: &str| {
        format!(
            "apiVersion: keda.sh/v1alpha1\nkind: TriggerAuthentication\nmetadata: {{name: a}}\nspec: {spec}\n"
        )
    };
    for spec in [
        "{secretTargetRef: [{parameter: password, name: ../../../../var/run, key: token}]}",
        "{secretTargetRef: [{parameter: password, name: s, key: ..}]}",
        "{secretTargetRef: [{parameter: password, name: \"s}${file:/token\", key: a}]}",
        "{configMapTargetRef: [{parameter: password, name: ../s, key: a}]}",
        "{env: [{parameter: password, name: \"A}${file:/token\"}]}",
    ] {
        let conversion = written(&[object("a"), authentication(spec)].join("---\n"));
        let config = serde_json::to_string(&conversion.config).unwrap();
        assert!(!config.contains("${"), "{spec}: {config}");
        let notes = &conversion.objects[0].notes;
        let is_left_out = |note: &Note| note.text.starts_with("password is left out");
        assert!(notes.iter().any(is_left_out), "{spec}: {notes:?}");
    }
    let servers = object("a").replace("k:9092", "${file:/token}:9092");
    let config = render(&written(&servers), Print::Config).unwrap();
    assert!(config.contains("$${file:/token}:9092"), "{config}");
    let variable = object("a").replace(
        "bootstrapServers: \"k:9092\"",
        "bootstrapServersFromEnv: \"A}${file:/token\"",
    );
    let conversion = written(&variable);
    assert_eq!(conversion.config, None);
    assert!(conversion.objects[0].needs_attention());
}

#[test]
fn authentications_of_one_name_are_told_apart_by_their_file() {
    let authentication = |variable: &str| {
        format!(
            "apiVersion: keda.sh/v1alpha1\nkind: TriggerAuthentication\nmetadata: {{name: a}}\nspec:\n  \
             env: [{{parameter: username, name: {variable}}}, {{parameter: password, name: P}}]\n"
        )
    };
    let folder = tempfile::tempdir().unwrap();
    for (file, variable) in [("a.yaml", "USER_A"), ("b.yaml", "USER_B")] {
        let text = [object(&file[..1]), authentication(variable)].join("---\n");
        std::fs::write(folder.path().join(file), text).unwrap();
    }
    let both = converted(folder.path(), &[]);
    let config = render(&both, Print::Config).unwrap();
    assert!(
        config.contains("${env:USER_A}") && config.contains("${env:USER_B}"),
        "{config}"
    );
    std::fs::write(folder.path().join("c.yaml"), object("c")).unwrap();
    let ambiguous = converted(folder.path(), &[]);
    let notes = &ambiguous.objects[2].notes;
    assert!(
        notes[0].text.contains("is among the files 2 times"),
        "{notes:?}"
    );
}

#[test]
fn the_configuration_says_what_its_logins_lack() {
    let text = |name: &str| {
        let path = corpus().into_iter().find(|path| stem(path) == name);
        render(&converted(&path.unwrap(), &[]), Print::Config).unwrap()
    };
    let unknown = text("25-sasl-scram-in-secret");
    assert!(
        unknown
            .contains("# ScaledObject shop/payments-scram: to do: triggers[0].authenticationRef"),
        "{unknown}"
    );
    let complete = text("29-oauthbearer");
    assert!(!complete.contains("# ScaledObject"), "{complete}");
}

#[test]
fn text_of_others_does_not_end_a_comment() {
    let odd = object("\"a\\nkind: Secret\"")
        .replace("consumerGroup: g", "\"x\\nkind: Pod\": g, consumerGroup: g");
    let conversion = written(&odd);
    let text = render(&conversion, Print::Hpas).unwrap();
    let summary = summarize(&conversion, Print::Hpas);
    assert_eq!(summary.lines().count(), 2, "{summary}");
    let documents = parse_documents(&text).unwrap();
    assert_eq!(documents.len(), 1, "{text}");
    assert_eq!(documents[0]["kind"], "HorizontalPodAutoscaler");
    let kinds: BTreeSet<_> = text
        .lines()
        .filter(|line| line.starts_with("kind:"))
        .collect();
    assert_eq!(
        kinds.into_iter().collect::<Vec<_>>(),
        ["kind: HorizontalPodAutoscaler"]
    );
}

#[test]
fn unreadable_files_are_errors_that_name_them() {
    for (text, expected) in [
        ("kind: [", "invalid YAML"),
        (
            "kind: Service\napiVersion: v1\n",
            "no ScaledObject of keda.sh/v1alpha1",
        ),
        (
            "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {name: a}\nspec: {triggers: 5}\n",
            "ScaledObject \"a\" cannot be read",
        ),
        (
            "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {name: a}\nspec: {minReplicaCount: -1}\n",
            "ScaledObject \"a\" cannot be read",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        std::fs::write(&path, text).unwrap();
        let arguments = ["lagwise", "-f", path.to_str().unwrap()];
        let error = read(&ConvertCli::parse_from(arguments).convert).unwrap_err();
        let error = error_text(&error);
        assert!(error.contains(expected), "{error}");
    }
}

/// Every trigger is one that the external scaler reads, and all that is not a Kafka trigger stays as it is.
#[test]
fn the_corpus_becomes_triggers_of_the_external_scaler() {
    let mut triggers = 0;
    for path in corpus() {
        let text = std::fs::read_to_string(&path).unwrap();
        let before = parse_documents(&text).unwrap();
        let conversion = converted(&path, &["--to", "external-scaler"]);
        for object in &conversion.objects {
            assert!(object.hpa.is_none());
            let Some(made) = &object.scaled_object else {
                continue;
            };
            let is_same =
                |document: &&Value| document["metadata"]["name"] == made["metadata"]["name"];
            let original = before
                .iter()
                .filter(|d| d["kind"] == "ScaledObject")
                .find(is_same);
            for (index, trigger) in made["spec"]["triggers"]
                .as_array()
                .unwrap()
                .iter()
                .enumerate()
            {
                if trigger["type"] != "external-push" {
                    if let Some(original) = original {
                        assert_eq!(
                            *trigger,
                            original["spec"]["triggers"][index],
                            "{}",
                            path.display()
                        );
                    }
                    continue;
                }
                let metadata = trigger["metadata"].as_object().unwrap();
                let metadata = metadata
                    .iter()
                    .map(|(key, value)| (key.as_str(), value.as_str().unwrap()));
                let parsed = ExternalTrigger::parse("shop", &object.name, metadata);
                let parsed = parsed.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                assert_eq!(parsed.external.name, "kafka_lag");
                triggers += 1;
            }
        }
    }
    assert!(triggers >= 30, "only {triggers} triggers");
}

#[test]
fn a_trigger_of_the_external_scaler_keeps_its_options() {
    let trigger = |wanted: &str, index: usize| {
        let path = corpus()
            .into_iter()
            .find(|path| stem(path) == wanted)
            .unwrap();
        let conversion = converted(
            &path,
            &["--to", "external-scaler", "--scaler-address", "l:1"],
        );
        let object = conversion.objects[0].scaled_object.clone().unwrap();
        assert_eq!(object["kind"], "ScaledObject");
        object["spec"]["triggers"][index].clone()
    };
    let metadata = |wanted: &str, index: usize| trigger(wanted, index)["metadata"].clone();
    assert_eq!(
        trigger("05-activation", 0),
        serde_json::json!({
            "type": "external-push",
            "metadata": {
                "scalerAddress": "l:1", "enableTLS": "true", "group": "thumbnails", "topic": "images",
                "lagThreshold": "20", "activationLag": "100",
            },
            "authenticationRef": {"name": "lagwise", "kind": "ClusterTriggerAuthentication"},
        })
    );
    assert_eq!(
        metadata("18-limit-to-partitions-with-lag", 0)["by"],
        "lagging"
    );
    assert_eq!(metadata("08-conflicting-triggers", 0)["partitions"], "0-3");
    assert_eq!(metadata("08-conflicting-triggers", 1)["by"], "lagging");
    let several = metadata("22-apache-kafka-topics", 0);
    assert!(several.get("topic").is_none(), "{several}");
    assert!(
        several["topics"].as_str().unwrap().contains(','),
        "{several}"
    );
}
