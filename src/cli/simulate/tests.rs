//! The output of the command, and the arguments that it rejects.

use std::io::Write as _;

use clap::Parser;

use super::*;
use crate::model::policy::settings::PolicyRule;
use crate::simulate::benchmark::SweepResult;
use crate::simulate::score::RunScore;

#[derive(Debug, Parser)]
struct SimulateCli {
    #[command(flatten)]
    simulate: SimulateArgs,
}

fn simulated(args: &[&str]) -> anyhow::Result<String> {
    let all = [&["simulate"], args].concat();
    let parsed = SimulateCli::try_parse_from(all)?.simulate;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let trace = runtime.block_on(parsed.trace.read())?;
    simulate(&parsed, trace.as_ref(), &ProgressLine::hidden())
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
fn items_named_twice_count_once() {
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
        (3, 2, "spec.minReplicas: 3 is greater than maxReplicas 2"),
        (2_000_000_000, 2_000_000_000, "use at most 1000"),
    ] {
        let file = hpa_file(min, max);
        let path = file.path().to_str().unwrap();
        let text = refusal(&["--scenario", "step", "--hpa", path]);
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn an_hpa_that_kubernetes_refuses_is_refused_with_the_field() {
    let hpa = |spec: &str| {
        format!(
            "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {{name: a}}\nspec:\n  \
             scaleTargetRef: {{kind: Deployment, name: a}}\n{spec}"
        )
    };
    let max = "  maxReplicas: 9\n";
    for (text, expected) in [
        (
            hpa(&format!("{max}  minReplicas: -1\n")),
            "spec.minReplicas: -1 is less than 0; Kubernetes refuses such an HPA",
        ),
        (
            hpa(&format!(
                "{max}  behavior: {{scaleUp: {{tolerance: abc}}}}\n"
            )),
            "spec.behavior.scaleUp.tolerance: \"abc\" is not a quantity from zero",
        ),
        (
            hpa(&format!("{max}  behaviour: {{}}\n")),
            "unknown key spec.behaviour (did you mean behavior?)",
        ),
        (hpa(""), "spec.maxReplicas is missing"),
        (String::new(), "the file is empty"),
        (
            "kind: Deployment\n".to_owned(),
            "not the manifest of a HorizontalPodAutoscaler",
        ),
        (
            [hpa(max), hpa(max)].join("---\n"),
            "the file has 2 YAML documents",
        ),
    ] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let path = file.path().to_str().unwrap();
        let refused = refusal(&["--scenario", "step", "--hpa", path]);
        assert!(refused.starts_with(&format!("--hpa {path}: ")), "{refused}");
        assert!(refused.contains(expected), "{refused}");
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
        "--start-replicas",
        "12",
    ];
    let json: serde_json::Value = serde_json::from_str(&simulated(&args).unwrap()).unwrap();
    // Half of 24 partitions all the time.
    assert_eq!(json["means"][0]["cost_percent"], 50.0);
    assert_eq!(json["means"][0]["scale_changes"], 0.0);
}

#[test]
fn the_replicas_at_the_beginning_can_be_set() {
    let changes = |start: &[&str]| {
        let args = [
            &["--scenario", "deploy", "--policy", "lag-200-3600s"],
            start,
        ]
        .concat();
        let args = [&args[..], &["-o", "json"]].concat();
        let json: serde_json::Value = serde_json::from_str(&simulated(&args).unwrap()).unwrap();
        json["means"][0]["scale_changes"].as_f64().unwrap()
    };
    // More than the partitions are as many as the partitions.
    let all = changes(&["--start-replicas", "24"]);
    assert_eq!(changes(&["--start-replicas", "1000"]), all);
    assert_ne!(changes(&[]), all);
    assert_eq!(changes(&["--start-replicas", "1"]), changes(&[]));
    assert!(refusal(&["--start-replicas", "0"]).contains("0 is not in 1.."));
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
fn a_file_that_cannot_be_written_is_refused_before_the_simulation() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing/file");
    let missing = missing.to_str().unwrap();
    let folder = folder.path().to_str().unwrap();
    for (option, path) in [
        ("--report", missing),
        ("--report", folder),
        ("--write-trace", missing),
        ("--write-trace", folder),
    ] {
        // A thousand seeds would take minutes.
        let one = ["--scenario", "step", "--policy", "rate"];
        let refused = refusal(&[&one[..], &["--seeds", "1000", option, path]].concat());
        let start = format!("{option} {path}: the file cannot be written: ");
        assert!(refused.starts_with(&start), "{refused}");
    }
}

#[test]
fn wrong_values_are_wrong_usage() {
    for args in [
        &["--scenario", "flahs"][..],
        &["--policy", "hpa"],
        &["--capacity", "5"],
        &["--seed", "18446744073709551615", "--seeds", "3"],
        &["--scenario", "step", "--write-trace", "/nonexistent"],
    ] {
        let error = simulated(args).unwrap_err();
        assert!(error.is::<crate::cli::WrongUsage>(), "{error}");
    }
    let missing = simulated(&["--trace", "/nonexistent"]).unwrap_err();
    assert!(!missing.is::<crate::cli::WrongUsage>(), "{missing}");
}

#[test]
fn options_for_another_source_are_refused() {
    for option in [
        ["--over", "6h"],
        ["--group", "orders"],
        ["--cluster", "main"],
    ] {
        for source in [&["--scenario", "step"][..], &["--trace", "a.jsonl"], &[]] {
            let refused = refusal(&[source, &option].concat());
            assert!(refused.contains(option[0]), "{refused}");
        }
    }
}

#[test]
fn a_longer_file_is_replaced() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&vec![b'x'; 1 << 20]).unwrap();
    let path = file.path().to_str().unwrap();
    simulated(&[
        "--scenario",
        "step",
        "--policy",
        "static",
        "--write-trace",
        path,
    ])
    .unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.starts_with('{') && text.ends_with("}\n"));
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
fn lists_scenarios_and_policies() {
    let text = simulated(&["--list"]).unwrap();
    for name in [
        "diurnal",
        "flash/slo-15",
        "generated-",
        "policies: rate, ",
        "lag-grid (lag-100-0s, ",
        "lag-TARGET-SECONDSs",
    ] {
        assert!(text.contains(name), "{name} in {text}");
    }
    let json = simulated(&["--list", "-o", "json"]).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["policy_sets"]["lag-grid"][2], "lag-100");
}

