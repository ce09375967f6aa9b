//! The chart: its manifests are valid, and its roles give the daemon exactly the rights that it needs. There are no
//! nodes. The test starts the daemon itself, with the service account, the configuration and the certificate of the
//! chart.

mod dashboard;
mod effects;
mod modes;
mod neighbours;
mod pods;
mod rendering;
mod rights;
mod upgrades;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Test;
use crate::daemon::metric_path;
use crate::scale::workload;
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::http::http_get;
use crate::testbed::kubernetes::{EXTERNAL_METRICS_API, condition};
use crate::testbed::poll::poll_until;
use crate::testbed::ports::free_port;
use crate::testbed::process::Process;
use crate::testbed::replicas::ReplicaSeries;
use crate::testbed::{Testbed, unique};

/// The scenarios.
pub(crate) const CASES: &[(&str, Test)] = &[
    (
        "chart::every_set_of_values_renders",
        rendering::every_set_of_values_renders,
    ),
    (
        "chart::errors_of_mistakes_name_the_key",
        rendering::errors_of_mistakes_name_the_key,
    ),
    (
        "chart::mistakes_in_the_configuration_are_rejected",
        rendering::mistakes_in_the_configuration_are_rejected,
    ),
    (
        "chart::alerts_that_the_mode_makes_meaningless_are_left_out",
        rendering::alerts_that_the_mode_makes_meaningless_are_left_out,
    ),
    (
        "chart::the_configuration_says_whether_the_chart_registers_it",
        rendering::the_configuration_says_whether_the_chart_registers_it,
    ),
    (
        "chart::values_have_their_effect",
        rendering::values_have_their_effect,
    ),
    (
        "chart::every_pod_has_the_security_context_of_the_values",
        pods::every_pod_has_the_security_context_of_the_values,
    ),
    (
        "chart::pods_have_the_labels_and_the_names_of_the_values",
        pods::pods_have_the_labels_and_the_names_of_the_values,
    ),
    (
        "chart::monitors_alerts_and_the_service_have_what_the_values_add",
        pods::monitors_alerts_and_the_service_have_what_the_values_add,
    ),
    (
        "chart::long_names_are_valid_and_unique",
        pods::long_names_are_valid_and_unique,
    ),
    (
        "chart::every_value_has_an_effect",
        effects::every_value_has_an_effect,
    ),
    (
        "chart::kustomize_sets_partitions_and_replicas_from_one_number",
        rendering::kustomize_sets_partitions_and_replicas_from_one_number,
    ),
    (
        "chart::network_policy_has_the_ports_of_all_broker_addresses",
        rendering::network_policy_has_the_ports_of_all_broker_addresses,
    ),
    (
        "chart::rights_in_one_namespace_suffice",
        neighbours::rights_in_one_namespace_suffice,
    ),
    (
        "chart::uninstallation_ends_where_no_pod_can_run",
        neighbours::uninstallation_ends_where_no_pod_can_run,
    ),
    (
        "chart::helms_own_certificate_is_kept_over_upgrades",
        helms_own_certificate_is_kept_over_upgrades,
    ),
    (
        "chart::upgrades_and_rollbacks_follow_the_values",
        upgrades::upgrades_and_rollbacks_follow_the_values,
    ),
    (
        "chart::an_installed_chart_scales_and_is_removed_completely",
        an_installed_chart_scales_and_is_removed_completely,
    ),
];

/// Long scenarios.
pub(crate) const LONG: &[(&str, Test)] = &[
    (
        "chart::objects_of_others_are_refused_with_a_reason",
        neighbours::objects_of_others_are_refused_with_a_reason,
    ),
    (
        "chart::the_rights_of_each_mode_are_those_in_use",
        modes::the_rights_of_each_mode_are_those_in_use,
    ),
    (
        "chart::every_query_of_the_dashboard_has_data",
        dashboard::every_query_has_data,
    ),
];

/// Timeout of each wait for an expected state.
const WAIT_TIMEOUT: Duration = Duration::from_secs(120);
pub(crate) const RELEASE: &str = "lagwise";

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/lagwise")
}

/// Copies the contents of a folder.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let copy = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_folder(&entry.path(), &copy)?,
            false => std::fs::copy(entry.path(), copy).map(drop)?,
        }
    }
    Ok(())
}

