//! The set of KEDA's objects that are observed, with a bound that namespaces share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::objects::ShadowObject;
use crate::model::keda::authentications::Authentications;
use crate::model::units::hpa_key::HpaKey;

/// Maximum memory of all objects, in bytes.
const MAX_TOTAL_BYTES: usize = 16 * 1024 * 1024;

/// Minimum size that an object counts for, in bytes. Most take less, so this bounds their number.
const MIN_OBJECT_BYTES: usize = 4 * 1024;

/// Maximum number of objects that are counted as left out.
const MAX_OMITTED: usize = 4096;

/// Key of an object: its namespace and name, and its kind.
type ObjectKey = (HpaKey, &'static str);

/// KEDA's objects. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ObservedSet {
    objects: Arc<CountedObjects>,
    /// Objects that are left out because there are too many, as far as they are counted.
    omitted: Arc<BTreeSet<ObjectKey>>,
    /// Where KEDA has the logins of their triggers from.
    pub authentications: Authentications,
}

/// Objects, and what those of each namespace count for.
#[derive(Clone, Debug, Default)]
struct CountedObjects {
    by_key: BTreeMap<ObjectKey, Arc<ShadowObject>>,
    bytes: usize,
    by_namespace: BTreeMap<Arc<str>, usize>,
}

/// Size that an object counts for, in bytes.
fn size(object: &ShadowObject) -> usize {
    object.bytes().max(MIN_OBJECT_BYTES)
}

impl CountedObjects {
    fn insert(&mut self, key: ObjectKey, object: Arc<ShadowObject>) {
        self.remove(&key);
        let size = size(&object);
        let of_namespace = self.by_namespace.entry(Arc::clone(&key.0.namespace));
        let of_namespace = of_namespace.or_default();
        *of_namespace = of_namespace.saturating_add(size);
        self.bytes = self.bytes.saturating_add(size);
        self.by_key.insert(key, object);
    }

    fn remove(&mut self, key: &ObjectKey) {
        let Some(object) = self.by_key.remove(key) else {
            return;
        };
        let (size, namespace) = (size(&object), &key.0.namespace);
        self.bytes = self.bytes.saturating_sub(size);
        let left = self.by_namespace.get(namespace).copied();
        match left.unwrap_or_default().saturating_sub(size) {
            0 => self.by_namespace.remove(namespace),
            left => self.by_namespace.insert(Arc::clone(namespace), left),
        };
    }

    fn retain(&mut self, is_kept: impl Fn(&ObjectKey) -> bool) {
        let mut gone = Vec::from_iter(self.by_key.keys().cloned());
        gone.retain(|key| !is_kept(key));
        for key in &gone {
            self.remove(key);
        }
    }

    /// The last object of the namespace whose objects are the largest together.
    fn last_of_largest(&self) -> Option<ObjectKey> {
        let largest = self.by_namespace.iter().max_by_key(|(_, bytes)| **bytes);
        let (namespace, _) = largest?;
        // No name of Kubernetes has this character, so it is between this namespace and the next.
        let end = (HpaKey::new(format!("{namespace}\0"), ""), "");
        let mut before = self.by_key.range(..end);
        before.next_back().map(|(key, _)| key.clone())
    }
}

