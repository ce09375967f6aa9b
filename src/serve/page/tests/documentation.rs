//! The reference describes every field of the JSON.

use super::*;
use crate::model::keda::shadow::{ObservedSet, ShadowObject};
use crate::model::units::hpa_key::HpaKey;
use crate::serve::hpa_endpoints::MarkerRow;
use crate::serve::shadow::shadow;

const REFERENCE: &str = include_str!("../../../../docs/src/reference/http.md");

/// Fields whose contents the reference leaves to the commands that show them.
const WITHOUT_CONTENTS: [&str; 3] = ["policy", "outcome", "shadow"];

/// The same as `served`, with a row that compares an HPA with KEDA.
fn served_with_shadow(snapshot: LagSnapshot, hpa: &str) -> (Router, Publisher) {
    let step = Duration::from_millis(20);
    let (publisher, reader) = snapshot_channel::channel(snapshot);
    let (handle, recording) = history(reader.clone(), Leadership::alone(), step);
    let mut set = ObservedSet::default();
    set.insert(ShadowObject {
        kind: "ScaledObject",
        key: HpaKey::new("shop", hpa),
        hpa: HpaKey::new("shop", hpa),
        compared: Err("it is paused".to_owned()),
    });
    let (_, objects) = watch::channel((set, Vec::new()));
    let (reports, sampling) = shadow(reader.clone(), objects, step);
    tokio::spawn(recording);
    tokio::spawn(sampling);
    let options = AdminEndpointOptions::new(reader, Leadership::alone());
    let options = options.with_history(handle, "lagwise-0");
    (router(options.with_shadow(reports)), publisher)
}

/// Adds the names of all fields of a document.
fn add_fields(document: &Value, names: &mut BTreeSet<String>) {
    match document {
        Value::Object(object) => {
            for (name, value) in object {
                names.insert(name.clone());
                if !WITHOUT_CONTENTS.contains(&name.as_str()) {
                    add_fields(value, names);
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| add_fields(value, names)),
        _ => {}
    }
}

#[tokio::test]
async fn every_field_of_the_json_is_in_the_reference() {
    let (router, _publisher) = served_with_shadow(every_state(), "plain");
    let deadline = Instant::now() + Duration::from_secs(20);
    let overview = loop {
        let overview = json(&router, "/api/hpas").await;
        let status = json(&router, "/status").await;
        if overview["known_since"].is_string() && status["shadow"].is_array() {
            break overview;
        }
        assert!(Instant::now() < deadline, "no history: {overview}");
        tokio::task::yield_now().await;
    };
    let mut names = BTreeSet::new();
    for row in overview["hpas"].as_array().unwrap() {
        let path = format!("/api/hpas/shop/{}", row["hpa"].as_str().unwrap());
        let view = json(&router, &path).await;
        let points = view["history"]["points"].as_array();
        assert!(points.is_some_and(|points| !points.is_empty()), "{view}");
        add_fields(&view, &mut names);
    }
    let marker = MarkerRow {
        at: 0,
        kind: "scaled",
        text: String::new(),
        is_problem: false,
    };
    let marker = serde_json::to_value(marker).unwrap();
    let mut documents = vec![overview, marker];
    for path in ["/api/peaks", "/status", "/explain?namespace=shop&hpa=plain"] {
        documents.push(json(&router, path).await);
    }
    for path in [&documents[3], &documents[4]] {
        assert!(!path["shadow"].is_null(), "no shadow: {path}");
    }
    for document in &documents {
        add_fields(document, &mut names);
    }
    for name in ["uncapped", "committed_offset", "bounded"] {
        assert!(names.contains(name), "no {name}: {names:?}");
    }
    let is_missing = |name: &&String| !REFERENCE.contains(&format!("`{name}`"));
    let missing: Vec<_> = names.iter().filter(is_missing).collect();
    assert!(
        missing.is_empty(),
        "not in docs/src/reference/http.md: {missing:?}"
    );
}
