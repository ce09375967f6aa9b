//! Options of the poller, of evaluation and of tenancy, from the configuration.

use crate::config::{Config, TargetConfig, TenancyGrant};
use crate::model::evaluation::ServingPolicy;
use crate::model::hpa::write_scopes::{WriteScope, WriteScopes};
use crate::model::targets::tenancy::{Grant, Tenancy};
use crate::model::targets::{ConfiguredTarget, TargetOptions};
use crate::model::units::glob::Glob;
use crate::poller::{Cadence, PollerOptions};
use crate::serve::upstream::{CertificateFiles, UpstreamIdentity, UpstreamOptions, UpstreamTrust};

/// The policy for evaluating metric values.
pub(crate) fn serving_policy(config: &Config) -> ServingPolicy {
    ServingPolicy {
        clamp: config.cap.clamp,
        cap: config.cap.default,
        scaling: config.policy.default,
        max_staleness: config.poll.max_staleness,
        namespaces: if config.kubernetes.enabled {
            config.kubernetes.namespaces.clone()
        } else {
            Vec::new()
        },
        writes: write_scopes(config),
    }
}

/// Where the daemon may write.
fn write_scopes(config: &Config) -> WriteScopes {
    if config.kubernetes.observes() {
        // Nothing is written, so the derivation does not depend on the rights of lagwise.
        return WriteScopes::ALL;
    }
    let (enforce, zero) = (&config.cap.enforce, &config.scale_to_zero);
    WriteScopes {
        cap: WriteScope {
            is_enabled: enforce.enabled,
            namespaces: enforce.namespaces.clone(),
        },
        zero: WriteScope {
            is_enabled: zero.enabled,
            namespaces: zero.namespaces.clone(),
        },
    }
}

pub(crate) fn target_options(config: &Config) -> TargetOptions {
    TargetOptions {
        configured: config.targets.iter().map(configured_target).collect(),
        thresholds: config.lag.thresholds(),
        tenancy: tenancy(config),
        budgets: config.budgets.budgets(),
        writes: write_scopes(config),
    }
}

pub(crate) fn poller_options(config: &Config) -> PollerOptions {
    PollerOptions {
        targets: target_options(config),
        policy: serving_policy(config),
        cadence: cadence(config),
    }
}

/// Interval and deadline of sweeps.
fn cadence(config: &Config) -> Cadence {
    Cadence {
        interval: config.poll.interval,
        deadline: config.poll.deadline,
    }
}

/// How to reach the other server of external metrics, if there is one.
pub(crate) fn upstream(config: &Config) -> Option<UpstreamOptions> {
    let upstream = config.server.external_metrics.upstream.clone()?;
    let trust = match upstream.ca_file {
        Some(file) => UpstreamTrust::CaFile(file),
        None => UpstreamTrust::Any,
    };
    let certificate = upstream.client_certificate.map(|files| CertificateFiles {
        cert_file: files.cert_file,
        key_file: files.key_file,
    });
    let identity = UpstreamIdentity {
        token_file: upstream.token_file,
        certificate,
    };
    Some(UpstreamOptions {
        url: upstream.url,
        trust,
        identity,
    })
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

fn configured_target(target: &TargetConfig) -> ConfiguredTarget {
    ConfiguredTarget {
        name: target.name.as_str().into(),
        namespaces: target.namespaces.clone(),
        cluster: target.cluster.clone(),
        group: target.group.clone(),
        lag_per_replica: target.settings.lag_per_replica,
        settings: target.settings.clone(),
    }
}
