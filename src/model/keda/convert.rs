//! Converts ScaledObjects with Kafka triggers to HPAs and to Kafka clusters of lagwise's configuration.

mod annotations;
mod hpa;
pub mod login;
mod metric;
pub mod note;
pub mod observed;
mod shared_selectors;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use self::hpa::ObjectReader;
use self::login::ClusterLogin;
use self::note::{Note, NoteKind};
use self::shared_selectors::distinguish_hpas;
use super::manifests::KedaManifests;
use crate::model::findings::{Finding, FindingCode, FindingSubject};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::kubernetes_version::KubernetesVersion;
use crate::model::units::names;

/// Inputs of the conversion besides the manifests.
#[derive(Clone, Debug)]
pub struct ConvertOptions {
    /// The namespace of manifests that set none.
    pub namespace: String,
    /// Version of the Kubernetes cluster; `None` means a version with all that lagwise uses.
    pub kubernetes: Option<KubernetesVersion>,
    pub form: ConvertedForm,
}

/// What objects are converted to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ConvertedForm {
    /// HPAs with metrics of lagwise, without KEDA.
    #[default]
    Hpa,
    /// The same ScaledObjects with lagwise as the external scaler of their Kafka triggers.
    ExternalScaler {
        /// `HOST:PORT` at which KEDA reaches it.
        address: String,
    },
}

/// A ScaledObject or ScaledJob, converted.
#[derive(Clone, Debug, Serialize)]
pub struct ConvertedObject {
    pub kind: &'static str,
    pub namespace: String,
    pub name: String,
    /// Where it was found.
    pub source: String,
    /// The HPA; `None` if it is not converted, or to another form.
    pub hpa: Option<Value>,
    /// The ScaledObject whose triggers use lagwise's external scaler; `None` if it is not converted, or is converted to
    /// an HPA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaled_object: Option<Value>,
    /// Notes for the user, the most important first.
    pub notes: Vec<Note>,
}

impl ConvertedObject {
    /// The converted HPA; `None` if it is not converted to one.
    #[must_use]
    pub fn result(&self) -> Option<&Value> {
        self.hpa.as_ref().or(self.scaled_object.as_ref())
    }

    /// Whether something is missing in the result.
    #[must_use]
    pub fn needs_attention(&self) -> bool {
        self.notes.iter().any(|note| note.kind.needs_attention())
    }

    fn subject(&self) -> FindingSubject {
        let key = HpaKey::new(&*self.namespace, &*self.name);
        FindingSubject::Keda {
            kind: self.kind,
            object: key,
        }
    }
}

impl fmt::Display for ConvertedObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// All objects, and the Kafka clusters that their metrics need.
#[derive(Clone, Debug, Serialize)]
pub struct Conversion {
    pub objects: Vec<ConvertedObject>,
    /// The configuration of lagwise, as far as it follows from the objects; `None` if none is converted.
    pub config: Option<Value>,
    /// What lagwise needs for its logins.
    pub needs: Vec<String>,
}

impl Conversion {
    /// Each note as a finding.
    #[must_use]
    pub fn findings(&self) -> BTreeSet<Finding> {
        let of_object = |object: &ConvertedObject| {
            let subject = object.subject();
            let finding = |note: &Note| {
                let message = format!("lagwise convert says {note}");
                Finding::new(FindingCode::KedaObject, subject.clone(), message)
            };
            let found = Vec::from_iter(object.notes.iter().map(finding));
            match found.is_empty() {
                true => {
                    let message = "lagwise convert makes an equal HPA of it";
                    vec![Finding::new(FindingCode::KedaObject, subject, message)]
                }
                false => found,
            }
        };
        self.objects.iter().flat_map(of_object).collect()
    }
}

