//! The configuration through its public interface: every mistake with its exact message, the example file, the schema,
//! and secrets, which must never appear in any output.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::env::VarError;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use lagwise::config::{
    AuthMode, ClientChoice, Config, Environment, KubernetesMode, LogFormat, json_schema,
};
use lagwise::model::settings::form::Form;
use lagwise::model::settings::scaling_policy::ScalingPolicy;
use lagwise::model::settings::{By, FileSection, Setting, Settings};
use lagwise::model::units::newtypes::{Isolation, OffsetReset};
use lagwise::model::units::quantity::Milli;
use proptest::prelude::*;

const EXAMPLE: &str = include_str!("../config/lagwise.yaml");
/// The secret in every case, which must not appear in any output.
const SECRET: &str = "hunter2";

/// Variables and files that do not depend on the machine.
struct Pretended;

impl Environment for Pretended {
    fn variable(&self, name: &str) -> Result<String, VarError> {
        match name {
            "SECRET"
            | "KAFKA_USERNAME"
            | "KAFKA_PASSWORD"
            | "CONFLUENT_API_KEY"
            | "CONFLUENT_API_SECRET" => Ok(SECRET.to_owned()),
            "EMPTY" => Ok(String::new()),
            _ => Err(VarError::NotPresent),
        }
    }

    fn read_file(&self, path: &Path) -> io::Result<String> {
        if path.starts_with("/etc/lagwise") || path.starts_with("/etc/tls") {
            return Ok(format!("{SECRET}\n"));
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "no such file"))
    }

    fn check_file(&self, path: &Path) -> io::Result<()> {
        self.read_file(path).map(drop)
    }

    fn is_open_to_all(&self, _: &Path) -> bool {
        false
    }
}

/// As [`Pretended`], with every variable set: for the table, whose cases want some of them missing.
struct NoLogins;

impl Environment for NoLogins {
    fn variable(&self, name: &str) -> Result<String, VarError> {
        if name.starts_with("KAFKA") {
            Err(VarError::NotPresent)
        } else {
            Pretended.variable(name)
        }
    }

    fn read_file(&self, path: &Path) -> io::Result<String> {
        Pretended.read_file(path)
    }

    fn check_file(&self, path: &Path) -> io::Result<()> {
        Pretended.check_file(path)
    }

    fn is_open_to_all(&self, path: &Path) -> bool {
        Pretended.is_open_to_all(path)
    }
}

fn parse(text: &str) -> Config {
    Config::parse(text, &Pretended)
        .map_err(|error| error.to_string())
        .expect("a valid configuration")
}

/// A minimal file with something more.
fn with(more: &str) -> String {
    format!("clusters: [{{name: main, properties: {{bootstrap.servers: \"b:9092\"}}}}]\n{more}")
}

fn cases() -> Vec<(&'static str, &'static str)> {
    include_str!("config/invalid.txt")
        .split("### ")
        .skip(1)
        .map(|case| {
            case.split_once('\n')
                .expect("a name, and a line for the file")
        })
        .collect()
}

