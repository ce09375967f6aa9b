//! The list of all scenarios, in lanes. `tests/run` runs the lanes in parallel, because a scenario mostly waits. The
//! scenarios of a lane share a testbed, so scenarios that need the same parts are in the same lane.

use anyhow::{Result, bail};

use crate::Test;
use crate::{
    annotations, api, brokers, cap, chart, check, conformance, convert, cost, events,
    external_scaler, faults, guide, lag, leader, live, load, login, logins, network, oracle, otlp,
    outage, policy, protocols, renewal, rows, scale, selectors, shadow, simulate, simulated_group,
    smoke, state, tenants, topics, unseen, zero,
};

/// Environment variable that names the lane to run. Without it all lanes run, on one testbed.
const CHOICE: &str = "LAGWISE_LANE";

/// The tests of a suite.
pub(crate) type Tests = &'static [(&'static str, Test)];

/// Scenarios that share a testbed.
pub(crate) struct Lane {
    pub(crate) name: &'static str,
    /// Maximum number of scenarios at the same time. Scenarios that register the external metrics API (a control plane
    /// has only one), stop brokers of the shared cluster or need the same port run one after the other.
    pub(crate) at_once: usize,
    /// Scenarios of every run.
    pub(crate) cases: &'static [Tests],
    /// Long scenarios, for `tests/run --full` (or `--ignored`, as with any ignored test).
    pub(crate) long: &'static [Tests],
}

pub(crate) const LANES: &[Lane] = &[
    // What Kafka says, which waits for minutes, and daemons without Kubernetes. Before each scenario the HPAs of those
    // before it are deleted, so none here may have any.
    Lane {
        name: "kafka",
        at_once: 3,
        cases: &[
            rows::CASES,
            conformance::CASES,
            live::CASES,
            selectors::CASES,
            api::ALONE,
        ],
        long: &[brokers::LONG, conformance::LONG],
    },
    // Logins and bad networks, of which several put a proxy at the same port; and the simulator, because this lane has
    // time left.
    Lane {
        name: "access",
        at_once: 1,
        cases: &[
            login::CASES,
            check::KAFKA,
            topics::KAFKA,
            logins::CASES,
            protocols::CASES,
            #[cfg(feature = "gssapi")]
            crate::kerberos::CASES,
            network::CASES,
            renewal::CASES,
            simulate::CASES,
        ],
        long: &[],
    },
    // The testbed itself, what needs several brokers, and outages. The first starts three brokers, which all the others
    // use.
    Lane {
        name: "brokers",
        at_once: 1,
        cases: &[
            smoke::CASES,
            lag::CASES,
            cost::CASES,
            otlp::CASES,
            conformance::BROKERS,
            faults::CASES,
            outage::CASES,
            state::CASES,
            cap::BROKERS,
            zero::BROKERS,
        ],
        long: &[smoke::LONG, faults::LONG, load::LONG, otlp::LONG],
    },
    // The aggregated API, and how it is installed.
    Lane {
        name: "api",
        at_once: 1,
        cases: &[api::CASES, chart::CASES],
        long: &[api::LONG, chart::LONG],
    },
    // KEDA: the conversion of its objects, its external scaler, and the comparison of replicas. Then the commands of a
    // new user, and, because this lane has time left, scale to zero of unusual groups, and misspelled ones.
    Lane {
        name: "keda",
        at_once: 1,
        cases: &[
            convert::CASES,
            external_scaler::CASES,
            shadow::CASES,
            check::CASES,
            topics::CASES,
            guide::CASES,
            zero::UNUSUAL_GROUPS,
            unseen::CASES,
        ],
        long: &[
            convert::LONG,
            external_scaler::LONG,
            topics::LONG,
            guide::LONG,
        ],
    },
    // How many replicas there are and why, which daemon leads, and what may be woken.
    Lane {
        name: "replicas",
        at_once: 1,
        cases: &[
            scale::CASES,
            annotations::CASES,
            oracle::CASES,
            leader::CASES,
            events::CASES,
            tenants::CASES,
            zero::RECORDS,
        ],
        long: &[
            policy::LONG,
            simulated_group::LONG,
            leader::LONG,
            tenants::LONG,
        ],
    },
    // Writes of the daemon: the cap, and scale to zero.
    Lane {
        name: "writes",
        at_once: 1,
        cases: &[cap::CASES, zero::CASES, zero::UNUSUAL],
        long: &[cap::LONG, zero::LONG],
    },
];

/// The lanes to run.
///
/// # Errors
/// A name that no lane has, because otherwise its tests would be skipped silently.
pub(crate) fn chosen() -> Result<&'static [Lane]> {
    let Ok(name) = std::env::var(CHOICE) else {
        return Ok(LANES);
    };
    let Some(lane) = LANES.iter().find(|lane| lane.name == name) else {
        let names: Vec<_> = LANES.iter().map(|lane| lane.name).collect();
        bail!("{CHOICE}={name}: the lanes are {}", names.join(", "));
    };
    Ok(std::slice::from_ref(lane))
}
