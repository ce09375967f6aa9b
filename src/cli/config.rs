//! `lagwise config`: checks a configuration file, or prints its JSON Schema.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::lint::report::FindingReport;
use crate::config::{
    Config, ConfigError, KeyPlaces, SystemEnvironment, TokenSourceConfig, json_schema,
};
use crate::daemon::{in_pod, validation};
use crate::kafka::login::describe_unset_azure_variables;
use crate::model::findings::Finding;
use crate::model::units::counted::counted;
use crate::model::units::untrusted_text::{printable_json, printable_lines};

/// The arguments of `lagwise config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check a configuration file and list all of its problems
    ///
    /// Finds everything for which the daemon would refuse to start, with line and column.
    ///
    /// References to environment variables and files are resolved, so run this where the daemon
    /// will run, or set them to dummy values. Neither Kafka nor Kubernetes is contacted, and no program of a kubeconfig
    /// is run.
    ///
    /// Settings that give secrets away, such as a password that is sent without TLS, are warnings.
    ///
    /// Exit code: 0 if the file is valid, even with warnings, 1 if it is invalid or cannot be read, 2 for wrong usage.
    #[command(after_help = "Examples:\n  \
        lagwise config check lagwise.yaml\n  \
        lagwise config check - < lagwise.yaml\n  \
        lagwise config check -o json lagwise.yaml | jq '.problems[].key'")]
    Check(CheckArgs),
    /// Print the JSON Schema of the configuration file
    ///
    /// Editors complete and check the file with it.
    #[command(after_help = "Example:\n  \
        lagwise config schema > lagwise.schema.json\n  \
        and as the first line of the file: # yaml-language-server: $schema=lagwise.schema.json")]
    Schema,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// File to check, or - for standard input
    file: PathBuf,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = CheckOutput::Text)]
    output: CheckOutput,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CheckOutput {
    /// One line for each problem or warning, on standard error
    Text,
    /// One object, on standard output
    Json,
}