fn snapshot(name: &str, content: &str) {
    insta::with_settings!({
        snapshot_path => "config",
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, { insta::assert_snapshot!(name, content) });
}

#[test]
fn every_mistake_has_its_message() {
    let mut table = String::new();
    for (name, text) in cases() {
        let error = match Config::parse(text, &NoLogins) {
            Ok(config) => panic!("{name} is accepted: {config:?}"),
            Err(error) => error.in_file("lagwise.yaml").to_string(),
        };
        assert!(!error.contains(SECRET), "{name} shows the secret: {error}");
        writeln!(table, "### {name}").unwrap();
        for (index, line) in text.lines().enumerate() {
            writeln!(table, "{:>4} | {line}", index + 1).unwrap();
        }
        writeln!(table, "{error}\n").unwrap();
    }
    assert!(cases().len() >= 40);
    snapshot("invalid", &table);
}

#[test]
fn every_problem_names_its_key() {
    for (name, text) in cases() {
        let error = Config::parse(text, &NoLogins).unwrap_err();
        for problem in error.problems() {
            let of_the_file = [
                "empty file",
                "only comments",
                "not a mapping",
                "two documents",
            ];
            let named = !problem.key.is_empty() && problem.allowed.is_some();
            assert!(
                named || of_the_file.contains(&name) || name.starts_with("broken YAML"),
                "{name}: {problem}"
            );
        }
    }
}

/// A mistake of a new user: its name, the text that the message must contain, and the file.
fn mistakes() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let text = include_str!("config/mistakes.txt");
    text.split("### ").skip(1).map(|case| {
        let mut parts = case.splitn(4, '\n');
        let mut next = || parts.next().expect("name, check:, helm: and the file");
        let (name, check, helm, file) = (next(), next(), next(), next());
        assert!(helm.starts_with("helm: "), "{name}");
        let wanted = check.strip_prefix("check: ").expect(name);
        (name, wanted, file)
    })
}

