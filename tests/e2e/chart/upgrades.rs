//! Upgrades and rollbacks of an installation with a daemon in place of its pods: a former chart, a changed image and
//! configuration, and enforcement switched on and off.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::neighbours::printed_command;
use super::{Installed, RELEASE, WAIT_TIMEOUT, chart, copy_folder, may};
use crate::daemon::metric_path;
use crate::scale::workload;
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::http::http_get;
use crate::testbed::kubernetes::EXTERNAL_METRICS_API;
use crate::testbed::poll::poll_until;
use crate::testbed::ports::free_port;
use crate::testbed::process::Process;
use crate::testbed::{Testbed, unique};

const FORMER: &str = "0.0.9";

/// A copy of the chart with an earlier version.
fn former_chart(testbed: &Testbed) -> Result<PathBuf> {
    let copy = testbed.folder("former")?.join("lagwise");
    copy_folder(&chart(), &copy)?;
    let file = copy.join("Chart.yaml");
    let text = fs::read_to_string(&file)?;
    let version = format!("version: {}\n", env!("CARGO_PKG_VERSION"));
    ensure!(text.contains(&version), "{text}");
    let former = format!("version: {FORMER}\n");
    fs::write(&file, text.replacen(&version, &former, 1))?;
    Ok(copy)
}

/// A release that is upgraded, and the daemon in place of its pods.
struct Upgraded<'a> {
    testbed: &'a Testbed,
    plane: &'a ControlPlane,
    installed: &'a Installed<'a>,
    kubeconfig: PathBuf,
}

impl Upgraded<'_> {
    /// Starts the daemon with the configuration that the chart made now, and waits until the API is available.
    fn start(&self) -> Result<Process> {
        let mut config = self.installed.config()?;
        let (api_port, probe_port) = (free_port()?, free_port()?);
        let server = &mut config["server"];
        server["external_metrics"]["listen"] = json!(format!("127.0.0.1:{api_port}"));
        server["probes"]["listen"] = json!(format!("127.0.0.1:{probe_port}"));
        server["metrics"]["listen"] = json!(format!("127.0.0.1:{}", free_port()?));
        server["admin"]["listen"] = json!(format!("127.0.0.1:{}", free_port()?));
        let logs = self.testbed.folder(&unique("upgraded"))?;
        let kubeconfig = Some(&*self.kubeconfig);
        let mut daemon = self
            .testbed
            .start_lagwise(&logs, &config.to_string(), kubeconfig)?;
        poll_until(WAIT_TIMEOUT, "lagwise to be ready", || {
            daemon.expect_running()?;
            let (code, body) = http_get(probe_port, "/readyz")?;
            ensure!(code == 200, "{code}: {body}");
            Ok(())
        })?;
        self.installed.reach(api_port)?;
        self.installed.wait_until_available()?;
        Ok(daemon)
    }

    fn helm(&self, args: &[&str]) -> Result<String> {
        let namespace = ["--namespace", self.installed.namespace];
        self.plane.helm(&[args, &namespace].concat())
    }

    /// The pods that would run, and the version of the chart.
    fn pods(&self) -> Result<Pods> {
        let deployment = self.installed.get("deployment", RELEASE)?;
        let text = |value: &Value| value.as_str().map(str::to_owned).context("no text");
        let pod = &deployment["spec"]["template"];
        Ok(Pods {
            chart: text(&deployment["metadata"]["labels"]["helm.sh/chart"])?,
            image: text(&pod["spec"]["containers"][0]["image"])?,
            checksum: text(&pod["metadata"]["annotations"]["checksum/config"])?,
        })
    }

    fn may_patch(&self) -> bool {
        may(self.plane, &self.kubeconfig, "patch hpa --all-namespaces")
    }

    fn has_policy(&self) -> bool {
        let args = ["get", "mutatingadmissionpolicy", "lagwise-cap"];
        self.plane.kubectl(&args).is_ok()
    }

    fn until_max(&self, expected: u32) -> Result<()> {
        poll_until(WAIT_TIMEOUT, "maxReplicas to change", || {
            let namespace = Some(self.installed.namespace);
            let hpa = self.plane.get("hpa", "billing", namespace)?;
            let max = &hpa["spec"]["maxReplicas"];
            ensure!(*max == expected, "maxReplicas {max}, not {expected}");
            Ok(())
        })
    }

    /// Runs the command that the notes print.
    fn run_printed(&self, notes: &str) -> Result<()> {
        let mut command = printed_command(notes)?;
        let kubeconfig = self.plane.kubeconfig().to_string_lossy();
        command.extend(["--kubeconfig", &*kubeconfig]);
        let done = self.testbed.lagwise(&command).output()?;
        let stderr = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "{command:?}: {stderr}");
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Pods {
    chart: String,
    image: String,
    checksum: String,
}

const STOP: Duration = Duration::from_secs(10);

