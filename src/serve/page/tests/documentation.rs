//! The reference describes every field of the JSON.

use super::*;
use crate::serve::hpa_endpoints::MarkerRow;

const REFERENCE: &str = include_str!("../../../../docs/src/reference/http.md");

/// Fields whose contents the reference leaves to the commands that show them.
const WITHOUT_CONTENTS: [&str; 3] = ["policy", "outcome", "shadow"];

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
    let (router, _publisher) = served(every_state());
    let deadline = Instant::now() + Duration::from_secs(20);
    let overview = loop {
        let overview = json(&router, "/api/hpas").await;
        if overview["known_since"].is_string() {
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
    let (peaks, status) = (
        json(&router, "/api/peaks").await,
        json(&router, "/status").await,
    );
    for document in [&overview, &marker, &peaks, &status] {
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
