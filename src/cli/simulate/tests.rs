//! What the command prints, and which arguments it refuses.

use std::io::Write as _;

use clap::Parser;

use super::*;

#[derive(Parser)]
struct SimulateCli {
    #[command(flatten)]
    simulate: SimulateArgs,
}

fn simulated(args: &[&str]) -> anyhow::Result<String> {
    let all = [&["simulate"], args].concat();
    let parsed = SimulateCli::try_parse_from(all)?;
    simulate(&parsed.simulate, &ProgressLine::hidden())
}

fn refusal(args: &[&str]) -> String {
    format!("{:#}", simulated(args).unwrap_err())
}

#[test]
fn one_scenario_is_a_table_of_policies() {
    let text = simulated(&[
        "--scenario",
        "step",
        "--policy",
        "rate",
        "--policy",
        "static",
    ]);
    insta::assert_snapshot!("one_scenario", text.unwrap());
}

#[test]
fn several_scenarios_add_their_costs() {
    let args = [
        "--scenario",
        "step",
        "--scenario",
        "poison",
        "--policy",
        "rate",
        "--policy",
        "static",
    ];
    insta::assert_snapshot!("several_scenarios", simulated(&args).unwrap());
}

#[test]
fn what_is_named_twice_counts_once() {
    let once = ["--scenario", "step", "--policy", "static"];
    let twice = [once, once].concat();
    assert_eq!(simulated(&twice).unwrap(), simulated(&once).unwrap());
}

#[test]
fn the_same_seed_gives_the_same_json() {
    let args = [
        "--scenario",
        "flash",
        "--policy",
        "rate",
        "-o",
        "json",
        "--seed",
        "3",
    ];
    let text = simulated(&args).unwrap();
    assert_eq!(text, simulated(&args).unwrap());
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["means"][0]["policy"], "rate");
    assert_eq!(json["runs"][0]["scenario"], "flash");
    let other = simulated(&[
        "--scenario",
        "flash",
        "--policy",
        "rate",
        "-o",
        "json",
        "--seed",
        "4",
    ]);
    assert_ne!(text, other.unwrap());
}

/// A file with an HPA of these bounds.
fn hpa_file(min: u32, max: u32) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(
        file,
        "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {{name: a}}\nspec:\n  \
         minReplicas: {min}\n  maxReplicas: {max}\n  scaleTargetRef: {{kind: Deployment, name: a}}\n"
    )
    .unwrap();
    file
}

#[test]
fn an_hpa_whose_bounds_cannot_be_simulated_is_refused() {
    for (min, max, expected) in [
        (3, 2, "minReplicas 3 is greater than maxReplicas 2"),
        (2_000_000_000, 2_000_000_000, "use at most 1000"),
    ] {
        let file = hpa_file(min, max);
        let path = file.path().to_str().unwrap();
        let text = refusal(&["--scenario", "step", "--hpa", path]);
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn an_hpa_of_ones_own_limits_the_replicas() {
    let file = hpa_file(12, 12);
    let path = file.path().to_str().unwrap();
    let args = [
        "--scenario",
        "poison",
        "--policy",
        "rate",
        "-o",
        "json",
        "--hpa",
        path,
    ];
    let json: serde_json::Value = serde_json::from_str(&simulated(&args).unwrap()).unwrap();
    // Half of 24 partitions all the time.
    assert_eq!(json["means"][0]["cost_percent"], 50.0);
    assert_eq!(json["means"][0]["scale_changes"], 0.0);
}

#[test]
fn more_partitions_get_more_messages() {
    let args = [
        "--scenario",
        "poison",
        "--policy",
        "static",
        "--partitions",
        "48",
        "-o",
        "json",
    ];
    let json: serde_json::Value = serde_json::from_str(&simulated(&args).unwrap()).unwrap();
    let minutes = json["means"][0]["replica_minutes"].as_f64().unwrap();
    assert!((minutes - 48.0 * 180.0).abs() < 1.0, "{minutes}");
}

#[test]
fn unknown_names_and_files_are_refused_with_a_remedy() {
    assert_eq!(
        refusal(&["--scenario", "flahs"]),
        "--scenario flahs: no such scenario (did you mean flash?); lagwise simulate --list shows all"
    );
    assert!(refusal(&["--policy", "hpa"]).contains("--policy hpa: no such policy"));
    assert!(
        refusal(&["--scenario", "step", "--hpa", "/nonexistent"]).contains("--hpa /nonexistent")
    );
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    assert!(refusal(&["--scenario", "step", "--hpa", folder]).contains("cannot be read"));
    assert_eq!(
        refusal(&["--scenario", "step", "--seed", "18446744073709551615"]),
        "--seed 18446744073709551615: too large for --seeds 1; use at most 18446744073709551614"
    );
    assert!(refusal(&["--slo", "1500ms"]).contains("whole seconds"));
    assert!(refusal(&["--slo", "0s"]).contains("from 1s"));
    assert!(refusal(&["--partitions", "0"]).contains("0 is not in 1..=1000"));
}

#[test]
fn lists_what_there_is() {
    let text = simulated(&["--list"]).unwrap();
    for name in ["diurnal", "flash/slo-15", "generated-", "policies: rate, "] {
        assert!(text.contains(name), "{name} in {text}");
    }
}
