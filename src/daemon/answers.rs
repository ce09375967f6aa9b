//! Converts the configuration of targets, evaluation and tenancy.

use crate::config::{Config, TargetConfig, TenancyGrant};
use crate::model::evaluation::ServingPolicy;
use crate::model::targets;
use crate::model::targets::tenancy::{Grant, Tenancy};
use crate::model::units::glob::Glob;
use crate::poller::Cadence;

/// The policy for evaluating metric values.
pub(crate) fn serving_policy(config: &Config) -> ServingPolicy {
    ServingPolicy {
        clamp: config.cap.clamp,
        cap: config.cap.default,
        max_staleness: config.poll.max_staleness,
        namespaces: if config.kubernetes.enabled {
            config.kubernetes.namespaces.clone()
        } else {
            Vec::new()
        },
    }
}

/// The configured targets.
pub(crate) fn configured_targets(config: &Config) -> Vec<targets::ConfiguredTarget> {
    config.targets.iter().map(configured_target).collect()
}

/// Interval and deadline of sweeps.
pub(crate) fn cadence(config: &Config) -> Cadence {
    Cadence {
        interval: config.poll.interval,
        deadline: config.poll.deadline,
    }
}

/// The grants of namespaces.
pub(crate) fn tenancy(config: &Config) -> Tenancy {
    Tenancy(config.tenancy.iter().map(grant).collect())
}

fn grant(grant: &TenancyGrant) -> Grant {
    let patterns = |texts: &[String]| texts.iter().map(Glob::new).collect();
    Grant {
        namespaces: patterns(&grant.namespaces),
        clusters: patterns(&grant.clusters),
        groups: patterns(&grant.groups),
        topics: patterns(&grant.topics),
    }
}

fn configured_target(target: &TargetConfig) -> targets::ConfiguredTarget {
    targets::ConfiguredTarget {
        name: target.name.as_str().into(),
        namespaces: target.namespaces.clone(),
        cluster: target.cluster.clone(),
        group: target.group.clone(),
        lag_per_replica: target.settings.lag_per_replica,
        settings: target.settings.clone(),
    }
}
