//! The first hour of a new user: the commands of README.md and of the install guide, as printed and in their order,
//! from a copy of the checkout, on a cluster where nothing is installed. And the commands of the guides, on a cluster
//! with lagwise. No node runs pods, so the test runs the containers of the chart itself. A broker of the testbed
//! replaces the one in the values.

#[path = "../docs/markdown.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod markdown;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use self::markdown::{Block, Page};
use crate::Test;
use crate::chart::{Installed, RELEASE, copy_folder};
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::http::http_get;
use crate::testbed::kafka::{KafkaCluster, KafkaOptions};
use crate::testbed::kubelet::Kubelet;
use crate::testbed::kubernetes::EXTERNAL_METRICS_API;
use crate::testbed::poll::poll_until;
use crate::testbed::ports::free_port;
use crate::testbed::process::Process;
use crate::testbed::{Testbed, unique};

/// The scenarios.
pub(crate) const CASES: &[(&str, Test)] = &[("guide::the_readme", the_readme)];

/// Long scenarios.
pub(crate) const LONG: &[(&str, Test)] = &[
    ("guide::the_install_guide", the_install_guide),
    (
        "guide::the_commands_of_the_guides",
        the_commands_of_the_guides,
    ),
];

/// Timeout of each wait for an expected state.
const WAIT_TIMEOUT: Duration = Duration::from_secs(120);

/// As the pages say.
const NAMESPACE: &str = "lagwise";
const BROKERS: &[&str] = &["kafka.kafka.svc:9092", "kafka:9092"];
const POD: &str = "lagwise-0";
/// The namespace that every cluster has.
const DEFAULT: &str = "default";

/// README.md, from nothing to a Deployment that is scaled to the partitions of its topic.
fn the_readme(testbed: &Testbed) -> Result<()> {
    let mut user = User::new(testbed, testbed.kafka()?, DEFAULT)?;
    user.follow("README.md")?;
    poll_until(WAIT_TIMEOUT, "six replicas, as many as partitions", || {
        let deployment = user.plane.get("deployment", "billing", Some("default"))?;
        let replicas = &deployment["spec"]["replicas"];
        ensure!(*replicas == 6, "{replicas} replicas");
        Ok(())
    })?;
    ensure!(user.count >= 6, "only {} commands were run", user.count);
    user.uninstall()
}

/// docs/src/install.md, from the check before the installation to the uninstallation.
fn the_install_guide(testbed: &Testbed) -> Result<()> {
    let mut user = User::new(testbed, testbed.kafka()?, DEFAULT)?;
    user.follow("docs/src/install.md")?;
    let left = user
        .plane
        .kubectl(&["get", "apiservice", EXTERNAL_METRICS_API]);
    ensure!(left.is_err(), "the APIService is still there");
    ensure!(user.count >= 9, "only {} commands were run", user.count);
    user.uninstall()
}

/// The commands of the guides that need only lagwise, in an order in which each finds what it needs.
fn the_commands_of_the_guides(testbed: &Testbed) -> Result<()> {
    // Groups of other scenarios may have unknown lag, with which commands end with 1.
    let kafka = testbed.start_kafka(&unique("guides"), &KafkaOptions::default())?;
    let mut user = User::new(testbed, &kafka, "shop")?;
    kafka.commit(
        "mail",
        "orders",
        &(0..6).map(|p| (p, 0)).collect::<Vec<_>>(),
    )?;
    let values = format!(
        "image: {{repository: REGISTRY/lagwise}}\nconfig: {{clusters: [{{name: main, properties: \
         {{bootstrap.servers: '{}'}}}}]}}\nenforce: {{enabled: true}}\nscaleToZero: {{enabled: true}}\n",
        BROKERS[0]
    );
    user.write("values.yaml", &values)?;
    let install = "helm install lagwise charts/lagwise --namespace lagwise --create-namespace";
    user.run(&format!("{install} --values values.yaml"), "0")?;
    for guide in [
        "scale-on-lag",
        "explain",
        "page",
        "topics",
        "cap",
        "high-availability",
        "scale-by-rate",
        "scale-to-zero",
        "kafka-logins",
        "troubleshooting",
    ] {
        let before = user.count;
        user.follow(&format!("docs/src/guides/{guide}.md"))?;
        ensure!(user.count > before, "no command of {guide} was run");
    }
    user.uninstall()
}

