//! Every call by grpcurl, a client that shares no code with lagwise: by what the server says of itself, and by the
//! proto file.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::WAIT_TIMEOUT;
use crate::daemon::{Daemon, Options};
use crate::testbed::pki::Authority;
use crate::testbed::poll::poll_until;
use crate::testbed::ports::free_port;
use crate::testbed::process::Process;
use crate::testbed::{Testbed, unique};

/// Variable with which the descriptors are written instead of compared, as other generated files.
const UPDATE: &str = "LAGWISE_UPDATE_DOCS";

const SERVICES: &str =
    "externalscaler.ExternalScaler\ngrpc.health.v1.Health\ngrpc.reflection.v1.ServerReflection\n";

fn protos() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/serve/external_scaler")
}

/// grpcurl with a client certificate.
struct Grpcurl<'a> {
    testbed: &'a Testbed,
    address: String,
    authority_file: PathBuf,
    /// Certificate and key; `None` for a caller without.
    identity: Option<(PathBuf, PathBuf)>,
}

impl Grpcurl<'_> {
    fn command(&self, options: &[&str], rest: &[&str]) -> Result<Command> {
        let mut command = Command::new(&self.testbed.artifacts()?.grpcurl);
        command
            .arg("-cacert")
            .arg(&self.authority_file)
            .args(["-max-time", "60"]);
        if let Some((certificate, key)) = &self.identity {
            command.arg("-cert").arg(certificate).arg("-key").arg(key);
        }
        command.args(options).arg(&self.address).args(rest);
        Ok(command)
    }

    /// What it prints, or an error with what it says.
    fn run(&self, options: &[&str], rest: &[&str]) -> Result<String> {
        let done = self.command(options, rest)?.output()?;
        let error = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "{options:?} {rest:?}: {error}");
        Ok(String::from_utf8(done.stdout)?)
    }

    /// The answer of a call.
    fn call(&self, options: &[&str], message: &Value, method: &str) -> Result<Value> {
        let message = message.to_string();
        let options = [options, &["-d", &message]].concat();
        Ok(serde_json::from_str(&self.run(&options, &[method])?)?)
    }

    /// A call of a stream, which runs on.
    fn stream(&self, options: &[&str], message: &Value, method: &str) -> Result<Process> {
        let message = message.to_string();
        let options = [options, &["-d", &message]].concat();
        let command = self.command(&options, &[method])?;
        let folder = self.testbed.folder("grpcurl")?;
        Process::start(&unique("grpcurl"), &folder, &command)
    }
}

/// Waits until a stream has printed messages that are these.
fn wait_for(stream: &mut Process, expected: &[Value]) -> Result<()> {
    poll_until(WAIT_TIMEOUT, &format!("{expected:?} of a stream"), || {
        let log = stream.log();
        let messages = serde_json::Deserializer::from_str(&log).into_iter::<Value>();
        let messages: Vec<_> = messages.map_while(Result::ok).collect();
        if messages != expected {
            stream.expect_running()?;
        }
        ensure!(messages == expected, "{log}");
        Ok(())
    })
}