#[test]
fn the_check_is_of_fixed_scenarios_and_policies() {
    let clap_error = |args: &[&str]| SimulateCli::try_parse_from(args).unwrap_err().to_string();
    for option in [
        &["--scenario", "step"][..],
        &["--slo", "30s"],
        &["--ablation"],
    ] {
        let args = [&["simulate", "--check"], option].concat();
        assert!(
            clap_error(&args).contains("cannot be used with"),
            "{option:?}"
        );
    }
}

#[test]
fn the_ablation_says_what_each_rule_is_worth() {
    let scenarios = builtin_scenarios();
    let policies = ablated_policies();
    let score = |place: u32| RunScore {
        cost_percent: 50.0 + f64::from(place),
        ..RunScore::default()
    };
    let scores = (0..).zip(&policies).map(|(place, _)| vec![score(place)]);
    let result = SweepResult {
        scores: scores.collect(),
    };
    let report = SimulationReport::new(&scenarios[..1], &policies, &result, 0, 1);
    let text = render_ablation(&report);
    let rows: Vec<&str> = text.lines().skip(1).collect();
    assert_eq!(rows.len(), 1 + PolicyRule::ALL.len(), "{text}");
    for (place, row) in rows.iter().enumerate() {
        let worth = format!(" +{place}.0 ");
        assert!(row.contains(&worth), "{worth}: {text}");
    }
    for (row, rule) in rows[1..].iter().zip(PolicyRule::ALL) {
        assert!(row.contains(&format!("{rule:?}")), "{rule:?}: {text}");
    }
}