pub(super) fn upgrades_and_rollbacks_follow_the_values(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let namespace = plane.namespace("upgrade")?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, 6)?;
    kafka.commit(&group, &topic, &(0..6).map(|p| (p, 0)).collect::<Vec<_>>())?;
    kafka.produce_to(&topic, &[(0, 900)])?;
    let values = testbed.folder("upgrade")?.join("values.json");
    let write = |tag: &str, interval: &str, is_enforced: bool| {
        let given = json!({
            "image": {"tag": tag},
            "config": {
                "clusters": [{"name": "main", "properties": {"bootstrap.servers": kafka.bootstrap()}}],
                "poll": {"interval": interval},
            },
            "enforce": {"enabled": is_enforced},
        });
        fs::write(&values, given.to_string())
    };
    let file = values.to_string_lossy();
    let (former, current) = (former_chart(testbed)?, chart());
    let (former, current) = (former.to_string_lossy(), current.to_string_lossy());
    let installed = Installed {
        plane,
        namespace: &namespace,
    };

    // Revision 1: a former chart, without enforcement.
    write("1", "500ms", false)?;
    let install = ["install", RELEASE, &*former, "--values", &*file];
    plane.helm(&[&install[..], &["--namespace", &namespace]].concat())?;
    let release = Upgraded {
        testbed,
        plane,
        installed: &installed,
        kubeconfig: plane.account_kubeconfig(&namespace, RELEASE)?,
    };
    // Service and APIService lead to this machine, which Helm would not take back by itself.
    let upgrade = || {
        let command = ["upgrade", RELEASE, &*current, "--values", &*file];
        release.helm(&[&command[..], &["--force-conflicts"]].concat())
    };
    let rollback =
        |revision: &str| release.helm(&["rollback", RELEASE, revision, "--force-conflicts"]);
    let mut daemon = release.start()?;
    let mut list: Value = serde_json::from_str(&workload(
        "billing",
        &[("group", &group), ("topic", &topic)],
    ))?;
    list["items"][1]["metadata"]["annotations"] = json!({"lagwise.dev/cap": "enforce"});
    plane.apply(&namespace, &list.to_string())?;
    let path = metric_path(&namespace, &format!("group={group},topic={topic}"));
    poll_until(WAIT_TIMEOUT, "the lag", || plane.get_raw(&path).map(drop))?;
    release.until_max(20)?;
    ensure!(!release.may_patch() && !release.has_policy(), "it enforces");
    let first = release.pods()?;
    ensure!(first.chart == format!("lagwise-{FORMER}"), "{first:?}");
    let trusted = installed.bundle()?;
    daemon.stop(STOP)?;

    // Revision 2: the chart of now, with another image, another configuration and enforcement.
    write("2", "400ms", true)?;
    upgrade()?;
    let second = release.pods()?;
    let version = format!("lagwise-{}", env!("CARGO_PKG_VERSION"));
    ensure!(
        second.chart == version && second.image == "lagwise:2" && second.checksum != first.checksum,
        "{second:?} after {first:?}"
    );
    ensure!(installed.config()?["poll"]["interval"] == "400ms");
    ensure!(installed.bundle()? == trusted, "the bundle was taken away");
    ensure!(
        release.may_patch() && release.has_policy(),
        "it may not enforce"
    );
    let mut daemon = release.start()?;
    release.until_max(6)?;
    daemon.stop(STOP)?;

    // Revision 3: enforcement is off again. Without the right to write, the daemon cannot restore what it wrote, and
    // the notes say how.
    write("2", "400ms", false)?;
    let notes = upgrade()?;
    ensure!(notes.contains("was switched off"), "{notes}");
    ensure!(!release.may_patch() && !release.has_policy(), "it enforces");
    let mut daemon = release.start()?;
    poll_until(WAIT_TIMEOUT, "the lag", || plane.get_raw(&path).map(drop))?;
    release.until_max(6)?;
    release.run_printed(&notes)?;
    release.until_max(20)?;
    // From now on there is nothing to restore.
    let again = upgrade()?;
    ensure!(!again.contains("was switched off"), "{again}");
    daemon.stop(STOP)?;

    // Back to the revision that enforces.
    rollback("2")?;
    ensure!(release.pods()? == second, "{:?}", release.pods()?);
    ensure!(installed.bundle()? == trusted, "the bundle was taken away");
    let mut daemon = release.start()?;
    release.until_max(6)?;
    daemon.stop(STOP)?;

    // And to the former chart, which does not.
    release.run_printed(&notes)?;
    rollback("1")?;
    ensure!(release.pods()? == first, "{:?}", release.pods()?);
    ensure!(!release.may_patch() && !release.has_policy(), "it enforces");
    let mut daemon = release.start()?;
    poll_until(WAIT_TIMEOUT, "the lag", || plane.get_raw(&path).map(drop))?;
    release.until_max(20)?;
    daemon.stop(STOP)?;

    // No hook is left that would need a pod.
    release.helm(&["uninstall", RELEASE])?;
    let gone = plane.kubectl(&["get", "apiservice", EXTERNAL_METRICS_API]);
    ensure!(gone.is_err(), "the APIService is still there");
    plane.kubectl(&["delete", "namespace", &namespace, "--timeout=60s"])?;
    Ok(())
}