#[test]
fn mistakes_of_first_time_users_are_explained_with_their_place() {
    assert!(mistakes().count() >= 40);
    let mut problems = String::new();
    for (name, wanted, text) in mistakes() {
        let mut check = Command::new(env!("CARGO_BIN_EXE_lagwise"))
            .args(["config", "check", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = check.stdin.take().unwrap();
        input.write_all(text.as_bytes()).unwrap();
        drop(input);
        let output = check.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let is_placed = |line: &str| {
            let mut parts = line.splitn(4, ':').skip(1);
            let mut is_number = || parts.next().is_some_and(|part| part.parse::<u32>().is_ok());
            line.starts_with("stdin:") && is_number() && is_number()
        };
        if output.status.code() != Some(1) {
            writeln!(problems, "{name}: accepted").unwrap();
        } else if !stderr.contains(wanted) {
            writeln!(problems, "{name}: no {wanted:?} in\n{stderr}").unwrap();
        } else if !stderr.lines().all(is_placed) {
            writeln!(problems, "{name}: no line and column in\n{stderr}").unwrap();
        }
    }
    assert!(problems.is_empty(), "\n{problems}");
}

#[test]
fn broken_yaml_around_a_secret_does_not_show_it() {
    for before in [
        "",
        "!",
        "!!",
        "!<",
        "%",
        "@",
        "`",
        "*",
        "&",
        "|",
        ">",
        "'",
        "\"",
        "\"\\",
        "- ",
        "? ",
        ": ",
        "{",
        "[",
        "}",
        "]",
        ",",
        "#",
        "!!int ",
        "!!binary ",
        "a: ",
        "${",
        "${env:",
        "\t",
        "{a: ",
    ] {
        for after in ["", "'", "\"", "}", ": x", "\n  x"] {
            let text = format!(
                "clusters:\n  - name: a\n    properties:\n      bootstrap.servers: b:9092\n      \
                 sasl.password: {before}{SECRET}{after}\npoll: often\n"
            );
            match Config::parse(&text, &Pretended) {
                // A reference's own text is shown, and so is the name of the variable.
                Err(error) if before != "${env:" => {
                    assert!(!error.to_string().contains(SECRET), "{text}\n{error}");
                }
                Err(_) => {}
                Ok(_) => panic!("poll: often was accepted:\n{text}"),
            }
        }
    }
}

#[test]
fn deep_nesting_ends_at_a_limit() {
    let error = Config::parse(&"[".repeat(100_000), &Pretended)
        .unwrap_err()
        .to_string();
    assert!(error.contains("invalid YAML"), "{error}");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(place in 0..1_000_000_usize, cut in 0..40_usize, put in ".{0,8}|[-:{}\\[\\]#&*!|>'\"%@$ \n]{0,8}") {
        let text: Vec<char> = uncommented().chars().collect();
        let start = place % text.len();
        let end = (start + cut).min(text.len());
        let broken: String = text[..start].iter().copied().chain(put.chars()).chain(text[end..].iter().copied()).collect();
        if let Err(error) = Config::parse(&broken, &Pretended) {
            prop_assert!(!error.problems().is_empty());
            prop_assert!(error.problems().iter().all(|problem| !problem.to_string().contains('\n')));
        }
    }
}

#[test]
fn the_least_file_has_every_default() {
    let config = parse(&with(""));
    assert_eq!(config, Config::new(config.clusters.clone()));
    let cluster = &config.clusters[0];
    assert_eq!(
        (cluster.name.as_str(), cluster.client, cluster.max_groups),
        ("main", ClientChoice::Auto, 50)
    );
    assert_eq!(config.poll.interval, Duration::from_secs(5));
    assert_eq!(config.poll.deadline, Duration::from_secs(4));
    assert_eq!(config.poll.max_staleness, Duration::from_secs(30));
    assert!(config.kubernetes.enabled && config.cap.clamp && config.targets.is_empty());
    assert_eq!(config.kubernetes.mode, KubernetesMode::Serve);
    assert_eq!(
        config.server.external_metrics.listen.to_string(),
        "0.0.0.0:6443"
    );
    assert_eq!(config.server.external_metrics.auth, AuthMode::Kubernetes);
    let server = &config.server;
    assert_eq!(server.metrics.listen.to_string(), "0.0.0.0:8080");
    assert_eq!(server.probes.listen.to_string(), "0.0.0.0:8081");
    assert_eq!(server.admin.listen.to_string(), "127.0.0.1:8082");
    assert_eq!(
        (config.log.format, config.log.filter.as_str()),
        (LogFormat::Text, "info")
    );
}

#[test]
fn a_section_without_a_value_equals_a_missing_one() {
    assert_eq!(
        parse(&with(
            "poll:\ntargets:\nkubernetes: ~\ncap:\nserver:\n  http:\nlog: {format: }\n"
        )),
        parse(&with(""))
    );
}

#[test]
fn every_key_can_be_set() {
    let config = parse(
        "clusters:\n\
         - {name: eu, client: librdkafka, token: none, max_groups: 7, properties: {bootstrap.servers: 'b:9092'}}\n\
         - {name: us, properties: {bootstrap.servers: 'c:9092'}}\n\
         poll: {interval: 1s, deadline: 900ms, max_staleness: 1m 30s}\n\
         targets:\n\
         - {name: t, namespaces: [shop], cluster: us, group: 'the group', topics: [a, b], lag_per_replica: 10, offset_reset: earliest,\n\
         \x20 isolation: read_committed, partitions: '0-5,9', threads_per_replica: 4, even: true, by: lagging,\n\
         \x20 fallback_replicas: 3, fallback_after: 15m, policy: rate, slo: 30s}\n\
         - {name: u, cluster: eu, group: g, topic_regex: 'orders-.*'}\n\
         kubernetes: {enabled: false, mode: serve, namespaces: [shop], kubeconfig: /etc/lagwise/kubeconfig, context: c}\n\
         cap: {clamp: false}\n\
         policy: {default: recommend}\n\
         lag: {residual_max: 3, residual_after: 1s, stuck_after: 2s, stuck_counts: false, forget_after: 3d}\n\
         state: {config_map: kept}\n\
         server:\n  external_metrics: {listen: '[::1]:1', auth: none, tls: {cert_file: /etc/tls/a, key_file: /etc/tls/b}}\n  metrics: {listen: '127.0.0.1:2'}\n  \
         external_scaler: {listen: '0.0.0.0:9443', client_ca_file: /etc/tls/ca, tls: {cert_file: /etc/tls/c, key_file: /etc/tls/d}}\n\
         otlp: {endpoint: 'https://c:4318/', interval: 5s, ca_file: /etc/tls/a, token_file: /etc/tls/b}\n\
         log: {format: json, filter: 'warn,lagwise::kafka=debug'}\n",
    );
    assert_eq!(config.clusters[0].client, ClientChoice::Librdkafka);
    assert_eq!(config.clusters[0].max_groups, 7);
    assert_eq!(config.poll.deadline, Duration::from_millis(900));
    assert_eq!(config.poll.max_staleness, Duration::from_secs(90));
    let target = &config.targets[0];
    assert_eq!(
        (target.cluster.as_str(), target.group.as_str()),
        ("us", "the group")
    );
    assert_eq!(
        target.settings.named_topics(),
        ["a".into(), "b".into()].into()
    );
    let settings = &target.settings;
    assert_eq!(
        (settings.lag_per_replica, settings.offset_reset),
        (Some(Milli::from_units(10)), Some(OffsetReset::Earliest))
    );
    assert_eq!(settings.isolation, Some(Isolation::ReadCommitted));
    assert_eq!(settings.partitions.as_ref().unwrap().to_string(), "0-5,9");
    assert_eq!(
        (settings.threads_per_replica().get(), settings.even()),
        (4, true)
    );
    assert_eq!(settings.by(), By::Lagging);
    assert_eq!(
        (settings.policy, settings.slo()),
        (Some(ScalingPolicy::Rate), Duration::from_secs(30))
    );
    assert_eq!(config.policy.default, ScalingPolicy::Recommend);
    let fallback = settings.fallback().unwrap();
    assert_eq!(
        (fallback.replicas.get(), fallback.after),
        (3, Duration::from_secs(900))
    );
    let pattern = &config.targets[1].settings;
    assert_eq!(pattern.pattern().unwrap().as_str(), "orders-.*");
    assert_eq!(target.namespaces, ["shop"]);
    assert!(!config.kubernetes.enabled && !config.cap.clamp);
    assert_eq!(config.kubernetes.context.as_deref(), Some("c"));
    let lag = config.lag.thresholds();
    assert_eq!((lag.residual_max.0, lag.stuck_counts), (3, false));
    assert_eq!(
        [lag.residual_after, lag.stuck_after, lag.forget_after],
        [1, 2, 3 * 24 * 3600].map(Duration::from_secs)
    );
    assert_eq!(config.state.config_map.as_deref(), Some("kept"));
    let api = &config.server.external_metrics;
    assert_eq!(
        (api.listen.to_string().as_str(), api.auth),
        ("[::1]:1", AuthMode::None)
    );
    assert_eq!(api.tls.as_ref().unwrap().key_file, Path::new("/etc/tls/b"));
    let scaler = &config.server.external_scaler;
    assert_eq!(scaler.listen.unwrap().to_string(), "0.0.0.0:9443");
    assert_eq!(
        scaler.tls.as_ref().unwrap().key_file,
        Path::new("/etc/tls/d")
    );
    let authority = scaler.client_ca_file.as_deref();
    assert_eq!(authority, Some(Path::new("/etc/tls/ca")));
    let otlp = &config.otlp;
    assert_eq!(otlp.endpoint.as_deref(), Some("https://c:4318"));
    // The timeout is at most the interval.
    assert_eq!(
        (otlp.interval, otlp.timeout),
        (otlp.timeout, Duration::from_secs(5))
    );
    let files = [&otlp.ca_file, &otlp.token_file].map(|file| file.as_deref());
    assert_eq!(
        files,
        ["/etc/tls/a", "/etc/tls/b"].map(|file| Some(Path::new(file)))
    );
    assert_eq!(
        (config.log.format, config.log.filter.as_str()),
        (LogFormat::Json, "warn,lagwise::kafka=debug")
    );
}

#[test]
fn the_only_cluster_is_every_targets_cluster() {
    let config = parse(&with("targets: [{name: t, group: g}]"));
    assert_eq!(config.targets[0].cluster.as_str(), "main");
}

#[test]
fn a_changed_interval_brings_its_deadline_and_staleness() {
    let poll = |text: &str| parse(&with(text)).poll;
    assert_eq!(
        poll("poll: {interval: 1s}").deadline,
        Duration::from_millis(800)
    );
    assert_eq!(
        poll("poll: {interval: 1s}").max_staleness,
        Duration::from_secs(30)
    );
    assert_eq!(
        poll("poll: {interval: 1m}").max_staleness,
        Duration::from_secs(360)
    );
    assert_eq!(
        poll("poll: {interval: 1m, deadline: 1m}").deadline,
        Duration::from_secs(60)
    );
}

#[test]
fn property_values_keep_their_spelling() {
    let config = parse(
        "clusters:\n  - name: a\n    properties:\n      bootstrap.servers: b\n      \
         a: 0123\n      b: 1.50\n      c: True\n      d: 180000\n      e: 1e999\n      f: yes\n      \
         g: 0x1F\n      h: $ConnectionString\n      i: $${x}\n      j: '007'\n      k: 1_000\n      l: ''\n",
    );
    let values: Vec<_> = config.clusters[0]
        .properties
        .iter()
        .map(|(_, value)| value)
        .collect();
    assert_eq!(
        values,
        [
            "0123",
            "1.50",
            "b",
            "True",
            "180000",
            "1e999",
            "yes",
            "0x1F",
            "$ConnectionString",
            "${x}",
            "007",
            "1_000",
            ""
        ]
    );
}

#[test]
fn no_comment_is_too_long() {
    let config = parse(&with(&format!(
        "targets:\n{}",
        "    # why\n".repeat(10_000)
    )));
    assert!(config.targets.is_empty());
}

#[test]
fn anchors_and_merges_are_followed() {
    let config = parse(
        "clusters:\n  - {name: a, properties: &login {bootstrap.servers: b, client.rack: u}}\n  \
         - {name: c, properties: {<<: *login, bootstrap.servers: d}}\n",
    );
    let second = &config.clusters[1].properties;
    assert_eq!(
        (second.get("bootstrap.servers"), second.get("client.rack")),
        (Some("d"), Some("u"))
    );
}

#[test]
fn secrets_are_in_the_properties_only() {
    let config = parse(&format!(
        "clusters:\n  - name: a\n    properties:\n      bootstrap.servers: ${{env:SECRET}}:9092\n      \
         security.protocol: SASL_SSL\n      sasl.mechanism: PLAIN\n      sasl.username: user-${{file:/etc/lagwise/s}}\n      sasl.password: {SECRET}\n      \
         ssl.key.pem: {SECRET}\n      ssl.key.password: {SECRET}\n      ssl.keystore.password: {SECRET}\n      \
         sasl.oauthbearer.client.secret: {SECRET}\n      client.id: shown\n"
    ));
    let properties = &config.clusters[0].properties;
    assert_eq!(properties.get("bootstrap.servers"), Some("hunter2:9092"));
    assert_eq!(properties.get("sasl.username"), Some("user-hunter2"));
    assert_eq!(
        properties
            .iter()
            .filter(|(_, value)| value.contains(SECRET))
            .count(),
        7
    );
    for shown in [
        format!("{config:?}"),
        format!("{config:#?}"),
        serde_json::to_string(&config).unwrap(),
        serde_saphyr::to_string(&config).unwrap(),
    ] {
        assert!(!shown.contains(SECRET), "{shown}");
        assert!(
            shown.contains("[redacted]") && shown.contains("shown"),
            "{shown}"
        );
    }
}

#[test]
fn a_serialised_configuration_can_be_parsed() {
    let config = parse(&with(
        "poll: {interval: 1m 30s}\ntargets: [{name: t, group: g, offset_reset: earliest, topic_regex: 'a.*', partitions: '1-2', by: lagging}]",
    ));
    assert_eq!(parse(&serde_saphyr::to_string(&config).unwrap()), config);
}

/// The text of a YAML value that an annotation would have as `text`.
fn as_yaml(setting: &Setting, text: &str) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    match setting.form {
        Form::Flag | Form::Number { .. } | Form::Quantity => text.to_owned(),
        Form::Topics => {
            let topics: Vec<_> = text.split(',').map(|topic| quoted(topic.trim())).collect();
            format!("[{}]", topics.join(", "))
        }
        Form::Duration { .. } | Form::Choice(_) | Form::Text { .. } => quoted(text),
    }
}

fn value_of_a_setting() -> impl Strategy<Value = String> {
    prop_oneof![
        "0|-?[1-9][0-9]{0,6}",
        "[0-9]{1,4}(s|m|h|d|w|y)",
        "true|false|partitions|lagging|latest|earliest|read_committed|read_uncommitted",
        "[a-z]{1,9}(,[a-z.-]{1,9}){0,2}",
        "[0-9]{1,2}-[0-9]{1,2}(,[0-9]{1,3})?",
        "[a-z(|)*+.]{1,9}",
    ]
}

proptest! {
    #[test]
    fn a_file_and_an_annotation_read_a_value_alike(text in value_of_a_setting()) {
        for (section, file) in [
            (FileSection::Lag, "lag: {KEY: VALUE}"),
            (FileSection::Targets, "targets: [{name: t, group: g, KEY: VALUE}]"),
        ] {
            for setting in Settings::of_section(section) {
                // The file has whole numbers in place of quantities, and lists each topic once.
                let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
                let topics: Vec<_> = text.split(',').collect();
                let is_list = topics.iter().collect::<BTreeSet<_>>().len() == topics.len();
                if matches!((setting.form, is_number, is_list), (Form::Quantity, false, _) | (Form::Topics, _, false)) {
                    continue;
                }
                let mut annotated = Settings::default();
                let annotation = setting.parse(&text, &mut annotated).map(|()| setting.print(&annotated));
                let file = file.replace("KEY", setting.file_key).replace("VALUE", &as_yaml(setting, &text));
                let config = Config::parse(&with(&file), &Pretended);
                let in_file = config.map(|config| {
                    let settings = match section {
                        FileSection::Lag => config.lag.settings().clone(),
                        FileSection::Targets => config.targets[0].settings.clone(),
                    };
                    setting.print(&settings)
                });
                prop_assert_eq!(annotation.ok(), in_file.ok(), "{}: {}", setting.key, text);
            }
        }
    }
}

#[test]
fn a_file_is_loaded_and_its_errors_carry_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lagwise.yaml");
    let message = || {
        Config::load(&file)
            .unwrap_err()
            .to_string()
            .replace(file.to_str().unwrap(), "FILE")
    };
    assert_eq!(
        message(),
        "FILE: cannot be read: No such file or directory (os error 2)"
    );
    std::fs::write(&file, with("cap: {clamp: 1}\npoll: {deadline: 1h}")).unwrap();
    assert_eq!(
        message(),
        "FILE:2:7: cap.clamp: 1: a number, not true or false; allowed: true, false\n\
         FILE:3:8: poll.deadline: \"1h\": too long; allowed: 10ms to 5s (poll.interval), written as 500ms, 5s or 1m 30s"
    );
    std::fs::write(&file, b"\xff\xfe").unwrap();
    assert!(message().starts_with("FILE: cannot be read: "));
    let password = folder.path().join("password");
    std::fs::write(&password, "s3cret\n").unwrap();
    let login = format!("${{file:{}}}", password.display());
    std::fs::write(
        &file,
        with("").replace(
            "{bootstrap",
            &format!("{{security.protocol: SASL_SSL, sasl.mechanism: PLAIN, sasl.password: '{login}', bootstrap"),
        ),
    )
    .unwrap();
    let config = Config::load(&file).unwrap();
    assert_eq!(
        config.clusters[0].properties.get("sasl.password"),
        Some("s3cret")
    );
}

