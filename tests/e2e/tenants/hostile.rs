//! Generates random hostile HPAs: anything that the API server may accept, up to its size limits.

use lagwise::model::settings::annotation_keys::{PREFIX, WRITTEN};
use lagwise::model::settings::{SETTINGS, Setting, Settings};
use serde_json::{Map, Value, json};

/// Maximum size of all annotations of an object: the API server's limit.
const MAX_ANNOTATION_BYTES: usize = 256 * 1024;
/// Maximum length of the part of an annotation's key after the slash: the API server's limit.
const MAX_KEY_CHARS: usize = 63;

/// Values of annotations: some are right for one setting and wrong for others, some for none.
const VALUES: &[&str] = &[
    "",
    " ",
    "true",
    "false",
    "TRUE",
    "no",
    "0",
    "1",
    "-1",
    "+1",
    "01",
    "10000",
    "10001",
    "1000000",
    "1000001",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "18446744073709551615",
    "18446744073709551616",
    "9999999999999999999999999999999999999999",
    "1e308",
    "1e999",
    "NaN",
    "inf",
    "0s",
    "1ns",
    "1s",
    "7d",
    "7d1ns",
    "366d",
    "18446744073709551615s",
    "999999999999y",
    "5k",
    "100m",
    "1Ei",
    "9223372036854775807Ei",
    "0.000000001",
    "latest",
    "earliest",
    "read_committed",
    "read_uncommitted",
    "partitions",
    "lagging",
    "advise",
    "enforce",
    "0-5,9",
    "5-0",
    "0-4294967295",
    "0,0,0,0,0-2147483647,1-2147483646",
    "2026-11-30T00:00:00Z",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999999Z",
    "*",
    "..",
    "a,,b,,,",
    "\u{1b}[2J\u{1b}]0;title\u{7}",
    "\r\n2026-11-30T00:00:00Z ERROR forged: a line of the log\n",
    "\u{202e}\u{0}\u{feff}\u{1f4a9}\u{e0041}",
    "\",\"forged\":\"\\",
    "{{.}} ${HOME} $(id) `id` %s%n",
];

/// Regular expressions that are large, slow to compile, or slow to match.
const PATTERNS: &[&str] = &[
    ".*",
    r"\pL{24}",
    r"\w{1000}",
    "[a-z]{200}",
    "(x{1,1000}){1,1000}",
    "((a{1,100}){1,100}){1,100}",
    "(a|aa)+$",
    "(a+)+b",
    "(.*)*(.*)*(.*)*(.*)*!",
    "(?i)(?:[^\u{0}-\u{10ffff}]|\\p{Cyrillic}|\\p{Greek}){99}",
    r"(?:a?){30}a{30}",
    "(?s-u).{255}",
    "a**",
    "(",
    "[z-a]",
    r"\",
];

const QUANTITIES: &[&str] = &[
    "1",
    "10",
    "100m",
    "1m",
    "1u",
    "1n",
    "0.5",
    "5k",
    "5M",
    "5G",
    "5T",
    "5P",
    "8E",
    "1Ki",
    "1Mi",
    "1Gi",
    "1Ti",
    "1Pi",
    "7Ei",
    "1e3",
    "1E3",
    "1e-9",
    "1e18",
    "9223372036854775807",
    "99999999999999999999999999",
    "0",
    "-1",
    "-5k",
];

/// Parts of names that the API server accepts in fields that need not be DNS names.
const ODD_NAMES: &[&str] = &[
    "workload",
    "missing",
    "own?dryRun=All&x=",
    "a b",
    "\u{1b}[2J",
    "\r\nforged",
    "\u{202e}gnp",
    "#",
    "a:b;c",
    "..",
    "a/b",
    "%2e%2e",
    "\u{1f4a9}",
];

/// Size of an HPA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    Usual,
    /// Beyond what the daemon keeps.
    Large,
    /// Annotations up to the API server's limit.
    Annotations,
    /// A selector of hundreds of kilobytes.
    Selector,
}

