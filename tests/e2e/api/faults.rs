//! Changes of rights and of CAs in the cluster while the daemon runs.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::callers::client;
use super::{BASE, Scene};
use crate::testbed::Testbed;
use crate::testbed::pki::Authority;
use crate::testbed::poll::poll_until;

/// Without the right to create reviews, no caller is admitted, and the reason is reported. Once the right is back,
/// everything works without a restart.
pub(super) fn rights_are_revoked_and_granted_again(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, |_| {})?;
    let (plane, token) = (scene.plane, scene.token("reader")?);
    let client = client(None)?;
    let read_metric = || -> Result<(u16, String)> {
        let url = scene.daemon.url(&scene.metric(&scene.namespace));
        let answer = client.get(url).bearer_auth(&token).send()?;
        Ok((answer.status().as_u16(), answer.text()?))
    };
    ensure!(read_metric()?.0 == 200, "{:?}", read_metric()?);
    let binding = format!("lagwise-{}-auth-delegator", scene.namespace);
    plane.kubectl(&["delete", "clusterrolebinding", &binding])?;
    let body = poll_until(Duration::from_secs(60), "a refusal that says why", || {
        let (code, body) = read_metric()?;
        ensure!(
            code == 503 && body.contains("system:auth-delegator"),
            "{code}: {body}"
        );
        Ok(body)
    })?;
    ensure!(!body.contains(&token), "the error contains the token");
    // Callers that need no review are still served, because the readings do not depend on the right.
    let lag = plane.get_raw(&scene.metric(&scene.namespace))?;
    ensure!(crate::daemon::value_of(&lag)? == 7, "{lag}");
    plane.kubectl(&[
        "create",
        "clusterrolebinding",
        &binding,
        "--clusterrole=system:auth-delegator",
        &format!("--serviceaccount={}:lagwise", scene.namespace),
    ])?;
    poll_until(
        Duration::from_secs(60),
        "the reader to be let in again",
        || {
            let (code, body) = read_metric()?;
            ensure!(code == 200, "{code}: {body}");
            Ok(())
        },
    )?;
    let log = scene.daemon.process.log();
    for line in ["cannot review access", "access reviews work again"] {
        ensure!(log.matches(line).count() >= 1, "{line:?} is not in the log");
    }
    Ok(())
}

/// A CA of users or front proxies that is added to the cluster's ConfigMap is trusted at once, and not any more after
/// its removal. Other callers are not affected.
pub(super) fn a_new_authority_is_trusted_without_restart(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, |_| {})?;
    let plane = scene.plane;
    let url = scene.daemon.url(BASE);
    let pki = &plane.pki;
    for (key, name, group, old) in [
        (
            "client-ca-file",
            "root",
            Some("system:masters"),
            &pki.authority,
        ),
        (
            "requestheader-client-ca-file",
            "front-proxy-client",
            None,
            &pki.front_proxy,
        ),
    ] {
        let new = Authority::new("an authority that is added")?;
        let code = |of: &Authority| -> Result<u16> {
            let client = client(Some(of.client(name, group)?))?;
            let request = client
                .get(&url)
                .header("x-remote-user", "root")
                .header("x-remote-group", "system:masters");
            Ok(request.send()?.status().as_u16())
        };
        let becomes = |expected: u16| {
            poll_until(Duration::from_secs(60), key, || {
                let code = code(&new)?;
                ensure!(code == expected, "{code}");
                Ok(())
            })
        };
        let patch = |pem: &str| {
            let patch = json!({"data": {key: pem}}).to_string();
            plane.kubectl(&[
                "patch",
                "configmap",
                "extension-apiserver-authentication",
                "--namespace=kube-system",
                "--patch",
                &patch,
            ])
        };
        ensure!(code(&new)? == 401, "{key}: it is known beforehand");
        patch(&format!("{}{}", old.pem, new.pem))?;
        becomes(200)?;
        ensure!(code(old)? == 200, "{key}: the old one is forgotten");
        patch(&old.pem)?;
        becomes(401)?;
        ensure!(code(old)? == 200, "{key}: the old one is forgotten");
    }
    let lag = plane.get_raw(&scene.metric(&scene.namespace))?;
    ensure!(crate::daemon::value_of(&lag)? == 7, "{lag}");
    Ok(())
}