#[test]
fn the_example_is_the_defaults() {
    let config = parse(EXAMPLE);
    assert_eq!(config, Config::new(config.clusters.clone()));
    let properties = config.clusters[0].properties.clone();
    assert_eq!(
        config.clusters,
        [lagwise::config::ClusterConfig::new(
            "main".into(),
            properties
        )]
    );
}

#[test]
fn the_external_scaler_needs_to_know_its_callers() {
    let with = |scaler: &str| {
        let text = format!(
            "clusters: [{{name: a, properties: {{bootstrap.servers: b}}}}]\nserver: {{external_scaler: {{{scaler}}}}}\n"
        );
        let parsed = Config::parse(&text, &Pretended);
        parsed.map_err(|error| error.to_string())
    };
    let open = with("listen: '0.0.0.0:9443', auth: none").unwrap();
    assert_eq!(open.server.external_scaler.client_ca_file, None);
    assert_eq!(
        with("auth: certificate")
            .unwrap()
            .server
            .external_scaler
            .listen,
        None
    );
    for (scaler, wanted) in [
        (
            "listen: '0.0.0.0:9443'",
            "is missing, so no caller can be authenticated",
        ),
        (
            "listen: '0.0.0.0:9443', auth: none, client_ca_file: /etc/tls/ca",
            "has no effect with auth: none",
        ),
        (
            "listen: '0.0.0.0:8080', auth: none",
            "server.metrics.listen and server.external_scaler.listen are the same port",
        ),
        (
            "listen: 'scaler:9443', auth: none",
            "server.external_scaler.listen",
        ),
        (
            "listen: '0.0.0.0:9443', auth: password",
            "certificate, none",
        ),
    ] {
        let said = with(scaler).unwrap_err();
        assert!(said.contains(wanted), "{scaler}: {said}");
    }
}