/// Names that the HPAs use.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// Groups that tenancy lets the tenant use.
    pub(super) groups: Vec<String>,
    pub(super) topics: Vec<String>,
    /// Groups and topics that it does not.
    pub(super) foreign: Vec<String>,
}

/// Makes random HPAs.
pub(super) struct Hostile {
    pub(super) random: fastrand::Rng,
    names: Names,
    /// The setting whose turn it is, so that none is left out.
    setting: usize,
}

impl Hostile {
    pub(super) fn new(seed: u64, names: Names) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let setting = random.usize(..SETTINGS.len());
        Self {
            random,
            names,
            setting,
        }
    }

    /// Returns true with this probability in percent.
    pub(super) fn chance(&mut self, percent: u8) -> bool {
        self.random.u8(..100) < percent
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.random.usize(..of.len())]
    }

    /// An HPA of that name.
    pub(super) fn hpa(&mut self, name: &str) -> Value {
        let size = match self.random.u16(..1000) {
            0..840 => Size::Usual,
            840..970 => Size::Large,
            970..990 => Size::Annotations,
            _ => Size::Selector,
        };
        let metrics = match self.random.u8(..100) {
            0..5 => 0,
            5..95 => self.random.usize(1..5),
            _ => self.random.usize(60..100),
        };
        let mut spec = json!({
            "scaleTargetRef": self.scale_target(),
            "maxReplicas": self.replicas(),
            "metrics": (0..metrics).map(|i| self.metric(if i == 0 { size } else { Size::Usual })).collect::<Vec<_>>(),
        });
        if self.chance(60) {
            spec["minReplicas"] = match self.random.u8(..10) {
                0 => json!(self.replicas()),
                1 => json!(0),
                _ => json!(1),
            };
        }
        if self.chance(20) {
            spec["behavior"] = self.behavior();
        }
        let mut metadata = json!({"name": name, "annotations": self.annotations(size)});
        if self.chance(10) {
            let owner = self.one(ODD_NAMES);
            metadata["ownerReferences"] = json!([{"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": owner, "uid": "0", "controller": true}]);
        }
        json!({
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": metadata,
            "spec": spec,
        })
    }

    fn replicas(&mut self) -> i64 {
        match self.random.u8(..8) {
            0 => 1,
            1 => i32::MAX.into(),
            2 => self.one(&[0, -1, 2_147_483_648]),
            _ => self.random.i64(1..1000),
        }
    }

    fn scale_target(&mut self) -> Value {
        let (version, kind) = match self.random.u8(..10) {
            0 => ("apps/v1", "StatefulSet"),
            1 => ("v1", "ReplicationController"),
            2 => ("evil.dev/v1", "Thing"),
            3 => {
                let version = self.one(&["", "a/b/c", "../../v1", "apps/v1?dryRun=All", "\u{1b}"]);
                (version, self.one(ODD_NAMES))
            }
            _ => ("apps/v1", "Deployment"),
        };
        let name = match self.random.u8(..10) {
            0..4 => "workload".to_owned(),
            4 => "n".repeat(self.random.usize(1..100_000)),
            5..7 => self.one(ODD_NAMES).to_owned(),
            _ => format!("h{}", self.random.u16(..1000)),
        };
        json!({"apiVersion": version, "kind": kind, "name": name})
    }

    fn behavior(&mut self) -> Value {
        let rules = |hostile: &mut Self| {
            json!({
                "tolerance": hostile.one(QUANTITIES),
                "stabilizationWindowSeconds": hostile.one(&[0, 1, 3600, 3601]),
                "selectPolicy": hostile.one(&["Max", "Min", "Disabled"]),
                "policies": [{
                    "type": hostile.one(&["Pods", "Percent"]),
                    "value": hostile.one(&[1, 100, i32::MAX]),
                    "periodSeconds": hostile.one(&[1, 1800]),
                }],
            })
        };
        json!({"scaleUp": rules(self), "scaleDown": rules(self)})
    }

    fn metric(&mut self, size: Size) -> Value {
        let name = match self.random.u8(..20) {
            0..13 => "kafka_lag",
            13..17 => "kafka_desired_replicas",
            17 => "kafka_lagg",
            _ => self.one(ODD_NAMES),
        };
        let mut metric = json!({"name": name});
        if self.chance(95) {
            metric["selector"] = self.selector(size);
        }
        let target = self.target();
        match self.random.u8(..20) {
            0 => {
                json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": self.replicas()}}})
            }
            1 => {
                json!({"type": "ContainerResource", "containerResource": {"name": "memory", "container": "c", "target": target}})
            }
            2 => json!({"type": "Pods", "pods": {"metric": metric, "target": target}}),
            3 => {
                let of = self.scale_target();
                json!({"type": "Object", "object": {"describedObject": of, "metric": metric, "target": target}})
            }
            _ => json!({"type": "External", "external": {"metric": metric, "target": target}}),
        }
    }

    fn target(&mut self) -> Value {
        let (value, average) = (self.one(QUANTITIES), self.one(QUANTITIES));
        match self.random.u8(..10) {
            0..6 => json!({"type": "AverageValue", "averageValue": average}),
            6..9 => json!({"type": "Value", "value": value}),
            _ => {
                json!({"type": self.one(&["Value", "Utilization"]), "value": value, "averageValue": average})
            }
        }
    }

    fn selector(&mut self, size: Size) -> Value {
        let mut selector = Map::new();
        if size == Size::Usual && self.chance(60) {
            let mut labels = json!({"group": self.group(), "topic": self.topic()});
            match self.random.u8(..6) {
                0 => labels["cluster"] = json!(self.one(&["main", "other", ""])),
                1 => labels["target"] = json!(self.group()),
                2 => drop(
                    labels
                        .as_object_mut()
                        .and_then(|labels| labels.remove("topic")),
                ),
                _ => {}
            }
            selector.insert("matchLabels".into(), labels);
        }
        if size != Size::Usual || self.chance(40) {
            let expressions: Vec<_> = (0..self.random.usize(1..4))
                .map(|i| self.expression(if i == 0 { size } else { Size::Usual }))
                .collect();
            selector.insert("matchExpressions".into(), expressions.into());
        }
        selector.into()
    }

    fn expression(&mut self, size: Size) -> Value {
        let key = match self.random.u8(..10) {
            0..5 => "group",
            5..8 => "topic",
            8 => "cluster",
            _ => self.one(&["target", "partition", "evil.dev/label", "Group"]),
        };
        let count = match size {
            Size::Usual => self.random.usize(1..5),
            Size::Large | Size::Annotations => self.random.usize(5..2000),
            Size::Selector => self.random.usize(2000..25_000),
        };
        let operator = match self.random.u8(..10) {
            0..6 => "In",
            6..8 => "NotIn",
            8 => "Exists",
            _ => "DoesNotExist",
        };
        let mut expression = json!({"key": key, "operator": operator});
        if operator.ends_with("In") {
            let is_topic = key == "topic";
            let value = |_| if is_topic { self.topic() } else { self.group() };
            expression["values"] = (0..count).map(value).collect();
        }
        expression
    }

    fn group(&mut self) -> String {
        let names = &self.names;
        match self.random.u8(..10) {
            0..6 => names.groups[self.random.usize(..names.groups.len())].clone(),
            6 => names.foreign[self.random.usize(..names.foreign.len())].clone(),
            7 => self.label(),
            _ => format!("{}-{}", names.groups[0], self.random.u16(..)),
        }
    }

    fn topic(&mut self) -> String {
        let names = &self.names;
        match self.random.u8(..10) {
            0..7 => names.topics[self.random.usize(..names.topics.len())].clone(),
            7 => names.foreign[self.random.usize(..names.foreign.len())].clone(),
            8 => self.label(),
            _ => format!("{}-{}", names.topics[0], self.random.u16(..)),
        }
    }

    /// Any value of a label.
    fn label(&mut self) -> String {
        let length = self.one(&[0, 1, 10, 63]);
        (0..length).map(|_| self.random.alphanumeric()).collect()
    }

    fn annotations(&mut self, size: Size) -> Value {
        let count = match size {
            Size::Usual | Size::Selector => self.random.usize(..12),
            Size::Large => self.random.usize(12..300),
            Size::Annotations => usize::MAX,
        };
        let mut annotations = Map::new();
        let mut bytes = 0;
        while annotations.len() < count {
            let (key, value) = self.annotation(size);
            bytes += key.len() + value.len();
            if bytes > MAX_ANNOTATION_BYTES {
                break;
            }
            annotations.insert(key, value.into());
        }
        annotations.into()
    }

    fn annotation(&mut self, size: Size) -> (String, String) {
        self.setting = (self.setting + 1) % SETTINGS.len();
        let setting = &SETTINGS[self.setting];
        let mut name = match self.random.u8(..20) {
            0..13 => setting.key.to_owned(),
            13 => self.misspelt(setting.key),
            14..16 => {
                let (written, _) = self.one(&WRITTEN);
                return (written.to_owned(), self.value(setting, Size::Usual));
            }
            16 => {
                let others = [
                    "autoscaling.alpha.kubernetes.io/metrics",
                    "autoscaling.alpha.kubernetes.io/behavior",
                    "other.dev/cap",
                    "lagwise.dev.evil/cap",
                    "paused",
                ];
                return (self.one(&others).to_owned(), self.value(setting, size));
            }
            _ => format!("unknown-{}", self.random.u32(..)),
        };
        if self.chance(if size == Size::Usual { 40 } else { 80 }) {
            name = format!("{name}.{}", self.group());
            name.truncate(MAX_KEY_CHARS);
        }
        // Neither may be its last character.
        let name = name.trim_end_matches(['-', '.', '_']);
        (format!("{PREFIX}{name}"), self.value(setting, size))
    }

    /// The key with one letter left out, doubled, or another one.
    fn misspelt(&mut self, key: &str) -> String {
        let (before, after) = key.split_at(self.random.usize(1..key.len()));
        let mut letters = after.chars();
        let letter = letters.next().unwrap_or('x');
        match self.random.u8(..3) {
            0 => format!("{before}{}", letters.as_str()),
            1 => format!("{before}{letter}{after}"),
            _ => format!("{before}x{}", letters.as_str()),
        }
    }

    fn value(&mut self, setting: &Setting, size: Size) -> String {
        match self.random.u8(..10) {
            0..4 => self.valid(setting),
            4 => self.one(PATTERNS).to_owned(),
            5 => {
                let pieces = [
                    ",",
                    "a,",
                    "(",
                    "[a-z]{99}",
                    "0-9,",
                    "\u{1f4a9}",
                    "\u{1b}[2J",
                ];
                let most = if size == Size::Usual { 100 } else { 4000 };
                self.one(&pieces).repeat(self.random.usize(..most))
            }
            6 => self.topic(),
            7 => self.group(),
            _ => self.one(VALUES).to_owned(),
        }
    }

    /// A value that the setting takes.
    fn valid(&mut self, setting: &Setting) -> String {
        let group = self.group();
        let topics = [self.topic(), self.topic()].join(",");
        let own = [group.as_str(), topics.as_str()];
        let documented = [setting.example.unwrap_or_default()];
        let all = VALUES.iter().chain(PATTERNS).chain(&own).chain(&documented);
        let takes = |value: &&&str| setting.parse(value, &mut Settings::default()).is_ok();
        let valid: Vec<_> = all.filter(takes).copied().collect();
        if valid.is_empty() {
            return group;
        }
        self.one(&valid).to_owned()
    }
}
