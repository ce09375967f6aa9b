//! The targets by a scan of all HPAs and requests, to compare with.

use super::*;

/// Namespace `c` may only use group `g`.
fn tenancy() -> Tenancy {
    let globs = |names: &[&str]| names.iter().copied().map(Glob::new).collect();
    Tenancy(vec![
        Grant {
            namespaces: globs(&["a", "b"]),
            ..Grant::default()
        },
        Grant {
            namespaces: globs(&["c"]),
            groups: globs(&["g"]),
            ..Grant::default()
        },
    ])
}

pub(super) fn configuration() -> (Vec<ClusterName>, TargetOptions) {
    let orders = ConfiguredTarget {
        name: "orders".into(),
        namespaces: vec!["a".into(), "b".into()],
        cluster: "main".into(),
        group: "h".into(),
        lag_per_replica: Some(Milli::from_units(2)),
        settings: Settings {
            offset_reset: Some(OffsetReset::Earliest),
            ..Settings::default()
        },
    };
    let options = TargetOptions {
        configured: vec![orders],
        tenancy: tenancy(),
        ..TargetOptions::default()
    };
    (clusters(&["main", "down"]), options)
}

/// The targets of all HPAs and requests, computed by scanning all of them.
pub(super) struct Scan {
    pub(super) targets: Vec<Arc<Target>>,
    pub(super) denied: Vec<(HpaKey, DeniedQuery)>,
    pub(super) findings: BTreeSet<Finding>,
    requests: BTreeSet<WatchKey>,
}

impl Scan {
    pub(super) fn new(hpas: &HpaMap, requests: &BTreeSet<WatchKey>) -> Self {
        let (clusters, options) = configuration();
        let configured = Targets::new(&clusters, options, None);
        let mut scan = Self {
            targets: configured.all().cloned().collect(),
            denied: Vec::new(),
            findings: BTreeSet::new(),
            requests: requests.clone(),
        };
        for hpa in hpas.values() {
            let built = HpaTargetBuilder::new(&configured, hpa).build();
            scan.targets.extend(built.targets);
            let denied = built.denied.into_iter();
            scan.denied.extend(denied.map(|denied| (hpa.key(), denied)));
            scan.findings
                .extend(built.findings.iter().map(|f| (**f).clone()));
        }
        let code = FindingCode::ConflictingSettings;
        for (key, settings) in scan.settings() {
            for setting in settings.conflicts {
                let end = format!(
                    "set {setting} differently, or leave it unset; the value that counts more lag applies to all of them"
                );
                let (cluster, group) = &key;
                let message = format!("targets {end}");
                let found = Finding::new(code, (cluster, group), message);
                scan.findings.insert(found);
                let of_group =
                    |t: &&Arc<Target>| t.key.cluster == *cluster && t.key.group == *group;
                for hpa in scan.targets.iter().filter(of_group).filter_map(|t| t.hpa()) {
                    let message = format!(
                        "HPAs or targets of group {group:?} on Kafka cluster {cluster:?} {end}"
                    );
                    scan.findings.insert(Finding::new(code, hpa, message));
                }
            }
        }
        scan
    }

    /// The settings of each group: what an HPA leaves unset is as configured for the group, or else the default.
    fn settings(&self) -> BTreeMap<GroupKey, GroupSettings> {
        let mut groups: BTreeMap<GroupKey, GroupSettings> = BTreeMap::new();
        for target in &self.targets {
            let key = (target.key.cluster.clone(), target.key.group.clone());
            let is_configured = key.0.as_str() == "main" && key.1.as_str() == "h";
            let defaults = Settings {
                offset_reset: Some(match is_configured {
                    true => OffsetReset::Earliest,
                    false => OffsetReset::Latest,
                }),
                ..Settings::group_defaults(LagThresholds::default())
            };
            groups
                .entry(key)
                .or_default()
                .add(&target.settings, &defaults);
        }
        groups
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &WatchKey> {
        let targets = self.targets.iter().map(|target| &*target.key);
        targets.chain(&self.requests)
    }

    /// Whether the configuration covers everything that is needed of a group.
    fn is_unlimited(&self, cluster: &str, group: &GroupId) -> bool {
        let is_of_group = |key: &&WatchKey| key.cluster.as_str() == cluster && key.group == *group;
        let configured = self.targets.iter().filter(|target| target.hpa().is_none());
        let configured = configured.map(|target| &*target.key).filter(is_of_group);
        let configured: Vec<_> = configured.collect();
        let is_named = |topic| configured.iter().any(|key| key.topics.contains(topic));
        let is_open = configured.iter().any(|key| key.topics.is_empty());
        !configured.is_empty()
            && self
                .keys()
                .filter(is_of_group)
                .all(|key| match key.topics.is_empty() {
                    true => is_open,
                    false => key.topics.iter().all(is_named),
                })
    }

    fn only_requested(&self, cluster: &str, group: &GroupId) -> BTreeSet<TopicName> {
        let is_of_group = |key: &&WatchKey| key.cluster.as_str() == cluster && key.group == *group;
        let targets = self.targets.iter().map(|target| &*target.key);
        let by_targets: Vec<_> = targets.filter(is_of_group).collect();
        if by_targets.is_empty() {
            return BTreeSet::new();
        }
        let requests = self.requests.iter().filter(is_of_group);
        let mut topics: BTreeSet<_> = requests.flat_map(|key| key.topics.clone()).collect();
        for key in by_targets {
            topics.retain(|topic| !key.topics.contains(topic));
        }
        topics
    }

    pub(super) fn plan(&self, cluster: &str) -> Vec<GroupPlan> {
        let unset = Settings::unset();
        let targets = self.targets.iter().map(|t| (&*t.key, &t.settings));
        let all = targets.chain(self.requests.iter().map(|key| (key, &unset)));
        let mut groups: BTreeMap<GroupId, GroupPlan> = BTreeMap::new();
        for (key, settings) in all.filter(|(key, _)| key.cluster.as_str() == cluster) {
            let plan = groups.entry(key.group.clone()).or_insert_with(|| {
                let mut plan = GroupPlan::new(key.group.clone(), BTreeSet::new());
                plan.discover = false;
                plan
            });
            let topics = Arc::make_mut(&mut plan.topics);
            topics.extend(key.topics.clone());
            if key.topics.is_empty() {
                plan.discover = true;
                let known = known_topics(&key.group).into_iter();
                let pattern = settings.pattern();
                let matching = known.filter(|t| pattern.is_none_or(|p| p.matches(t)));
                topics.extend(matching);
            }
        }
        let joined = self.settings();
        let plans = groups.into_iter().map(|(group, plan)| {
            let is_unlimited = self.is_unlimited(cluster, &group);
            let joined = joined.get(&(cluster.into(), group));
            let settings = joined.map_or_else(Settings::default, |j| j.settings.clone());
            GroupPlan {
                requested: Arc::new(self.only_requested(cluster, &plan.group)),
                is_unlimited,
                reset: settings.offset_reset.unwrap_or_default(),
                isolation: settings.isolation.unwrap_or_default(),
                thresholds: settings.lag_thresholds(LagThresholds::default()),
                ..plan
            }
        });
        plans.collect()
    }
}

pub(super) fn known_topics(group: &GroupId) -> BTreeSet<TopicName> {
    ["tea", "tin", "water"]
        .map(|topic| format!("{topic}-{group}").as_str().into())
        .into()
}
