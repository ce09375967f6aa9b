//! Runs the binary as a user does. The demo covers the whole path from records to replicas, with librdkafka's embedded
//! broker.

#![allow(clippy::unwrap_used, reason = "a test may end by a panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

fn demo(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lagwise"));
    command.arg("demo").args(args).env_remove("RUST_LOG");
    command
}

#[test]
fn replicas_reach_the_partitions_and_come_down_again() {
    let output = demo(&["--for", "30s", "-o", "json"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success(),
        "{}\n{errors}\n{text}",
        output.status
    );
    assert_eq!(errors, "", "nothing is logged unless asked for");

    let mut lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let last = lines.pop().unwrap();
    let summary = &last["summary"];
    assert_eq!(summary["partitions"], 12, "{text}");
    assert_eq!(summary["replicas_max"], 12, "{text}");
    assert!(number(summary, "uncapped_max") > 12, "{text}");
    assert!(number(summary, "lag_peak") > 12 * 100, "{text}");
    assert!(number(summary, "replicas_final") <= 3, "{text}");
    assert!(number(summary, "lag_final") <= 100, "{text}");
    assert!(
        number(summary, "consumed") >= number(summary, "produced"),
        "{text}"
    );

    assert!(lines.len() > 10, "{text}");
    for tick in &lines {
        assert!(tick["t_seconds"].is_number(), "{tick}");
        assert!(
            number(tick, "replicas") <= 12 && number(tick, "desired") <= 12,
            "{tick}"
        );
        assert_eq!(
            tick["partitions"].as_array().map(Vec::len),
            Some(12),
            "{tick}"
        );
        if tick["capped"] == true {
            assert_eq!(tick["ceiling"], 12, "{tick}");
            assert!(
                number(tick, "lag") > 12 * 100 && number(tick, "uncapped") > 12,
                "{tick}"
            );
        }
    }
    let count = |wanted: u64| {
        lines
            .iter()
            .filter(|tick| tick["replicas"] == wanted)
            .count()
    };
    assert!(count(1) > 0 && count(12) > 0, "{text}");
    assert!(lines.iter().any(|tick| tick["capped"] == true), "{text}");
}

/// The response to a GET request.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

#[test]
fn an_interrupt_ends_it_with_a_summary() {
    let mut child = demo(&["--for", "10m"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    // First the page, then what to copy, then a line a tick.
    let page = lines.next().unwrap();
    let address = page
        .strip_prefix("page  http://")
        .unwrap()
        .trim_end_matches('/');
    assert_eq!(lines.next().unwrap(), "");
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with("curl -sk 'https://127.0.0.1:")
    );
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with("curl -s http://127.0.0.1:")
    );
    let tick = lines
        .find(|line| line.starts_with("0:02 base load"))
        .unwrap();
    assert!(
        tick.contains("replicas  1") && tick.contains("ceiling 12"),
        "{tick}"
    );
    let html = get(address, "/");
    assert!(html.contains("<title>HPAs – lagwise</title>"), "{html}");
    assert!(html.contains("/hpas/demo/orders-workers"), "{html}");
    let explained = get(address, "/explain?namespace=demo&hpa=orders-workers");
    // Eight more than there are partitions.
    assert!(explained.contains("\"max_replicas\":20,"), "{explained}");
    let interrupted = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(interrupted.success());
    let rest: Vec<String> = lines.collect();
    assert!(
        rest.iter().any(|line| line.starts_with("partitions  12")),
        "{rest:?}"
    );
    assert!(
        rest.iter()
            .any(|line| line.starts_with("replicas    at most 1, 1 at the end")),
        "{rest:?}"
    );
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_length_that_is_too_short_or_too_long_is_refused() {
    for (length, reason) in [
        ("5s", "20s to 30m"),
        ("1h", "20s to 30m"),
        ("soon", "expected number"),
    ] {
        let output = demo(&["--for", length]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{length}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(reason), "{text}");
    }
}

#[test]
fn a_manifest_is_converted_from_standard_input() {
    let manifest = "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {name: billing, namespace: shop}\nspec:\n  \
         scaleTargetRef: {name: billing}\n  minReplicaCount: 1\n  maxReplicaCount: 20\n  triggers:\n    - type: kafka\n      \
         metadata: {bootstrapServers: \"kafka:9092\", consumerGroup: billing, topic: orders, lagThreshold: \"5\"}\n";
    let mut child = Command::new(env!("CARGO_BIN_EXE_lagwise"))
        .args(["convert", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(manifest.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{}\n{errors}", output.status);
    for expected in [
        "kind: HorizontalPodAutoscaler",
        "maxReplicas: 20",
        "group: billing",
    ] {
        assert!(text.contains(expected), "no {expected} in {text}");
    }
}

#[test]
fn watching_ends_when_the_reader_is_gone() {
    // Nothing listens there, so there are no rows, but an empty list is printed.
    let mut child = Command::new(env!("CARGO_BIN_EXE_lagwise"))
        .args(["lag", "--bootstrap", "127.0.0.1:1", "--timeout", "1s"])
        .args(["--watch", "-o", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    drop(reader);
    let mut has_ended = false;
    for _ in 0..300 {
        has_ended = child.try_wait().unwrap().is_some();
        if has_ended {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(line, "[]\n");
    assert!(has_ended, "it still watches");
}

fn number(object: &Value, key: &str) -> u64 {
    object[key]
        .as_u64()
        .unwrap_or_else(|| panic!("no number {key}: {object}"))
}
