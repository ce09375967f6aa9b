//! The API server changes its mind: rights go and come, authorities are added.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::callers::client;
use super::{BASE, Scene};
use crate::testbed::Testbed;
use crate::testbed::pki::Authority;
use crate::testbed::poll::poll_until;

/// Without the right to ask about callers nobody is let in on a guess, and the reason is told; with it again, all is
/// well without a restart.
pub(super) fn rights_are_taken_away_and_given_back(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, |_| {})?;
    let (plane, token) = (scene.plane, scene.token("reader")?);
    let client = client(None)?;
    let ask = || -> Result<(u16, String)> {
        let url = scene.daemon.url(&scene.metric(&scene.namespace));
        let answer = client.get(url).bearer_auth(&token).send()?;
        Ok((answer.status().as_u16(), answer.text()?))
    };
    ensure!(ask()?.0 == 200, "{:?}", ask()?);
    let binding = format!("lagwise-{}-auth-delegator", scene.namespace);
    plane.kubectl(&["delete", "clusterrolebinding", &binding])?;
    let told = poll_until(Duration::from_secs(60), "a refusal that says why", || {
        let (code, body) = ask()?;
        ensure!(
            code == 503 && body.contains("system:auth-delegator"),
            "{code}: {body}"
        );
        Ok(body)
    })?;
    ensure!(!told.contains(&token), "the token is told");
    // Whom nobody need be asked about is answered all the same: what is read does not depend on it.
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
            let (code, body) = ask()?;
            ensure!(code == 200, "{code}: {body}");
            Ok(())
        },
    )?;
    let log = scene.daemon.process.log();
    for line in ["access cannot be checked", "access can be checked again"] {
        ensure!(log.matches(line).count() >= 1, "{line:?} is not in the log");
    }
    Ok(())
}

/// An authority that is added to the cluster's ConfigMap counts at once, and no longer when it is gone.
pub(super) fn a_new_authority_is_trusted_without_restart(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, |_| {})?;
    let plane = scene.plane;
    let authority = Authority::new("an authority that is added")?;
    let user = client(Some(authority.client("root", Some("system:masters"))?))?;
    let code = || -> Result<u16> { Ok(user.get(scene.daemon.url(BASE)).send()?.status().as_u16()) };
    ensure!(code()? == 401, "{}", code()?);
    let patch = |pem: &str| {
        let patch = json!({"data": {"client-ca-file": pem}}).to_string();
        let name = "extension-apiserver-authentication";
        plane.kubectl(&[
            "patch",
            "configmap",
            name,
            "--namespace=kube-system",
            "--patch",
            &patch,
        ])
    };
    let old = &plane.pki.authority.pem;
    patch(&format!("{old}{}", authority.pem))?;
    poll_until(
        Duration::from_secs(60),
        "the new authority to be trusted",
        || {
            ensure!(code()? == 200, "{}", code()?);
            Ok(())
        },
    )?;
    // What cannot be read changes nothing for the better, and is no end of the daemon.
    patch(old)?;
    poll_until(
        Duration::from_secs(60),
        "the new authority to be forgotten",
        || {
            ensure!(code()? == 401, "{}", code()?);
            Ok(())
        },
    )?;
    let lag = plane.get_raw(&scene.metric(&scene.namespace))?;
    ensure!(crate::daemon::value_of(&lag)? == 7, "{lag}");
    Ok(())
}
