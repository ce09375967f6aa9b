//! The daemon's configuration, and the HPA that it sees.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::plan::Plan;
use super::{CLUSTER, GROUP, NAMESPACE};
use crate::config::{AuthMode, ClusterConfig, Config, PollConfig};
use crate::kafka::embedded::EmbeddedCluster;
use crate::model::hpa::facts::{ExternalMetric, HpaFacts, HpaMap, MetricTarget};
use crate::model::hpa::selector::Selector;
use crate::model::units::metric::LAG_METRIC;

/// The configuration of the daemon.
pub(super) fn config(embedded: &EmbeddedCluster) -> Config {
    let properties = embedded.settings().properties.into_iter().collect();
    let mut config = Config::new(vec![ClusterConfig::new(CLUSTER.into(), properties)]);
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    config.poll = PollConfig::every(Duration::from_secs(1));
    config.kubernetes.enabled = false;
    config.server.external_metrics.listen = loopback;
    config.server.external_metrics.auth = AuthMode::None;
    config.server.metrics.listen = loopback;
    config.server.probes.listen = loopback;
    config.server.admin.listen = loopback;
    config
}

/// The HPA of the demo, with this number of current replicas.
pub(super) fn hpas(selector: &Selector, plan: &Plan, replicas: u32) -> HpaMap {
    HpaMap::from_iter([Arc::new(facts(selector, plan, replicas))])
}

fn facts(selector: &Selector, plan: &Plan, replicas: u32) -> HpaFacts {
    let spec = plan.hpa();
    let behavior = spec.behavior.as_ref();
    HpaFacts {
        namespace: NAMESPACE.into(),
        name: GROUP.into(),
        metrics: vec![ExternalMetric {
            name: LAG_METRIC.into(),
            selector: selector.clone(),
            target: Some(MetricTarget::AverageValue(Plan::per_replica())),
        }],
        min_replicas: Some(spec.min),
        max_replicas: spec.max,
        replicas: Some(replicas),
        tolerance_up: behavior.and_then(|behavior| behavior.up.tolerance),
        tolerance_down: behavior.and_then(|behavior| behavior.down.tolerance),
        ..HpaFacts::default()
    }
}