/// Takes the # from the lines that are YAML to uncomment.
fn uncommented() -> String {
    let line = |line: &str| match line.trim_start().strip_prefix('#') {
        Some(yaml) if yaml.starts_with(|c: char| !c.is_whitespace()) => line.replacen('#', "", 1),
        _ => line.to_owned(),
    };
    EXAMPLE.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_is_valid_with_everything_uncommented() {
    let config = parse(&uncommented());
    let names: Vec<_> = config
        .clusters
        .iter()
        .map(|cluster| cluster.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "main",
            "msk-mtls",
            "msk-scram",
            "event-hubs",
            "confluent-cloud",
            "strimzi",
            "msk-iam",
            "event-hubs-identity",
            "google",
            "confluent-cloud-sso",
            "token-file"
        ]
    );
    let event_hubs = &config.clusters[3].properties;
    assert_eq!(event_hubs.get("sasl.username"), Some("$ConnectionString"));
    assert_eq!(event_hubs.get("sasl.password"), Some(SECRET));
    assert_eq!(config.targets[0].name, "orders");
    assert!(config.server.external_metrics.tls.is_some());
}

/// The paths of all keys of a schema, list items as `[]`.
fn keys_of_schema(schema: &serde_json::Value, path: &str, keys: &mut BTreeSet<String>) {
    for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{key}").trim_start_matches('.').to_owned();
        keys_of_schema(inner, &path, keys);
        keys.insert(path);
    }
    if schema["items"].is_object() {
        keys_of_schema(&schema["items"], &format!("{path}[]"), keys);
    }
    for choices in ["anyOf", "oneOf"] {
        for choice in schema[choices].as_array().into_iter().flatten() {
            keys_of_schema(choice, path, keys);
        }
    }
}