/// An upgrade keeps the certificate of the installation: otherwise the API would be unavailable until the pods have the
/// new one.
fn helms_own_certificate_is_kept_over_upgrades(testbed: &Testbed) -> Result<()> {
    let plane = testbed.control_plane()?;
    let namespace = plane.namespace("chart")?;
    let chart = chart();
    let (folder, values) = (
        chart.to_string_lossy(),
        chart.join("ci/default-values.yaml"),
    );
    let values = values.to_string_lossy();
    let helm = |what: &str, more: &str| {
        plane.helm(&[
            what,
            RELEASE,
            &folder,
            "--values",
            &values,
            "--set",
            "tls.type=helm",
            "--set",
            more,
            "--namespace",
            &namespace,
        ])
    };
    helm("install", "replicaCount=2")?;
    let installed = Installed {
        plane,
        namespace: &namespace,
    };
    let (certificate, bundle) = (installed.certificate()?, installed.bundle()?);
    ensure!(
        certificate["ca.crt"] == bundle && !bundle.is_null(),
        "{bundle}"
    );
    helm("upgrade", "replicaCount=3")?;
    ensure!(
        installed.certificate()? == certificate && installed.bundle()? == bundle,
        "the upgrade made a new certificate"
    );
    // Nothing of it is the daemon's to change.
    let kubeconfig = plane.account_kubeconfig(&namespace, RELEASE)?;
    for right in [
        "secret/lagwise-tls",
        "apiservice/v1beta1.external.metrics.k8s.io",
    ] {
        let kubeconfig = kubeconfig.to_string_lossy();
        let may = plane.kubectl(&["auth", "can-i", "patch", right, "--kubeconfig", &kubeconfig]);
        ensure!(may.is_err(), "it may patch {right}");
    }
    let external = &installed.config()?["server"]["external_metrics"];
    ensure!(
        external["tls"]["cert_file"] == "/etc/lagwise/tls/tls.crt",
        "{external}"
    );
    ensure!(external["secret"].is_null(), "{external}");
    Ok(())
}

