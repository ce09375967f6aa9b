//! Figures of the consumer groups of HPAs. They cover whole groups, unlike the status of an HPA, which covers only the
//! topics of the HPA.

use std::collections::BTreeMap;

use super::hpa_status::HpaStatus;
use crate::model::evaluation::EvaluationsAt;
use crate::model::lag::group_figures::{GroupFigures, NamedFigures};
use crate::model::units::hpa_key::HpaKey;
use crate::model::units::newtypes::{ClusterName, GroupId};

/// Cache of the figures of groups, because many HPAs may scale on one large group.
type KnownFigures<'a> = BTreeMap<(&'a ClusterName, &'a GroupId), GroupFigures>;

/// Adds the figures of their groups to the statuses of HPAs.
pub fn add_figures(statuses: &mut [HpaStatus], evaluations: EvaluationsAt<'_>) {
    let mut known = BTreeMap::new();
    for status in statuses {
        let hpa = HpaKey::new(status.namespace.as_str(), status.hpa.as_str());
        status.figures = Some(collect_figures(&hpa, evaluations, &mut known));
    }
}

/// The figures of the groups of an HPA, each group once.
fn collect_figures<'a>(
    hpa: &HpaKey,
    evaluations: EvaluationsAt<'a>,
    known: &mut KnownFigures<'a>,
) -> Vec<NamedFigures> {
    let mut found: Vec<NamedFigures> = Vec::new();
    for (target, evaluation) in evaluations.targets_of(hpa) {
        let Some(read) = evaluation.group.group.as_deref() else {
            continue;
        };
        let key = &target.key;
        let is_same =
            |named: &NamedFigures| named.cluster == key.cluster && named.group == key.group;
        if found.iter().any(is_same) {
            continue;
        }
        let figures = known.entry((&key.cluster, &key.group));
        let figures = figures.or_insert_with(|| GroupFigures::new(read));
        found.push(NamedFigures {
            cluster: key.cluster.clone(),
            group: key.group.clone(),
            figures: figures.clone(),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::diagnostics::hpa_status::statuses;
    use crate::model::fixtures::{self, hpa};
    use crate::model::hpa::facts::MetricTarget;
    use crate::model::lag::assembly::Scope;
    use crate::model::units::quantity::Milli;

    #[test]
    fn statuses_get_the_figures_of_their_groups_once() {
        let target = MetricTarget::AverageValue(Milli::from_units(10));
        let mut billing = hpa("billing", "group=g,topic=orders", target);
        billing.metrics.push(billing.metrics[0].clone());
        let read = |seconds, end| {
            let rows = [(0, Ok(Some(end / 2)), Ok(end))];
            fixtures::read(Duration::from_secs(seconds), "g", "orders", &rows)
        };
        let sweeps = [read(0, 100), read(10, 150)];
        let snapshot = fixtures::evaluated(&[billing], sweeps, Scope::Whole);
        let now = fixtures::at(Duration::from_secs(11));
        let mut all = statuses(snapshot.at(&now), std::iter::empty());
        assert_eq!(all[0].figures, None);
        add_figures(&mut all, snapshot.at(&now));
        let figures = all[0].figures.as_deref().unwrap();
        assert_eq!(figures.len(), 1, "{figures:?}");
        assert_eq!(figures[0].group, "g".into());
        assert_eq!(figures[0].figures.produced_per_second, Some(5.0));
        let text = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<Vec<HpaStatus>>(&text).unwrap(), all);
    }
}