/// Runs `lagwise config`.
///
/// # Errors
/// The output cannot be written, or standard input cannot be read.
pub async fn run(args: ConfigArgs) -> anyhow::Result<ExitCode> {
    let printed = match args.command {
        ConfigCommand::Check(args) => check(&args).await?,
        ConfigCommand::Schema => Printed {
            stdout: pretty(&json_schema())?,
            ..Printed::default()
        },
    };
    write_all(io::stdout().lock(), &printed.stdout).context("cannot write to standard output")?;
    write_all(io::stderr().lock(), &printed.stderr).context("cannot write to standard error")?;
    Ok(if printed.failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Output of a command.
#[derive(Default)]
struct Printed {
    stdout: String,
    stderr: String,
    failed: bool,
}

async fn check(args: &CheckArgs) -> anyhow::Result<Printed> {
    let (name, result) = read(&args.file)?;
    let result = match result {
        Ok((config, places)) => {
            let notes = validate(&config, &places, &name).await;
            notes.map(|notes| (config, notes))
        }
        Err(error) => Err(error),
    };
    let mut printed = Printed {
        failed: result.is_err(),
        ..Printed::default()
    };
    match (args.output, &result) {
        (CheckOutput::Json, _) => printed.stdout = pretty(&as_json(&name, &result))?,
        (CheckOutput::Text, Ok((config, notes))) => {
            printed.stdout = format!("{name}: ok: {}\n", summary(config));
            printed.stderr = warnings(&name, &insecure_settings(config));
            for note in notes {
                let note = printable_lines(&format!("{name}: note: {note}\n"));
                printed.stderr.push_str(&note);
            }
        }
        (CheckOutput::Text, Err(error)) => printed.stderr = format!("{error}\n"),
    }
    Ok(printed)
}

/// A configuration, with the places of its keys.
type Located = (Config, KeyPlaces);

fn read(file: &Path) -> anyhow::Result<(String, Result<Located, ConfigError>)> {
    if file != Path::new("-") {
        return Ok((file.display().to_string(), Config::load_with_places(file)));
    }
    let name = "stdin".to_owned();
    let mut text = String::new();
    io::stdin()
        .lock()
        .read_to_string(&mut text)
        .context("cannot read standard input")?;
    let result = Config::parse_with_places(&text, &SystemEnvironment);
    let result = result.map_err(|error| error.in_file(&name));
    Ok((name, result))
}

/// Checks that the daemon would start. Returns what else is worth knowing of the clusters.
async fn validate(
    config: &Config,
    places: &KeyPlaces,
    name: &str,
) -> Result<Vec<String>, ConfigError> {
    let found = validation::validate(config).await;
    if let Some(error) = ConfigError::after_reading(found.problems, places) {
        return Err(error.in_file(name));
    }
    let librdkafka = found.read_by_librdkafka.iter().map(|(at, cluster)| {
        format!(
            "clusters[{at}]: {cluster:?} is read by librdkafka, which shows no members of groups: lagwise does not warn of misspelled groups (LW056), small lag is never residual, and new topics that match topic-regex wake no workload"
        )
    });
    let clusters = config.clusters.iter().enumerate();
    let unset = clusters
        .filter(|(_, cluster)| {
            matches!(
                cluster.token,
                TokenSourceConfig::AzureWorkloadIdentity { .. }
            )
        })
        .filter(|_| !in_pod())
        .filter_map(|(at, _)| describe_unset_variables(at, |name| std::env::var(name).ok()));
    let program = found.login_program.iter().map(|program| {
        format!(
            "kubernetes: the kubeconfig logs in by running {program:?}, which was not run here; lagwise check runs it"
        )
    });
    Ok(librdkafka.chain(unset).chain(program).collect())
}

/// A note on the environment variables that Azure workload identity needs and that are not set; `None` if all are.
fn describe_unset_variables(
    at: usize,
    variable: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    let unset = describe_unset_azure_variables(variable)?;
    Some(format!(
        "clusters[{at}].token.azure_workload_identity: {unset}"
    ))
}

fn insecure_settings(config: &Config) -> BTreeSet<Finding> {
    config.find_insecure_settings(&SystemEnvironment)
}

/// One line for each finding.
fn warnings(name: &str, findings: &BTreeSet<Finding>) -> String {
    let line = |finding: &Finding| {
        let code = finding.code;
        let (severity, fix) = (code.severity(), code.fix());
        format!("{name}: {severity} {}: {finding}. {fix}\n", code.code())
    };
    printable_lines(&findings.iter().map(line).collect::<String>())
}

fn summary(config: &Config) -> String {
    let clusters = counted(config.clusters.len(), "cluster");
    format!("{clusters}, {}", counted(config.targets.len(), "target"))
}

fn as_json(name: &str, result: &Result<(Config, Vec<String>), ConfigError>) -> serde_json::Value {
    match result {
        Ok((config, notes)) => json!({
            "file": name,
            "ok": true,
            "clusters": config.clusters.len(),
            "targets": config.targets.len(),
            "problems": [],
            "warnings": FindingReport::sorted(&insecure_settings(config), None),
            "notes": notes,
        }),
        Err(error) => {
            json!({ "file": name, "ok": false, "problems": error.problems(), "warnings": [], "notes": [] })
        }
    }
}

fn pretty(value: &serde_json::Value) -> anyhow::Result<String> {
    let text = serde_json::to_string_pretty(value)?;
    Ok(format!("{}\n", printable_json(&text)))
}

/// Writes everything; a closed pipe (`| head`) is not an error.
fn write_all(mut to: impl Write, text: &str) -> io::Result<()> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::kafka::Feature;
    use clap::Parser;

    #[derive(Parser)]
    struct ConfigCli {
        #[command(flatten)]
        config: ConfigArgs,
    }

    fn parsed(args: &[&str]) -> Result<ConfigCommand, clap::Error> {
        Ok(ConfigCli::try_parse_from([&["config"], args].concat())?
            .config
            .command)
    }

    async fn checked(args: &[&str]) -> Printed {
        match parsed(args).unwrap() {
            ConfigCommand::Check(args) => check(&args).await.unwrap(),
            ConfigCommand::Schema => Printed::default(),
        }
    }

    #[tokio::test]
    async fn notes_limits_of_librdkafka() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lagwise.yaml");
        for (more, is_noted) in [
            ("client: librdkafka", true),
            ("client: auto", false),
            ("max_groups: 5", false),
        ] {
            let text = format!(
                "clusters: [{{name: main, properties: {{bootstrap.servers: \"k:9092\"}}, {more}}}]"
            );
            std::fs::write(&file, text).unwrap();
            let path = file.to_str().unwrap();
            let text = checked(&["check", path]).await;
            assert!(!text.failed, "{}", text.stderr);
            let note = "note: clusters[0]: \"main\" is read by librdkafka";
            assert_eq!(text.stderr.contains(note), is_noted, "{}", text.stderr);
            let json = checked(&["check", "-o", "json", path]).await;
            assert_eq!(json.stdout.contains("LW056"), is_noted, "{}", json.stdout);
        }
    }

    #[tokio::test]
    async fn prints_results_to_stdout_and_problems_to_stderr() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lagwise.yaml");
        let path = file.to_str().unwrap();
        let missing = checked(&["check", path]).await;
        assert!(missing.failed && missing.stderr.starts_with(path) && missing.stdout.is_empty());
        std::fs::write(
            &file,
            "clusters: [{name: a, properties: {bootstrap.servers: b}}]",
        )
        .unwrap();
        let valid = checked(&["check", path]).await;
        assert!(!valid.failed && valid.stderr.is_empty());
        assert_eq!(valid.stdout, format!("{path}: ok: 1 cluster, 0 targets\n"));
        std::fs::write(&file, "clusters: []").unwrap();
        let invalid = checked(&["check", path]).await;
        assert!(invalid.failed && invalid.stderr.ends_with('\n') && invalid.stdout.is_empty());
        let json = checked(&["check", "-o", "json", path]).await;
        assert!(json.failed && json.stderr.is_empty() && json.stdout.starts_with('{'));
    }

    #[tokio::test]
    async fn warns_of_insecure_settings_of_a_valid_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lagwise.yaml");
        let path = file.to_str().unwrap();
        std::fs::write(
            &file,
            "clusters: [{name: a, properties: {bootstrap.servers: b, security.protocol: SASL_PLAINTEXT, \
             sasl.mechanism: PLAIN, sasl.username: u, sasl.password: hunter2}}]",
        )
        .unwrap();
        let text = checked(&["check", path]).await;
        assert!(!text.failed && text.stdout.ends_with("ok: 1 cluster, 0 targets\n"));
        let start = format!(
            "{path}: warning LW043: clusters[0].properties.security.protocol: the password for Kafka \
             cluster \"a\" is sent unencrypted: PLAIN without TLS. Set security.protocol: SASL_SSL."
        );
        assert!(text.stderr.starts_with(&start), "{}", text.stderr);
        let hosts = "warning LW059: clusters[0].allowed_broker_hosts: lagwise logs in by PLAIN to every host";
        assert!(text.stderr.contains(hosts), "{}", text.stderr);
        assert!(!text.stderr.contains("hunter2") && text.stderr.lines().count() == 2);
        let json = checked(&["check", "-o", "json", path]).await;
        let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
        assert_eq!(json["ok"], true);
        let warnings = json["warnings"].as_array().unwrap().iter();
        let found = warnings.map(|warning| (&warning["kind"], &warning["object"]));
        let (hosts, protocol) = (
            json!("config/clusters[0].allowed_broker_hosts"),
            json!("config/clusters[0].properties.security.protocol"),
        );
        let expected = [
            (&json!("login_to_any_host"), &hosts),
            (&json!("login_unencrypted"), &protocol),
        ];
        assert_eq!(Vec::from_iter(found), expected);
    }

    #[tokio::test]
    async fn reports_properties_that_the_client_lacks() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lagwise.yaml");
        let cluster = async |more: &str| {
            let text = format!("clusters: [{{name: a, {more}}}]");
            std::fs::write(&file, text).unwrap();
            checked(&["check", file.to_str().unwrap()]).await
        };
        let unsupported =
            cluster("client: wire, properties: {bootstrap.servers: b, ssl.crl.location: c}").await;
        assert!(unsupported.failed);
        assert!(
            unsupported
                .stderr
                .contains(":1:22: clusters[0].client: wire does not support"),
            "{}",
            unsupported.stderr
        );
        let kerberos =
            cluster("properties: {bootstrap.servers: b, security.protocol: SASL_PLAINTEXT, sasl.kerberos.keytab: k}").await;
        assert_eq!(kerberos.failed, !Feature::Gssapi.is_built_in());
        assert_eq!(
            kerberos.stderr.contains("--features gssapi"),
            kerberos.failed
        );
    }

    #[test]
    fn names_the_variables_of_azure_that_are_not_set() {
        let unset = |set: &[(&str, &str)]| {
            let note = describe_unset_variables(2, |name| {
                let found = set.iter().find(|(set, _)| *set == name);
                found.map(|(_, value)| (*value).to_owned())
            });
            let note = note.map(|note| {
                let start = "clusters[2].token.azure_workload_identity: environment variables not set here: ";
                note.strip_prefix(start).unwrap().to_owned()
            });
            note.map(|note| note.split_once(';').unwrap().0.to_owned())
        };
        let (tenant, client) = (("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c"));
        let file = ("AZURE_FEDERATED_TOKEN_FILE", "f");
        let all = "AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_FEDERATED_TOKEN_FILE";
        for (set, expected) in [
            (&[][..], Some(all)),
            (
                &[tenant],
                Some("AZURE_CLIENT_ID, AZURE_FEDERATED_TOKEN_FILE"),
            ),
            (&[client, file], Some("AZURE_TENANT_ID")),
            // The daemon regards an empty variable as not set.
            (
                &[tenant, client, ("AZURE_FEDERATED_TOKEN_FILE", "")],
                Some("AZURE_FEDERATED_TOKEN_FILE"),
            ),
            (&[tenant, client, file], None),
        ] {
            assert_eq!(unset(set).as_deref(), expected, "{set:?}");
        }
    }

    #[test]
    fn parses_arguments() {
        assert!(matches!(parsed(&["schema"]), Ok(ConfigCommand::Schema)));
        assert!(matches!(
            parsed(&["check", "-"]),
            Ok(ConfigCommand::Check(_))
        ));
        assert!(parsed(&["check"]).is_err(), "the file is required");
        assert!(parsed(&["check", "f", "-o", "xml"]).is_err());
    }

    #[test]
    fn counts_clusters_and_lists_problems() {
        let text = "clusters: [{name: a, properties: {bootstrap.servers: b}}]\n\
                    targets: [{name: t, group: g}, {name: u, group: g}]";
        let result = Config::parse(text, &SystemEnvironment);
        assert_eq!(summary(result.as_ref().unwrap()), "1 cluster, 2 targets");
        let result = result.map(|config| (config, Vec::new()));
        assert_eq!(as_json("f", &result)["ok"], true);
        let invalid = as_json(
            "f",
            &Config::parse("clusters: []\nlog: {format: xml}", &SystemEnvironment)
                .map(|config| (config, Vec::new())),
        );
        assert_eq!(invalid["ok"], false);
        assert_eq!(invalid["problems"][1]["key"], "log.format");
        assert_eq!(invalid["problems"][1]["line"], 2);
    }
}
