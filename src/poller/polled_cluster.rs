//! State of one Kafka cluster, and its plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::transitions::BrokerLog;
use crate::model::kafka::observation::GroupObservation;
use crate::model::kafka::sweep_plan::{GroupPlan, SweepPlan};
use crate::model::lag::assembly::ClusterHistory;
use crate::model::lag::cluster_snapshot::ClusterSnapshot;
use crate::model::targets::Targets;
use crate::model::units::newtypes::{ClusterName, GroupId};

/// A Kafka cluster that is polled.
#[derive(Debug, Default)]
pub(super) struct PolledCluster {
    pub(super) history: ClusterHistory,
    pub(super) latest: Arc<ClusterSnapshot>,
    plan: BTreeMap<GroupId, GroupPlan>,
    /// Groups that the whole sweep in progress leaves out because they exceed a budget.
    pub(super) left_out: Vec<GroupObservation>,
    /// Groups whose plan may be out of date.
    pub(super) outdated: BTreeSet<GroupId>,
    pub(super) broker_log: BrokerLog,
}

impl PolledCluster {
    /// Updates the plans of outdated groups. Returns a partial plan with those that are new or have changed.
    pub(super) fn replan(&mut self, name: &ClusterName, targets: &Targets) -> SweepPlan {
        let mut changed = SweepPlan {
            is_partial: true,
            ..SweepPlan::default()
        };
        for id in std::mem::take(&mut self.outdated) {
            let group = targets.group(name, &id);
            let plan = group.map(|g| g.plan(&id, targets.thresholds(), self.latest.topics_read()));
            let Some(plan) = plan else {
                self.plan.remove(&id);
                continue;
            };
            if self.plan.get(&id) != Some(&plan) {
                changed.groups.push(plan.clone());
                self.plan.insert(id, plan);
            }
        }
        self.history.add_forgotten_topics(&mut changed.groups);
        changed
    }

    /// The plan of a whole sweep. `is_changing` says which groups may be changing.
    pub(super) fn whole_plan(&self, is_changing: impl Fn(&GroupId) -> bool) -> SweepPlan {
        let plans = self.plan.values().map(|plan| GroupPlan {
            is_changing: is_changing(&plan.group),
            ..plan.clone()
        });
        let mut groups = Vec::from_iter(plans);
        self.history.add_forgotten_topics(&mut groups);
        SweepPlan {
            groups,
            ..SweepPlan::default()
        }
    }
}