/// A trace of the scenario `step` under lag / 200.
fn recorded_step() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let args = [
        "--scenario",
        "step",
        "--policy",
        "lag-200",
        "--write-trace",
        path,
    ];
    simulated(&args).unwrap();
    file
}

#[test]
fn a_replay_is_compared_with_the_recorded_run() {
    let file = recorded_step();
    let path = file.path().to_str().unwrap();
    let args = [
        "--trace",
        path,
        "--policy",
        "rate",
        "--policy",
        "static",
        "--slo",
        "30s",
        "--partitions",
        "36",
    ];
    insta::assert_snapshot!("replayed_trace", simulated(&args).unwrap());
    let json = simulated(&[
        "--trace",
        path,
        "--policy",
        "static",
        "--capacity",
        "100",
        "-o",
        "json",
    ]);
    let json: serde_json::Value = serde_json::from_str(&json.unwrap()).unwrap();
    assert_eq!(json["trace"]["capacity"]["basis"], "given");
    assert_eq!(json["trace"]["samples"], 2160);
    assert_eq!(json["runs"][0]["scenario"], "trace");
    assert!(
        json["trace"]["recorded"]["whole"]["rebalances"]
            .as_f64()
            .unwrap()
            > 50.0
    );
}

#[test]
fn an_invalid_trace_is_refused_with_the_line() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    let refusal = |args: &[&str]| refusal(args).replace(&path, "FILE");
    assert_eq!(
        refusal(&["--trace", &path]),
        "--trace FILE: the file is empty; lagwise record writes traces"
    );
    writeln!(
        file,
        "{{\"lagwise_trace\":1,\"group\":\"a\",\"cluster\":\"b\"}}\n[]"
    )
    .unwrap();
    assert!(refusal(&["--trace", &path]).starts_with("--trace FILE: line 2: not a sample"));
    assert!(
        refusal(&["--from-prometheus", &path])
            .starts_with("--from-prometheus FILE: line 1: not a response")
    );
    assert!(refusal(&["--from-prometheus", "http://localhost:9"]).contains("add --group"));
    assert!(refusal(&["--trace", "/nonexistent"]).contains("--trace /nonexistent: No such file"));
    assert!(refusal(&["--trace", &path, "--scenario", "step"]).contains("cannot be used with"));
    assert!(refusal(&["--capacity", "5"]).contains("use them with --trace"));
    assert!(refusal(&["--write-trace", &path]).contains("add --scenario and --policy"));
}

#[test]
fn the_optimum_adds_a_row_and_the_regret() {
    let args = [
        "--scenario",
        "step",
        "--policy",
        "rate",
        "--policy",
        "static",
        "--optimum",
    ];
    let text = simulated(&args).unwrap();
    let rows: Vec<&str> = text.lines().map(str::trim).collect();
    assert!(rows[1].ends_with("REGRET  OVER CLAIRVOYANT"), "{text}");
    assert!(rows[2].starts_with("optimum "), "{text}");
    for (row, policy) in rows[3..].iter().zip(["clairvoyant", "rate", "static"]) {
        let regret = row.split_whitespace().rev().nth(1).unwrap_or_default();
        assert!(row.starts_with(policy) && regret.starts_with('+'), "{text}");
    }
    let json = simulated(&[&args[..], &["-o", "json"]].concat()).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["optimum"]["scenarios"][0]["scenario"], "step");
    let optimum = &json["optimum"];
    let costs = [&optimum["mean"], &optimum["clairvoyant"], &json["means"][0]];
    let costs = costs.map(|of| of["cost"].as_f64().unwrap());
    assert!(costs[0] < costs[1] && costs[0] < costs[2], "{costs:?}");
    assert_eq!(
        optimum["scenarios"][0]["clairvoyant"]["policy"],
        "clairvoyant"
    );
}