fn an_installed_chart_scales_and_is_removed_completely(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let namespace = plane.namespace("chart")?;
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, 6)?;
    kafka.commit(&group, &topic, &(0..6).map(|p| (p, 0)).collect::<Vec<_>>())?;
    let chart = chart();
    let folder = chart.to_string_lossy();
    let values = testbed.folder("chart")?.join("values.json");
    let mut given = json!({
        "config": {
            "clusters": [{"name": "main", "properties": {"bootstrap.servers": kafka.bootstrap()}}],
            "poll": {"interval": "500ms"},
        },
        "enforce": {"enabled": true},
        "scaleToZero": {"enabled": true},
    });
    std::fs::write(&values, given.to_string())?;
    let file = values.clone();
    let values = values.to_string_lossy();
    let helm = |what: &[&str]| {
        let mut args = what.to_vec();
        args.extend(["--namespace", &namespace]);
        plane.helm(&args)
    };
    helm(&["install", RELEASE, &folder, "--values", &values])?;
    let installed = Installed {
        plane,
        namespace: &namespace,
    };
    let kubeconfig = plane.account_kubeconfig(&namespace, RELEASE)?;
    least_rights(plane, &namespace, &kubeconfig)?;
    // From here on in this namespace only.
    for mode in ["enforce", "scaleToZero"] {
        given[mode]["namespaces"] = json!([namespace]);
    }
    std::fs::write(&file, given.to_string())?;
    helm(&["upgrade", RELEASE, &folder, "--values", &values])?;
    narrow_rights(plane, &namespace, &kubeconfig)?;

    let InstalledDaemon {
        process: mut daemon,
        config,
        api_port,
    } = installed.start_daemon(testbed, &kubeconfig)?;
    installed.reach(api_port)?;
    // The daemon has created its certificate and set the CA bundle. An upgrade keeps both.
    installed.wait_until_available()?;
    let trusted = installed.bundle()?;
    helm(&[
        "upgrade",
        RELEASE,
        &folder,
        "--values",
        &values,
        "--set",
        "replicaCount=3",
        // Of what leads the Service to this machine.
        "--force-conflicts",
    ])?;
    ensure!(
        !trusted.is_null() && installed.bundle()? == trusted,
        "the upgrade has taken the bundle away"
    );
    installed.reach(api_port)?;
    installed.wait_until_available()?;

    kafka.produce_to(&topic, &[(0, 900)])?;
    let mut list: Value = serde_json::from_str(&workload(
        "billing",
        &[("group", &group), ("topic", &topic)],
    ))?;
    list["items"][1]["metadata"]["annotations"] = json!({"lagwise.dev/cap": "enforce"});
    plane.apply(&namespace, &list.to_string())?;
    let series = ReplicaSeries::record(plane, &namespace, "billing")?;
    poll_until(WAIT_TIMEOUT, "six replicas of at most six", || {
        let hpa = plane.get("hpa", "billing", Some(&namespace))?;
        let max = &hpa["spec"]["maxReplicas"];
        ensure!(
            series.now() == 6 && *max == 6,
            "{:?} of {max}",
            series.values()
        );
        Ok(())
    })?;
    let labels = format!("group={group},topic={topic}");
    plane.get_raw(&metric_path(&namespace, &labels))?;

    let granted = rights::granted(plane, &namespace, RELEASE)?;
    let of_chart = granted.into_iter().filter(|granted| !granted.is_built_in);
    let rules: Vec<_> = of_chart.map(|granted| granted.rule).collect();
    crate::check::passes(testbed, &config, &namespace, &kubeconfig, &rules)?;

    // With nothing to do it sleeps, by the rights in this namespace.
    let patch = r#"{"metadata":{"annotations":{"lagwise.dev/scale-to-zero":"true","lagwise.dev/cooldown":"2s"}}}"#;
    let args = ["patch", "hpa", "billing", "-n", &namespace, "-p", patch];
    plane.kubectl(&args)?;
    let ends: Vec<_> = (0..).zip(kafka.end_offsets(&topic)?).collect();
    kafka.commit(&group, &topic, &ends)?;
    poll_until(WAIT_TIMEOUT, "the workload to fall asleep", || {
        ensure!(series.now() == 0, "{:?}", series.values());
        Ok(())
    })?;
    let ledger = installed.get("configmap", "lagwise-zero")?;
    let hpa = plane.get("hpa", "billing", Some(&namespace))?;
    let uid = hpa["metadata"]["uid"].as_str().context("no UID")?;
    ensure!(ledger["data"][uid].is_string(), "{ledger}");

    // The daemon ends first, as its pods would; it has kept its state and given back its Lease.
    daemon.stop(Duration::from_secs(10))?;
    let unused = [rights::UNUSED_BY_SERVERS, rights::UNUSED_BY_RELEASE].concat();
    rights::check_granted_are_used(plane, &namespace, RELEASE, &unused)?;
    let holder = "jsonpath={.spec.holderIdentity}";
    let holder = plane.kubectl(&["get", "lease", RELEASE, "-n", &namespace, "-o", holder])?;
    ensure!(holder.is_empty(), "the Lease is held by {holder}");
    plane.kubectl(&["get", "configmap", "lagwise-state", "-n", &namespace])?;
    // The hook's job would never end without nodes: its command is run here.
    helm(&["uninstall", RELEASE, "--no-hooks"])?;
    let kubeconfig = plane.kubeconfig().to_string_lossy();
    let ledger = format!("{namespace}/lagwise-zero");
    let args = ["release", "--all", "--ledger", &ledger];
    let released = testbed
        .lagwise(&[&args[..], &["--kubeconfig", &kubeconfig]].concat())
        .output()?;
    ensure!(
        released.status.success(),
        "{}",
        String::from_utf8_lossy(&released.stderr)
    );
    let max = plane.kubectl(&[
        "get",
        "hpa",
        "billing",
        "-n",
        &namespace,
        "-o",
        "jsonpath={.spec.maxReplicas}",
    ])?;
    ensure!(max == "20", "maxReplicas {max} after the uninstallation");
    poll_until(WAIT_TIMEOUT, "the workload to be woken", || {
        ensure!(series.now() > 0, "{:?}", series.values());
        Ok(())
    })?;
    nothing_is_left(plane, &namespace)?;
    plane.kubectl(&["api-resources"])?;
    plane.kubectl(&["get", "apiservices"])?;
    let raw = plane.kubectl(&["get", "--raw", "/apis/external.metrics.k8s.io/v1beta1"]);
    ensure!(raw.is_err(), "somebody answers after the uninstallation");
    plane.kubectl(&["delete", "namespace", &namespace, "--timeout=60s"])?;
    Ok(())
}