/// A user with a copy of the checkout, a broker, a cluster, and the Deployment to scale.
struct User<'a> {
    testbed: &'a Testbed,
    kafka: &'a KafkaCluster,
    plane: &'a ControlPlane,
    /// Namespace of the Deployment, and the default of kubectl.
    namespace: &'static str,
    /// The copy of the checkout.
    place: PathBuf,
    /// The commands that the user has.
    commands: PathBuf,
    kubeconfig: PathBuf,
    /// In place of the pods, once they are installed.
    daemon: Option<Process>,
    kubelet: Option<Kubelet<'a>>,
    count: usize,
}

impl<'a> User<'a> {
    fn new(testbed: &'a Testbed, kafka: &'a KafkaCluster, namespace: &'static str) -> Result<Self> {
        let plane = testbed.control_plane()?;
        let place = testbed.folder("checkout")?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        copy_folder(&root.join("charts"), &place.join("charts"))?;
        let commands = testbed.folder("commands")?;
        let artifacts = testbed.artifacts()?;
        for (name, program) in [
            ("kubectl", artifacts.kubectl.as_path()),
            ("helm", artifacts.helm.as_path()),
            ("lagwise", Path::new(env!("CARGO_BIN_EXE_lagwise"))),
        ] {
            symlink(program, commands.join(name))?;
        }
        // The group and the topic of the pages, with work for more replicas than partitions.
        kafka.create_topic("orders", 6)?;
        kafka.commit(
            "billing",
            "orders",
            &(0..6).map(|p| (p, 0)).collect::<Vec<_>>(),
        )?;
        kafka.produce_to("orders", &(0..6).map(|p| (p, 300)).collect::<Vec<_>>())?;
        let labels = json!({"app": "billing"});
        let deployment = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "billing"},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [{"name": "consumer", "image": "consumer"}]},
                },
            },
        });
        let kubeconfig = place.join("kubeconfig");
        fs::copy(plane.kubeconfig(), &kubeconfig)?;
        if namespace != DEFAULT {
            plane.kubectl(&["create", "namespace", namespace])?;
        }
        plane.apply(namespace, &deployment.to_string())?;
        let user = Self {
            testbed,
            kafka,
            plane,
            namespace,
            place,
            commands,
            kubeconfig,
            daemon: None,
            kubelet: None,
            count: 0,
        };
        let choose = format!("kubectl config set-context --current --namespace {namespace}");
        ensure_code(&user.shell(&choose).output()?, "0")?;
        Ok(user)
    }

    /// Writes a file of the user's, with the broker of the testbed in place of the one in it.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let bootstrap = self.kafka.bootstrap();
        let text = BROKERS.iter().fold(text.to_owned(), |text, broker| {
            text.replace(broker, &bootstrap)
        });
        fs::write(self.place.join(name), &text)?;
        if name == "values.yaml" {
            // What the daemon's own commands read, as the pages say: what is below config.
            let values: Value = serde_saphyr::from_str(&text)?;
            let config = values["config"].to_string();
            fs::write(self.place.join("lagwise.yaml"), config)?;
        }
        Ok(())
    }

    /// Follows the page.
    fn follow(&mut self, path: &str) -> Result<()> {
        for block in Page::read(path).blocks() {
            self.obey(&block)
                .with_context(|| format!("{path}:{}", block.line))?;
        }
        Ok(())
    }

    fn obey(&mut self, block: &Block) -> Result<()> {
        if let Some(name) = block.attribute("file") {
            self.write(name, &block.content)?;
        }
        if block.language() != "sh" || !block.has("guide") {
            return Ok(());
        }
        let wanted = block.attribute("exit").unwrap_or("0");
        for line in block.content.lines() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            self.count += 1;
            self.run(line, wanted).context(line.to_owned())?;
        }
        Ok(())
    }

    /// Runs a command of the page, and simulates the nodes of a cluster during it.
    fn run(&mut self, line: &str, wanted: &str) -> Result<()> {
        // The only word that the user has to replace.
        let mut line = line.replace("GROUP", "billing");
        if line.starts_with("helm upgrade") {
            // Of what leads the Service to this machine, which no user has.
            line.push_str(" --force-conflicts");
        }
        if line.starts_with("lagwise page") {
            return self.look_at_page(&line);
        }
        if line.starts_with("helm uninstall") {
            self.stop_pods()?;
        }
        let is_test = line.starts_with("helm ") && line.contains(" test lagwise");
        let output = match is_test {
            true => std::thread::scope(|scope| {
                let mut testing = self.shell(&line);
                let testing = scope.spawn(move || testing.output());
                let checked = self.run_check_pod();
                let output = testing.join().map_err(|_| anyhow::anyhow!("a panic"))?;
                checked?;
                Ok::<_, anyhow::Error>(output?)
            })?,
            false => self.shell(&line).output()?,
        };
        if ensure_code(&output, wanted).is_err() && line.starts_with("lagwise ") {
            // Just after a change, the daemon may not have read the group yet. A user would repeat the command.
            poll_until(WAIT_TIMEOUT, "an answer", || {
                ensure_code(&self.shell(&line).output()?, wanted)
            })?;
        } else {
            ensure_code(&output, wanted)?;
        }
        if line.starts_with("helm install") {
            self.start_pods()?;
        }
        if line.starts_with("helm upgrade") {
            // Helm has taken the Service back.
            self.stop_pods()?;
            self.start_pods()?;
        }
        Ok(())
    }

    fn shell(&self, line: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", line])
            .current_dir(&self.place)
            .env("PATH", format!("{}:{path}", self.commands.display()))
            .env("HOME", &self.place)
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::null());
        command
    }

    /// The daemon with the account and the configuration that the chart has made, and the pod that its Lease names.
    fn start_pods(&mut self) -> Result<()> {
        let installed = Installed {
            plane: self.plane,
            namespace: NAMESPACE,
        };
        let mut config = installed.config()?;
        let ports = [free_port()?, free_port()?, free_port()?, free_port()?];
        let [api, probes, metrics, admin] = ports;
        let server = &mut config["server"];
        for (listener, port) in [
            ("external_metrics", api),
            ("probes", probes),
            ("metrics", metrics),
            ("admin", admin),
        ] {
            server[listener]["listen"] = json!(format!("127.0.0.1:{port}"));
        }
        // So that a command that follows at once finds an answer.
        config["poll"]["interval"] = json!("500ms");
        let account = self.plane.account_kubeconfig(NAMESPACE, RELEASE)?;
        let logs = self.testbed.folder("guide")?;
        let environment = [("POD_NAME", POD.to_owned())];
        let mut daemon = self.testbed.start_lagwise_in(
            &environment,
            &logs,
            &config.to_string(),
            Some(&account),
        )?;
        poll_until(WAIT_TIMEOUT, "lagwise to be ready", || {
            daemon.expect_running()?;
            let (code, body) = http_get(probes, "/readyz")?;
            ensure!(code == 200, "{code}: {body}");
            Ok(())
        })?;
        self.daemon = Some(daemon);
        // Its default port is the one that a command without options uses.
        let kubelet = Kubelet::start_with(self.plane, &[(8082, admin)])?;
        kubelet.run_pod(NAMESPACE, POD)?;
        self.kubelet = Some(kubelet);
        installed.reach(api)?;
        installed.wait_until_available()?;
        // It is the fixture's to delete, not this value's.
        std::mem::forget(installed);
        Ok(())
    }

    fn stop_pods(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.stop(Duration::from_secs(10))?;
        }
        self.kubelet = None;
        // No kubelet confirms that the pods have ended.
        let pods = ["delete", "pod", "--all", "-n", NAMESPACE];
        let at_once = ["--grace-period=0", "--force", "--ignore-not-found"];
        self.plane
            .kubectl(&[&pods[..], &at_once].concat())
            .map(drop)
    }

    /// In place of the pod of `helm test`: its command, with its account and the configuration of the daemon.
    fn run_check_pod(&self) -> Result<()> {
        let name = format!("{RELEASE}-check");
        let pod = poll_until(WAIT_TIMEOUT, "the pod of helm test", || {
            self.plane.get("pod", &name, Some(NAMESPACE))
        })?;
        let container = &pod["spec"]["containers"][0];
        let arguments: Vec<&str> = container["args"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let installed = self.plane.get("configmap", RELEASE, Some(NAMESPACE))?;
        let text = installed["data"]["lagwise.yaml"].as_str();
        let file = self.place.join("mounted.yaml");
        fs::write(&file, text.context("no configuration")?)?;
        let file = file.to_string_lossy();
        let arguments: Vec<&str> = arguments
            .into_iter()
            .map(|argument| match argument {
                "/etc/lagwise/lagwise.yaml" => &*file,
                other => other,
            })
            .collect();
        let account = self.plane.account_kubeconfig(NAMESPACE, RELEASE)?;
        let account = account.to_string_lossy();
        let more = ["--namespace", NAMESPACE, "--kubeconfig", &account];
        let checked = self
            .testbed
            .lagwise(&[&arguments[..], &more].concat())
            .output()?;
        let phase = if checked.status.success() {
            "Succeeded"
        } else {
            "Failed"
        };
        let status = json!({"status": {"phase": phase}}).to_string();
        let patch = ["--subresource=status", "--type=merge", "-p", &status];
        let command = ["patch", "pod", &name, "-n", NAMESPACE];
        self.plane.kubectl(&[&command[..], &patch].concat())?;
        let stdout = String::from_utf8_lossy(&checked.stdout);
        ensure!(checked.status.success(), "{stdout}");
        Ok(())
    }

    /// The command serves the page until it is stopped.
    fn look_at_page(&self, line: &str) -> Result<()> {
        let folder = self.testbed.folder("page")?;
        let mut page = Process::start("page", &folder, &self.shell(&format!("exec {line}")))?;
        poll_until(WAIT_TIMEOUT, "the address of the page", || {
            page.expect_running()?;
            let log = page.log();
            ensure!(log.contains("http://127.0.0.1:"), "{log}");
            Ok(())
        })?;
        page.stop(Duration::from_secs(10)).map(drop)
    }

    /// Leaves the cluster as it was.
    fn uninstall(&mut self) -> Result<()> {
        self.stop_pods()?;
        let kubectl = |args: &[&str]| self.plane.kubectl(args).map(drop);
        let uninstall = ["uninstall", RELEASE, "--no-hooks", "--ignore-not-found"];
        self.plane
            .helm(&[&uninstall[..], &["--namespace", NAMESPACE]].concat())?;
        let absent = "--ignore-not-found";
        kubectl(&[
            "delete",
            "hpa,deployment",
            "billing",
            "-n",
            self.namespace,
            absent,
        ])?;
        kubectl(&["delete", "namespace", NAMESPACE, "--timeout=60s", absent])?;
        if self.namespace != DEFAULT {
            let own = ["delete", "namespace", self.namespace, "--timeout=60s"];
            kubectl(&[&own[..], &[absent]].concat())?;
        }
        self.kafka.delete_topic("orders")
    }
}

impl Drop for User<'_> {
    fn drop(&mut self) {
        // What other tests would stumble over, whatever became of this one.
        let _ = self.uninstall();
    }
}

fn ensure_code(output: &Output, wanted: &str) -> Result<()> {
    let code = output.status.code().map(|code| code.to_string());
    if code.as_deref() != Some(wanted) {
        let text = [&output.stdout[..], &output.stderr].concat();
        bail!(
            "exit code {code:?}, not {wanted}: {}",
            String::from_utf8_lossy(&text)
        );
    }
    Ok(())
}
