//! Access to the endpoints that show all namespaces: admin endpoints through a port-forward, metrics with
//! authorization.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Scene;
use super::callers::client;
use crate::testbed::Testbed;
use crate::testbed::kubelet::Kubelet;
use crate::testbed::poll::poll_until;

const POD: &str = "lagwise-0";

/// `lagwise status --daemon` and `lagwise explain --daemon` find the leader and reach its loopback port, for users with
/// the rights and no others.
pub(super) fn admin_endpoints_by_a_port_forward(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, |options| {
        options.leader = json!({"lease": "lagwise", "duration": "6s"});
        options.environment = vec![("POD_NAME", POD.to_owned())];
    })?;
    let plane = scene.plane;
    let namespace = scene.namespace.as_str();
    let kubelet = Kubelet::start(plane)?;
    kubelet.run_pod(namespace, POD)?;
    let admin = plane.kubeconfig().to_string_lossy().into_owned();
    let port = scene.daemon.admin_port.to_string();
    let run = |kubeconfig: &str, what: &[&str]| -> Result<(bool, String, String)> {
        let mut args = what.to_vec();
        args.extend([
            "--daemon",
            "--admin-port",
            &port,
            "--kubeconfig",
            kubeconfig,
        ]);
        let output = testbed.lagwise(&args).output()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok((
            output.status.success(),
            text(output.stdout),
            text(output.stderr),
        ))
    };
    let group = [
        "explain",
        "--group",
        &scene.group,
        "--topic",
        &scene.topic,
        "-o",
        "json",
    ];
    let explained = poll_until(Duration::from_secs(20), "the explanation", || {
        let (done, output, error) = run(&admin, &group)?;
        ensure!(done, "{output}{error}");
        Ok(serde_json::from_str::<Value>(&output)?)
    })?;
    let of = explained["of"].as_str().context("no subject")?;
    ensure!(of.contains(&scene.group), "{explained}");
    let (done, output, error) = run(&admin, &["status", "-o", "json"])?;
    ensure!(
        done && serde_json::from_str::<Value>(&output)?.is_array(),
        "{output}{error}"
    );

    // With exactly the rights of the guide, and without the last of them.
    let full = user(&scene, "forwarder", &["get", "create"])?;
    let (done, output, error) = run(&full, &["status", "-o", "json"])?;
    ensure!(done, "{output}{error}");
    let less = user(&scene, "onlooker", &["list"])?;
    let (done, _, error) = run(&less, &["status"])?;
    ensure!(
        !done && error.contains("portforward") && error.contains(POD),
        "{error}"
    );

    // Errors name the cause.
    let lease = format!("{namespace}/other");
    let (done, _, error) = run(&admin, &["status", "--lease", &lease])?;
    ensure!(
        !done && error.contains(&format!("no Lease {lease}")),
        "{error}"
    );
    let (done, _, error) = run(&admin, &["explain", "--daemon", "shop/billing"])?;
    ensure!(!done && error.contains("--daemon"), "{error}");
    Ok(())
}

/// The kubeconfig of an account that may find the leader, and do this with port-forwards.
fn user(scene: &Scene<'_>, name: &str, verbs: &[&str]) -> Result<String> {
    let (plane, namespace) = (scene.plane, scene.namespace.as_str());
    let subject = json!([{"kind": "ServiceAccount", "name": name, "namespace": namespace}]);
    let bound = format!("{name}-{namespace}");
    let rbac = "rbac.authorization.k8s.io";
    let version = format!("{rbac}/v1");
    let documents = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}},
        {"apiVersion": version, "kind": "ClusterRole", "metadata": {"name": bound}, "rules": [{
            "apiGroups": ["apiregistration.k8s.io"], "resources": ["apiservices"],
            "resourceNames": ["v1beta1.external.metrics.k8s.io"], "verbs": ["get"],
        }]},
        {"apiVersion": version, "kind": "ClusterRoleBinding", "metadata": {"name": bound},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": bound}, "subjects": subject},
        {"apiVersion": version, "kind": "Role", "metadata": {"name": name, "namespace": namespace}, "rules": [
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["pods/portforward"], "verbs": verbs},
        ]},
        {"apiVersion": version, "kind": "RoleBinding", "metadata": {"name": name, "namespace": namespace},
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name}, "subjects": subject},
    ]});
    plane.kubectl_with_input(&["apply", "--filename", "-"], &documents.to_string())?;
    let kubeconfig: PathBuf = plane.account_kubeconfig(namespace, name)?;
    Ok(kubeconfig.to_string_lossy().into_owned())
}

/// `auth: kubernetes` of the metrics: TLS, and the right to get the path, for all callers and kinds of credentials.
pub(super) fn metrics_with_authorization(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, |options| {
        options.metrics = json!({"auth": "kubernetes"})
    })?;
    let plane = scene.plane;
    let account = format!("{}:reader", scene.namespace);
    let name = format!("metrics-{}", scene.namespace);
    let role = [
        "create",
        "clusterrole",
        &name,
        "--verb=get",
        "--non-resource-url=/metrics",
    ];
    plane.kubectl(&role)?;
    let subject = format!("--serviceaccount={account}");
    let role = format!("--clusterrole={name}");
    plane.kubectl(&["create", "clusterrolebinding", &name, &role, &subject])?;
    let url = format!("https://127.0.0.1:{}/metrics", scene.daemon.http_port);
    let scrape = |token: Option<String>| -> Result<(u16, String)> {
        let mut request = client(None)?.get(&url);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send()?;
        Ok((answer.status().as_u16(), answer.text()?))
    };
    for (token, expected) in [
        (Some(scene.token("reader")?), 200),
        (Some(scene.token("stranger")?), 403),
        (Some("nonsense".to_owned()), 401),
        (None, 403),
    ] {
        let (code, body) = scrape(token)?;
        ensure!(code == expected, "{code}, not {expected}: {body}");
        let has_metrics = body.contains("lagwise_build_info");
        ensure!(has_metrics == (code == 200), "{code}: {body}");
    }
    // A user's certificate counts as well; and there is no plain HTTP.
    for (group, expected) in [(Some("system:masters"), 200), (None, 403)] {
        let identity = plane.pki.authority.client("mary", group)?;
        let answer = client(Some(identity))?.get(&url).send()?;
        ensure!(answer.status() == expected, "{}", answer.status());
    }
    let plain = reqwest::blocking::get(url.replace("https:", "http:"));
    ensure!(plain.is_err(), "plain HTTP is answered");
    Ok(())
}