/// All calls as grpcurl makes them by reflection and by the proto file, the first message streamed within one poll, and
/// nothing for callers without a certificate of the authority.
pub(super) fn grpcurl_finds_and_calls_everything(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.kafka()?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, 5)?;
    let zeros: Vec<_> = (0..5).map(|partition| (partition, 0)).collect();
    kafka.commit(&group, &topic, &zeros)?;

    let folder = testbed.folder("scaler")?;
    let (servers, callers) = (Authority::new("servers")?, Authority::new("callers")?);
    let (cert_file, key_file) = servers.server(&["localhost"])?.write(&folder, "server")?;
    let (authority_file, client_ca_file) = (folder.join("servers.pem"), folder.join("callers.pem"));
    std::fs::write(&authority_file, &servers.pem)?;
    std::fs::write(&client_ca_file, &callers.pem)?;
    let port = free_port()?;
    let options = Options {
        // Long enough for what comes after the sweep that sees a message, and before the next one.
        interval: "3s",
        scaler: json!({
            "listen": format!("127.0.0.1:{port}"),
            "client_ca_file": client_ca_file,
            "tls": {"cert_file": cert_file, "key_file": key_file},
        }),
        ..Options::main(&kafka.bootstrap())
    };
    let daemon = Daemon::alone(testbed, &options)?;
    let grpcurl = Grpcurl {
        testbed,
        address: format!("localhost:{port}"),
        authority_file,
        identity: Some(callers.client("keda", None)?.write(&folder, "keda")?),
    };

    let listed = grpcurl.run(&[], &["list"])?;
    ensure!(listed == SERVICES, "{listed}");
    let described = grpcurl.run(&[], &["describe", "externalscaler.ExternalScaler"])?;
    for method in [
        "rpc IsActive",
        "rpc StreamIsActive",
        "rpc GetMetricSpec",
        "rpc GetMetrics",
        "rpc StreamMetricSpec",
    ] {
        ensure!(described.contains(method), "{described}");
    }
    let object = json!({
        "name": "billing",
        "namespace": "shop",
        "scalerMetadata": {"group": group, "topic": topic, "lagThreshold": "5"},
    });
    let folder = protos().to_string_lossy().into_owned();
    let by_file = ["-import-path", &folder, "-proto", "externalscaler.proto"];
    let spec = json!({"metricSpecs": [
        {"metricName": "kafka_lag", "targetSize": "5", "targetSizeFloat": 5},
    ]});
    let method = |name: &str| format!("externalscaler.ExternalScaler/{name}");
    let mut activity = grpcurl.stream(&[], &object, &method("StreamIsActive"))?;
    // grpcurl does not print a field with its default value.
    wait_for(&mut activity, &[json!({})])?;

    let before = daemon.sweeps()?;
    kafka.produce_to(&topic, &[(0, 28)])?;
    poll_until(WAIT_TIMEOUT, "the activation", || {
        activity.expect_running()?;
        ensure!(activity.log().contains("\"result\": true"), "not yet");
        Ok(())
    })?;
    let sweeps = daemon.sweeps()? - before;
    println!("activation was streamed after {sweeps} sweeps");
    // One that was under way may not have seen the message.
    ensure!(sweeps <= 2, "streamed after {sweeps} sweeps only");

    for options in [&[] as &[&str], &by_file] {
        let call = |message: &Value, name: &str| grpcurl.call(options, message, &method(name));
        ensure!(call(&object, "IsActive")? == json!({"result": true}));
        ensure!(call(&object, "GetMetricSpec")? == spec);
        let request = json!({"scaledObjectRef": object, "metricName": "kafka_lag"});
        let values = call(&request, "GetMetrics")?;
        // Five partitions: 28 would be 6 replicas.
        let expected = json!({"metricValues": [
            {"metricName": "kafka_lag", "metricValue": "25", "metricValueFloat": 25},
        ]});
        ensure!(values == expected, "{values}");
        let mut active = grpcurl.stream(options, &object, &method("StreamIsActive"))?;
        wait_for(&mut active, &[json!({"result": true})])?;
        let mut specs = grpcurl.stream(options, &object, &method("StreamMetricSpec"))?;
        wait_for(&mut specs, std::slice::from_ref(&spec))?;
    }
    let health = grpcurl.call(&[], &json!({}), "grpc.health.v1.Health/Check")?;
    ensure!(health == json!({"status": "SERVING"}), "{health}");
    let wrong = json!({"name": "billing", "namespace": "shop", "scalerMetadata": {"group": ""}});
    let refused = grpcurl.call(&[], &wrong, &method("IsActive"));
    let refused = refused.err().context("no group was accepted")?;
    ensure!(refused.to_string().contains("InvalidArgument"), "{refused}");

    let folder = testbed.folder("strangers")?;
    let other = Authority::new("callers")?;
    let strangers = [
        None,
        Some(other.client("keda", None)?.write(&folder, "other")?),
        Some(
            callers
                .expired_client("keda", None)?
                .write(&folder, "expired")?,
        ),
    ];
    for identity in strangers {
        let stranger = Grpcurl {
            testbed,
            address: grpcurl.address.clone(),
            authority_file: grpcurl.authority_file.clone(),
            identity,
        };
        let is_active = method("IsActive");
        let all: [(&[&str], &[&str]); 3] = [
            (&[], &["list"]),
            (&by_file, &[&is_active]),
            (&["-connect-timeout", "5"], &["grpc.health.v1.Health/Check"]),
        ];
        for (options, rest) in all {
            let result = stranger.run(options, rest);
            ensure!(result.is_err(), "{:?}: {result:?}", stranger.identity);
        }
    }
    ensure!(grpcurl.run(&[], &["list"])? == SERVICES);
    Ok(())
}

/// What reflection serves is what a compiler of protobuf makes of the proto files.
pub(super) fn descriptors_are_those_of_the_proto_files(testbed: &Testbed) -> Result<()> {
    let made = testbed.folder("descriptors")?.join("services.protoset");
    let mut command = Command::new(&testbed.artifacts()?.grpcurl);
    command.arg("-import-path").arg(protos());
    for proto in ["externalscaler.proto", "health.proto", "reflection.proto"] {
        command.args(["-proto", proto]);
    }
    // Of one service, it would write only the file that defines it.
    let done = command
        .arg("-protoset-out")
        .arg(&made)
        .arg("list")
        .output()?;
    let error = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{error}");
    let (made, file) = (std::fs::read(made)?, protos().join("services.protoset"));
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&file, &made)?;
    }
    ensure!(
        std::fs::read(&file)? == made,
        "{} is out of date; {UPDATE}=1 tests/run -- external_scaler::descriptors writes it",
        file.display()
    );
    Ok(())
}
