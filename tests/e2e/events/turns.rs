//! Events of several namespaces: one with many findings does not keep the others waiting.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{WAIT_TIMEOUT, own_events};
use crate::daemon::{Daemon, Options};
use crate::scale::workload;
use crate::testbed::poll::poll_until;
use crate::testbed::{Testbed, unique};

/// HPAs with a finding each. At most 50 events are written at once, and then one in a second.
const MANY: usize = 220;
/// Events of these after which the others come.
const BURST: usize = 50;

/// In the order of their names, the events of the others would come after all of these.
pub(super) fn are_left_to_others(testbed: &Testbed) -> Result<()> {
    let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
    let many = plane.namespace("aaa")?;
    let late = [plane.namespace("zzy")?, plane.namespace("zzz")?];
    let (topic, group) = (unique("orders"), unique("billing"));
    kafka.create_topic(&topic, 1)?;
    kafka.commit(&group, &topic, &[(0, 0)])?;
    let hpa = |name: &str, annotations: Value| -> Result<Value> {
        let selector = [("group", &*group), ("topic", &*topic)];
        let mut list: Value = serde_json::from_str(&workload(name, &selector))?;
        let mut hpa = list["items"][1].take();
        hpa["metadata"]["annotations"] = annotations;
        Ok(hpa)
    };
    let hpas = (0..MANY).map(|i| hpa(&format!("h{i}"), json!({"lagwise.dev/evn": i.to_string()})));
    let hpas = hpas.collect::<Result<Vec<_>>>()?;
    for some in hpas.chunks(110) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": some}).to_string();
        plane.kubectl_with_input(&["create", "-n", &many, "-f", "-"], &list)?;
    }
    let options = Options {
        namespaces: vec![many.clone(), late[0].clone(), late[1].clone()],
        ..Options::main(&kafka.bootstrap())
    };
    let (_daemon, _api) = Daemon::registered(testbed, plane, &many, &options)?;
    poll_until(WAIT_TIMEOUT, "the first events", || {
        let count = own_events(plane, &many)?.len();
        ensure!(count >= BURST, "{count}");
        Ok(())
    })?;
    for (namespace, annotations) in late.iter().zip([
        json!({"lagwise.dev/evn": "true"}),
        // Text that would clear a terminal and forge a line.
        json!({"lagwise.dev/threads-per-replica": "\u{1b}[2Jmany\r\nforged"}),
    ]) {
        let begun = Instant::now();
        plane.apply(namespace, &hpa("billing", annotations)?.to_string())?;
        poll_until(WAIT_TIMEOUT, "an event of another namespace", || {
            let events = own_events(plane, namespace)?;
            ensure!(!events.is_empty(), "there is none");
            Ok(())
        })?;
        let events = own_events(plane, namespace)?;
        let mut notes = events.iter().filter_map(|event| event["note"].as_str());
        ensure!(
            !notes.any(|note| note.contains(char::is_control)),
            "{events:?}"
        );
        let so_far = own_events(plane, &many)?.len();
        println!(
            "an event of another namespace after {:.1?}, and meanwhile {so_far} of the one with {MANY} findings",
            begun.elapsed()
        );
        ensure!(so_far < MANY, "it has waited for all of the others");
    }
    Ok(())
}
