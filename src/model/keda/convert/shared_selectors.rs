//! Adds a label to the selectors of HPAs in one namespace whose metrics would otherwise have the same selector.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::ConvertedObject;
use super::note::{Note, NoteKind};
use crate::model::hpa::label;
use crate::model::units::names;

/// Adds the label `hpa` to each selector that several HPAs of one namespace would use, since an HPA's settings belong
/// to its own metrics only.
pub(super) fn distinguish_hpas(objects: &mut [ConvertedObject]) {
    let mut users: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for object in &mut *objects {
        let namespace = object.namespace.clone();
        let Some((name, selectors)) = name_and_selectors(object) else {
            continue;
        };
        for selector in selectors {
            let key = (namespace.clone(), selector.to_string());
            users.entry(key).or_default().insert(name.clone());
        }
    }
    for object in objects {
        let namespace = object.namespace.clone();
        let Some((name, selectors)) = name_and_selectors(object) else {
            continue;
        };
        let is_shared = |selector: &Value| {
            let users = users.get(&(namespace.clone(), selector.to_string()));
            users.is_some_and(|users| users.len() > 1)
        };
        let shared = Vec::from_iter(selectors.filter(|selector| is_shared(selector)));
        if shared.is_empty() {
            continue;
        }
        let (kind, text) = match names::label_value(&name) {
            Ok(_) => {
                for selector in shared {
                    if let Some(labels) = selector.pointer_mut("/matchLabels") {
                        labels[label::HPA] = json!(name);
                    }
                }
                (
                    NoteKind::Differs,
                    "other HPAs of the namespace have the same selector, so the label hpa is added to it",
                )
            }
            Err(_) => (
                NoteKind::Todo,
                "other HPAs of the namespace have the same selector, and the name of this one is no valid label value: give it a name of at most 63 letters, digits and -, and add it to the selector as the label hpa",
            ),
        };
        object.notes.push(Note {
            kind,
            field: "triggers".to_owned(),
            text: text.to_owned(),
        });
        object.notes.sort_by_key(|note| note.kind);
    }
}

/// The name of an object's HPA, and the selectors of its external metrics; `None` without an HPA.
fn name_and_selectors(
    object: &mut ConvertedObject,
) -> Option<(String, impl Iterator<Item = &mut Value>)> {
    let hpa = object.hpa.as_mut()?;
    let name = hpa.pointer("/metadata/name")?.as_str()?.to_owned();
    let metrics = hpa.pointer_mut("/spec/metrics")?.as_array_mut()?;
    let selectors = metrics
        .iter_mut()
        .filter_map(|metric| metric.pointer_mut("/external/metric/selector"));
    Some((name, selectors))
}
