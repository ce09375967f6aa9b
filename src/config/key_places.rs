//! Where the keys of a file are, for problems that are found after it has been read.

use std::collections::BTreeMap;

use super::node::{Node, Place, ScalarValue};
use super::section::join;

/// The places of all keys and list items, by their paths.
#[derive(Clone, Debug, Default)]
pub struct KeyPlaces(BTreeMap<String, Place>);

impl KeyPlaces {
    pub(super) fn of(root: &Node) -> Self {
        let mut places = Self::default();
        places.add(root, "");
        places
    }

    fn add(&mut self, node: &Node, path: &str) {
        match &node.value {
            ScalarValue::Mapping(entries) => {
                for entry in entries {
                    let path = join(path, &entry.key);
                    self.0.entry(path.clone()).or_insert(entry.place);
                    self.add(&entry.node, &path);
                }
            }
            ScalarValue::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.0.insert(path.clone(), item.place);
                    self.add(item, &path);
                }
            }
            _ => {}
        }
    }

    /// Line and column of a key; of a key that is left out, those of the mapping that lacks it.
    pub(super) fn nearest(&self, path: &str) -> Option<Place> {
        let mut path = path;
        loop {
            if let Some(place) = self.0.get(path) {
                return Some(*place);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_key_has_the_line_of_its_mapping() {
        let text =
            "clusters:\n  - name: a\n    properties:\n      bootstrap.servers: b\npoll: {}\n";
        let places = KeyPlaces::of(&Node::parse(text).unwrap());
        for (path, expected) in [
            ("clusters[0].properties.bootstrap.servers", Some((4, 7))),
            ("clusters[0].properties.ssl.ca.location", Some((3, 5))),
            ("clusters[0].token", Some((2, 5))),
            ("clusters[1].name", Some((1, 1))),
            ("poll.interval", Some((5, 1))),
            ("server", None),
        ] {
            let found = places.nearest(path).map(|place| (place.line, place.column));
            assert_eq!(found, expected, "{path}");
        }
    }
}
