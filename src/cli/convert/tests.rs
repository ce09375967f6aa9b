//! Converts the corpus in `tests/convert`, and checks that Kubernetes and `lagwise lint` accept the results.

mod external_scaler;
mod objects;
mod secrets;

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

/// An environment in which every variable and file exists.
struct CompleteEnvironment;

impl Environment for CompleteEnvironment {
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

/// Findings about converted objects that are no mistake of the conversion: its notes announce them, or they were true
/// of KEDA's object too.
const EXPECTED_FINDINGS: &[(&str, &str)] = &[("38-hpa-behavior-and-name", "stabilised")];

#[test]
fn every_result_passes_lint() {
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = String::new();
    for path in corpus() {
        let conversion = converted(&path, &[]);
        if conversion
            .objects
            .iter()
            .all(|object| object.result().is_none())
        {
            continue;
        }
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
        if let Err(error) = Config::parse(&text, &CompleteEnvironment) {
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