/// The paths of all keys of a file; those of librdkafka are not ours.
fn keys_of_file(file: &serde_json::Value, path: &str, keys: &mut BTreeSet<String>) {
    for (key, inner) in file.as_object().into_iter().flatten() {
        let path = format!("{path}.{key}").trim_start_matches('.').to_owned();
        if key != "properties" && key != "extensions" {
            keys_of_file(inner, &path, keys);
        }
        keys.insert(path);
    }
    for item in file.as_array().into_iter().flatten() {
        keys_of_file(item, &format!("{path}[]"), keys);
    }
}

#[test]
fn the_example_has_every_key_of_the_schema_and_no_other() {
    let (mut in_schema, mut in_example) = (BTreeSet::new(), BTreeSet::new());
    keys_of_schema(&json_schema(), "", &mut in_schema);
    let example: serde_json::Value = serde_saphyr::from_str(&uncommented()).unwrap();
    keys_of_file(&example, "", &mut in_example);
    assert_eq!(in_schema, in_example);
    assert!(in_schema.contains("server.external_metrics.tls.key_file"));
}

#[test]
fn the_readers_know_the_keys_of_the_schema_and_no_other() {
    // A file with a wrong key in every mapping: each reader then lists the keys it knows.
    let error = Config::parse(
        "zzz: 1\n\
         clusters:\n  \
         - {zzz: 1, name: a, properties: {bootstrap.servers: b}}\n  \
         - {name: b, properties: {bootstrap.servers: b}, token: {zzz: 1}}\n  \
         - {name: c, properties: {bootstrap.servers: b}, token: {file: {zzz: 1, path: /etc/tls/a}}}\n  \
         - {name: d, properties: {bootstrap.servers: b}, token: {oidc: {zzz: 1, token_url: 'http://t', client_id: i, client_secret: s}}}\n  \
         - {name: e, properties: {bootstrap.servers: b}, token: {aws_msk_iam: {zzz: 1, region: r}}}\n  \
         - {name: f, properties: {bootstrap.servers: b}, token: {azure_workload_identity: {zzz: 1}}}\n\
         targets: [{zzz: 1, name: t, group: g, cluster: a}]\n\
         tenancy: [{zzz: 1}]\n\
         budgets: {zzz: 1, hpa: {zzz: 1}, namespace: {zzz: 1}, total: {zzz: 1}}\n\
         poll: {zzz: 1}\nlag: {zzz: 1}\nkubernetes: {zzz: 1}\ncap: {zzz: 1, enforce: {zzz: 1}}\npolicy: {zzz: 1}\nscale_to_zero: {zzz: 1}\nleader: {zzz: 1}\nstate: {zzz: 1}\notlp: {zzz: 1}\nlog: {zzz: 1}\n\
         server:\n  zzz: 1\n  metrics: {zzz: 1}\n  probes: {zzz: 1}\n  admin: {zzz: 1}\n  \
         external_scaler: {zzz: 1, tls: {zzz: 1, cert_file: /etc/tls/a, key_file: /etc/tls/b}}\n  \
         external_metrics:\n    zzz: 1\n    tls: {zzz: 1, cert_file: /etc/tls/a, key_file: /etc/tls/b}\n    \
         upstream: {zzz: 1, url: 'https://u', ca_file: /etc/tls/a, token_file: /etc/tls/b, client_certificate: {zzz: 1, cert_file: /etc/tls/a, key_file: /etc/tls/b}}\n",
        &Pretended,
    )
    .unwrap_err();
    let mut known = BTreeSet::new();
    for problem in error.problems() {
        assert_eq!(problem.problem, "unknown key");
        let mapping = problem.key.trim_end_matches("zzz");
        let mapping = (0..6).fold(mapping.to_owned(), |mapping, index| {
            mapping.replace(&format!("[{index}]"), "[]")
        });
        known.extend(
            problem
                .allowed
                .as_ref()
                .unwrap()
                .split(", ")
                .map(|key| format!("{mapping}{key}")),
        );
    }
    let mut in_schema = BTreeSet::new();
    keys_of_schema(&json_schema(), "", &mut in_schema);
    assert_eq!(known, in_schema);
}

#[test]
fn the_schema_is_as_published() {
    snapshot(
        "schema",
        &serde_json::to_string_pretty(&json_schema()).unwrap(),
    );
}