/// Converts all ScaledObjects.
#[must_use]
pub fn convert(manifests: &KedaManifests, options: &ConvertOptions) -> Conversion {
    let documents = manifests.documents.iter();
    let all = manifests.scaled_objects.iter().zip(documents);
    let readers = all.map(|((source, object), document)| {
        let reader = ObjectReader::read((source, object), manifests, options);
        (source, document, reader)
    });
    let readers = Vec::from_iter(readers);
    let clusters = NamedClusters::new(readers.iter().flat_map(|(_, _, reader)| reader.logins()));
    let mut objects = Vec::new();
    for (source, document, reader) in readers {
        let (namespace, name) = reader.place();
        let label = |login: &_| clusters.label(login);
        let (hpa, scaled_object, notes) = match &options.form {
            ConvertedForm::Hpa => {
                let (hpa, notes) = reader.finish(label);
                (hpa, None, notes)
            }
            ConvertedForm::ExternalScaler { address } => {
                let (object, notes) = reader.finish_external(document, address, label);
                (None, object, notes)
            }
        };
        objects.push(ConvertedObject {
            kind: "ScaledObject",
            namespace,
            name,
            source: source.clone(),
            hpa,
            scaled_object,
            notes,
        });
    }
    distinguish_hpas(&mut objects);
    for (source, job) in &manifests.scaled_jobs {
        let text = "a ScaledJob starts a Job for each message or batch, which an HPA cannot: leave it to KEDA, or run a Deployment instead";
        objects.push(ConvertedObject {
            kind: "ScaledJob",
            namespace: job
                .namespace
                .clone()
                .unwrap_or_else(|| options.namespace.clone()),
            name: job.name.clone(),
            source: source.clone(),
            hpa: None,
            scaled_object: None,
            notes: vec![Note {
                kind: NoteKind::Refused,
                field: "kind".to_owned(),
                text: text.to_owned(),
            }],
        });
    }
    Conversion {
        objects,
        config: clusters.config(),
        needs: clusters.needs(),
    }
}

/// The Kafka clusters of all objects, each with its position in the order of first use and its name.
#[derive(Debug)]
pub(crate) struct NamedClusters(HashMap<ClusterLogin, (usize, String)>);

impl NamedClusters {
    fn new<'a>(logins: impl Iterator<Item = &'a ClusterLogin>) -> Self {
        let mut named = HashMap::new();
        let mut names = UniqueNames::default();
        for login in logins {
            let position = named.len();
            if let Entry::Vacant(entry) = named.entry(login.clone()) {
                entry.insert((position, names.take(cluster_name(&login.servers))));
            }
        }
        Self(named)
    }

    /// The label `cluster` of a metric; `None` if there is only one Kafka cluster, so that no label is needed.
    fn label(&self, login: &ClusterLogin) -> Option<&str> {
        let (_, name) = self.0.get(login)?;
        (self.0.len() > 1).then_some(name.as_str())
    }

    fn config(&self) -> Option<Value> {
        let mut named = Vec::from_iter(&self.0);
        named.sort_unstable_by_key(|(_, (position, _))| *position);
        let entries = named.iter().map(|(login, (_, name))| login.entry(name));
        let entries = Vec::from_iter(entries);
        (!entries.is_empty()).then(|| serde_json::json!({"clusters": entries}))
    }

    fn needs(&self) -> Vec<String> {
        let needs = self.0.keys().flat_map(|login| login.needs.iter().cloned());
        BTreeSet::from_iter(needs).into_iter().collect()
    }
}

/// Maximum characters of a host in the name of a Kafka cluster, which leaves room for a number.
const MAX_HOST_CHARS: usize = 50;

/// A name for a Kafka cluster: the first part of the first broker's host.
fn cluster_name(servers: &str) -> &str {
    let host = servers.split([':', '.', ',']).next().unwrap_or_default();
    let is_number = host.chars().all(|c| c.is_ascii_digit());
    let is_name = names::label_value(host).is_ok() && host.len() <= MAX_HOST_CHARS;
    match is_name && !is_number {
        true => host,
        false => "kafka",
    }
}

/// Names, none of them twice.
#[derive(Debug, Default)]
struct UniqueNames {
    taken: HashSet<String>,
    /// How often each name was requested.
    uses: HashMap<String, u32>,
}

impl UniqueNames {
    /// Takes this name, with a number if it is taken.
    fn take(&mut self, name: &str) -> String {
        let uses = self.uses.entry(name.to_owned()).or_default();
        loop {
            *uses = uses.saturating_add(1);
            let numbered = match *uses {
                1 => name.to_owned(),
                number => format!("{name}-{number}"),
            };
            if self.taken.insert(numbered.clone()) {
                return numbered;
            }
        }
    }
}