impl ObservedSet {
    /// The objects, by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ShadowObject>> {
        self.objects.by_key.values()
    }

    /// How many objects are left out because there are too many; at most [`MAX_OMITTED`] are counted.
    #[must_use]
    pub fn omitted(&self) -> usize {
        self.omitted.len()
    }

    /// Inserts an object. Where there are too many, the namespace whose objects are the largest together loses its last
    /// ones, so that no namespace can use up the room of others.
    pub fn insert(&mut self, object: impl Into<Arc<ShadowObject>>) {
        let object = object.into();
        let objects = Arc::make_mut(&mut self.objects);
        let key = (object.key.clone(), object.kind);
        if objects.by_key.get(&key) == Some(&object) {
            return;
        }
        // The next listing decides again which objects are left out. An event must not: it would push out another one.
        let bytes = objects.bytes.saturating_add(size(&object));
        if bytes > MAX_TOTAL_BYTES && self.omitted.contains(&key) {
            return;
        }
        Arc::make_mut(&mut self.omitted).remove(&key);
        objects.insert(key, object);
        while objects.bytes > MAX_TOTAL_BYTES
            && let Some(last) = objects.last_of_largest()
        {
            objects.remove(&last);
            if self.omitted.len() < MAX_OMITTED {
                Arc::make_mut(&mut self.omitted).insert(last);
            }
        }
    }

    pub fn remove(&mut self, kind: &'static str, key: &HpaKey) {
        let key = (key.clone(), kind);
        Arc::make_mut(&mut self.objects).remove(&key);
        Arc::make_mut(&mut self.omitted).remove(&key);
    }

    /// Replaces the objects of a kind, in one namespace or in all, by those of `listed`.
    pub fn replace(&mut self, kind: &'static str, namespace: Option<&str>, listed: &Self) {
        let is_elsewhere = |(key, object_kind): &ObjectKey| {
            *object_kind != kind || namespace.is_some_and(|namespace| namespace != &*key.namespace)
        };
        Arc::make_mut(&mut self.objects)
            .retain(|key| is_elsewhere(key) || listed.objects.by_key.contains_key(key));
        let omitted = Arc::make_mut(&mut self.omitted);
        omitted.retain(is_elsewhere);
        let room = MAX_OMITTED.saturating_sub(omitted.len());
        omitted.extend(listed.omitted.iter().take(room).cloned());
        for object in listed.iter() {
            self.insert(Arc::clone(object));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::keda::shadow::objects::testing::{object, scaled_job};

    /// Number of objects of the usual size that fit.
    const MAX_OBJECTS: usize = MAX_TOTAL_BYTES / MIN_OBJECT_BYTES;

    /// The result of a scan of all objects.
    fn counted(set: &ObservedSet) -> BTreeMap<Arc<str>, usize> {
        let mut counts = BTreeMap::new();
        for object in set.iter() {
            *counts.entry(Arc::clone(&object.key.namespace)).or_default() += size(object);
        }
        counts
    }

    /// One that is not compared, with a reason of this length.
    fn large(namespace: &str, name: &str, bytes: usize) -> ShadowObject {
        ShadowObject {
            compared: Err("x".repeat(bytes)),
            ..object(namespace, name)
        }
    }

    #[test]
    fn a_namespace_with_too_many_objects_leaves_room_for_others() {
        let mut set = ObservedSet::default();
        for i in 0..MAX_OBJECTS {
            set.insert(scaled_job("large", &format!("o{i:05}")));
        }
        set.insert(scaled_job("small", "a"));
        assert_eq!((set.iter().count(), set.omitted()), (MAX_OBJECTS, 1));
        assert!(set.iter().any(|object| &*object.key.namespace == "small"));
        // An event of the object that was left out changes nothing, and other kinds and namespaces are counted apart.
        let left_out = scaled_job("large", &format!("o{:05}", MAX_OBJECTS - 1));
        set.insert(left_out.clone());
        assert_eq!((set.iter().count(), set.omitted()), (MAX_OBJECTS, 1));
        assert!(set.iter().any(|object| &*object.key.namespace == "small"));
        set.replace("ScaledObject", None, &ObservedSet::default());
        assert_eq!(set.omitted(), 1);
        set.remove(left_out.kind, &left_out.key);
        assert_eq!(set.omitted(), 0);
    }

    #[test]
    fn large_objects_count_for_several() {
        let mut set = ObservedSet::default();
        set.insert(object("small", "a"));
        for i in 0..MAX_OBJECTS {
            set.insert(large("large", &format!("o{i:05}"), 5 * MIN_OBJECT_BYTES));
        }
        let count = set.iter().count();
        assert_eq!(count, 1 + (MAX_OBJECTS - 1) / 5);
        assert_eq!(set.omitted(), MAX_OBJECTS + 1 - count);
        assert!(set.iter().any(|object| &*object.key.namespace == "small"));
        assert_eq!(set.objects.by_namespace, counted(&set));
    }

    #[test]
    fn an_object_that_grows_makes_others_of_its_namespace_leave() {
        let mut set = ObservedSet::default();
        for namespace in ["one", "other"] {
            for i in 0..MAX_OBJECTS / 2 {
                set.insert(object(namespace, &format!("o{i:05}")));
            }
        }
        assert_eq!((set.iter().count(), set.omitted()), (MAX_OBJECTS, 0));
        for bytes in [3, 9, 9] {
            set.insert(large("other", "o00007", bytes * MIN_OBJECT_BYTES));
        }
        let of_one = set.iter().filter(|object| &*object.key.namespace == "one");
        assert_eq!(of_one.count(), MAX_OBJECTS / 2);
        assert!((8..=12).contains(&set.omitted()), "{}", set.omitted());
        assert_eq!(set.objects.by_namespace, counted(&set));
        assert!(set.objects.bytes <= MAX_TOTAL_BYTES);
    }

    #[test]
    fn a_listing_replaces_the_objects_of_its_namespaces() {
        let mut set = ObservedSet::default();
        for (namespace, name) in [("a", "gone"), ("a", "stays"), ("b", "other")] {
            set.insert(scaled_job(namespace, name));
        }
        set.insert(object("a", "gone"));
        let mut listed = ObservedSet::default();
        listed.insert(scaled_job("a", "stays"));
        set.replace("ScaledJob", Some("a"), &listed);
        let left = set
            .iter()
            .map(|object| format!("{} {}", object.kind, object.key));
        let left: Vec<_> = left.collect();
        assert_eq!(
            left,
            [
                "ScaledObject a/gone",
                "ScaledJob a/stays",
                "ScaledJob b/other"
            ]
        );
    }

    #[test]
    fn counts_follow_every_change() {
        let mut set = ObservedSet::default();
        // The second one has a name that begins with that of the first.
        for (namespace, size) in [("shop", MAX_OBJECTS / 2), ("shop-eu", 2 * MAX_OBJECTS)] {
            for number in 0..size {
                let object = scaled_job(namespace, &format!("o{number:05}"));
                set.insert(object);
            }
        }
        let half = MAX_TOTAL_BYTES / 2;
        let expected = BTreeMap::from([("shop".into(), half), ("shop-eu".into(), half)]);
        assert_eq!(counted(&set), expected);
        assert_eq!(set.objects.by_namespace, expected);
        // Objects that are neither kept nor counted, because both limits are reached.
        for number in 0..10 {
            let name = format!("p{number:05}");
            for namespace in ["shop", "shop-eu"] {
                set.insert(scaled_job(namespace, &name));
            }
            assert_eq!(set.objects.by_namespace, counted(&set));
            assert_eq!(set.iter().count(), MAX_OBJECTS);
        }
        set.replace("ScaledJob", Some("shop"), &ObservedSet::default());
        assert_eq!(counted(&set).len(), 1);
        assert_eq!(set.objects.by_namespace, counted(&set));
        set.replace("ScaledJob", None, &ObservedSet::default());
        assert!(set.objects.by_namespace.is_empty());
    }
}