/// Waits until no object of the release is left, neither of the chart nor of the daemon itself.
fn nothing_is_left(plane: &ControlPlane, namespace: &str) -> Result<()> {
    let of_namespace = "leases,configmaps,secrets,serviceaccounts,roles,rolebindings,deployments,services,\
                        poddisruptionbudgets,networkpolicies,jobs,pods";
    let of_cluster = "clusterroles,clusterrolebindings,apiservices,mutatingadmissionpolicies,\
                      mutatingadmissionpolicybindings,validatingadmissionpolicies,validatingadmissionpolicybindings";
    let label = "app.kubernetes.io/instance=lagwise";
    let own = ["get", of_namespace, "--namespace", namespace];
    let labelled = ["get", of_cluster, "--selector", label];
    let of_system = ["get", "rolebindings", "-n", "kube-system", "-l", label];
    let names = |command: &[&str]| -> Result<Vec<String>> {
        let names = plane.kubectl(&[command, &["--output", "name"]].concat())?;
        Ok(names.lines().map(str::to_owned).collect())
    };
    poll_until(WAIT_TIMEOUT, "everything to be deleted", || {
        let mut left = names(&own)?;
        // The others are the workload of the test, and what every namespace has.
        left.retain(|name| name.contains("lagwise"));
        left.extend(names(&labelled)?);
        left.extend(names(&of_system)?);
        ensure!(left.is_empty(), "left: {left:?}");
        Ok(())
    })
}

/// Whether the account of this kubeconfig has a right.
fn may(plane: &ControlPlane, kubeconfig: &Path, args: &str) -> bool {
    let kubeconfig = kubeconfig.to_string_lossy();
    let mut all = vec!["auth", "can-i"];
    all.extend(args.split(' '));
    all.extend(["--kubeconfig", &*kubeconfig]);
    plane
        .kubectl(&all)
        .is_ok_and(|answer| answer.trim() == "yes")
}

/// Rights of the account if each mode lists this namespace.
fn narrow_rights(plane: &ControlPlane, namespace: &str, kubeconfig: &Path) -> Result<()> {
    let own = format!("--namespace {namespace}");
    let may = |right: &str, place: &str| may(plane, kubeconfig, &format!("{right} {place}"));
    for right in ["patch hpa", "patch deployments --subresource=scale"] {
        ensure!(may(right, &own), "it may not {right}");
        for place in ["--namespace default", "--all-namespaces"] {
            ensure!(!may(right, place), "it may {right} {place}");
        }
    }
    ensure!(may("watch hpa", "--all-namespaces"), "it may not watch");
    Ok(())
}

/// Checks the rights of the account for the chosen modes, and some that it must not have.
fn least_rights(plane: &ControlPlane, namespace: &str, kubeconfig: &Path) -> Result<()> {
    let may = |args: &str| may(plane, kubeconfig, args);
    for right in [
        "watch hpa --all-namespaces",
        "patch hpa --all-namespaces",
        "patch deployments --subresource=scale --all-namespaces",
        "create subjectaccessreviews.authorization.k8s.io",
        "update lease/lagwise",
        "patch configmap/lagwise-state",
        "patch configmap/lagwise-zero",
        "patch secret/lagwise-tls",
        "patch apiservice/v1beta1.external.metrics.k8s.io",
    ] {
        ensure!(may(right), "it may not {right}");
    }
    for right in [
        "patch deployments --all-namespaces",
        "delete hpa --all-namespaces",
        "list secrets --all-namespaces",
        "get secrets",
        "list secrets",
        "patch secret/other",
        "delete secret/lagwise-tls",
        "get configmap/other",
        "list pods --all-namespaces",
        "update lease/other",
        "patch apiservices",
    ] {
        ensure!(!may(right), "it may {right} in {namespace}");
    }
    Ok(())
}

/// An installed release.
pub(crate) struct Installed<'a> {
    pub(crate) plane: &'a ControlPlane,
    pub(crate) namespace: &'a str,
}

/// The daemon of a release, in place of its pods.
struct InstalledDaemon {
    process: Process,
    config: Value,
    /// The port of the external metrics API, if the daemon serves it.
    api_port: u16,
}

impl Installed<'_> {
    /// Starts the daemon with the configuration of the chart and the account of this kubeconfig, and waits until it is
    /// ready.
    fn start_daemon(&self, testbed: &Testbed, kubeconfig: &Path) -> Result<InstalledDaemon> {
        let mut config = self.config()?;
        let (api_port, probe_port) = (free_port()?, free_port()?);
        let server = &mut config["server"];
        if !server["external_metrics"].is_null() {
            server["external_metrics"]["listen"] = json!(format!("127.0.0.1:{api_port}"));
        }
        server["probes"]["listen"] = json!(format!("127.0.0.1:{probe_port}"));
        for listener in ["metrics", "admin"] {
            server[listener]["listen"] = json!(format!("127.0.0.1:{}", free_port()?));
        }
        let logs = testbed.folder("chart-daemon")?;
        let mut process = testbed.start_lagwise(&logs, &config.to_string(), Some(kubeconfig))?;
        poll_until(WAIT_TIMEOUT, "lagwise to be ready", || {
            process.expect_running()?;
            let (code, body) = http_get(probe_port, "/readyz")?;
            ensure!(code == 200, "{code}: {body}");
            Ok(())
        })?;
        Ok(InstalledDaemon {
            process,
            config,
            api_port,
        })
    }

    fn get(&self, what: &str, name: &str) -> Result<Value> {
        self.plane.get(what, name, Some(self.namespace))
    }

    fn certificate(&self) -> Result<Value> {
        Ok(self.get("secret", "lagwise-tls")?["data"].clone())
    }

    /// The authorities that the API server is to trust.
    fn bundle(&self) -> Result<Value> {
        let service = self.plane.get("apiservice", EXTERNAL_METRICS_API, None)?;
        Ok(service["spec"]["caBundle"].clone())
    }

    pub(crate) fn wait_until_available(&self) -> Result<()> {
        poll_until(WAIT_TIMEOUT, "the API to be available", || {
            let service = self.plane.get("apiservice", EXTERNAL_METRICS_API, None)?;
            let available = condition(&service, "Available").context("no condition yet")?;
            ensure!(available["status"] == "True", "{available}");
            Ok(())
        })
    }

    /// The daemon's configuration.
    pub(crate) fn config(&self) -> Result<Value> {
        let map = self.get("configmap", RELEASE)?;
        let text = map["data"]["lagwise.yaml"]
            .as_str()
            .context("no configuration")?;
        Ok(serde_saphyr::from_str(text)?)
    }

    /// Leads the chart's Service to this machine: there are no pods behind it.
    pub(crate) fn reach(&self, port: u16) -> Result<()> {
        let former = self.plane.get("service", RELEASE, Some(self.namespace))?;
        self.plane
            .kubectl(&["delete", "service", RELEASE, "-n", self.namespace])?;
        // With what Helm knows it by, or an uninstallation would leave it.
        let mut metadata = json!({"name": RELEASE});
        for key in ["labels", "annotations"] {
            metadata[key] = former["metadata"][key].clone();
        }
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {
                "type": "ExternalName",
                "externalName": "localhost",
                // With a name, or the chart's ports could not join it in an upgrade.
                "ports": [{"name": "local", "port": port}],
            },
        });
        self.plane.apply(self.namespace, &service.to_string())?;
        let patch = json!({"spec": {"service": {"port": port}}}).to_string();
        let args = [
            "patch",
            "apiservice",
            EXTERNAL_METRICS_API,
            "--type=merge",
            "-p",
            &patch,
        ];
        self.plane.kubectl(&args).map(drop)
    }
}

impl Drop for Installed<'_> {
    fn drop(&mut self) {
        // What other tests would stumble over, whatever became of this one.
        let _ = self.plane.helm(&[
            "uninstall",
            RELEASE,
            "--no-hooks",
            "--ignore-not-found",
            "--namespace",
            self.namespace,
        ]);
    }
}
