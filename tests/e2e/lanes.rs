//! Which scenarios there are, in lanes: those of one run one after the other on a testbed of their own, and
//! `tests/run` runs the lanes beside one another, since most of a scenario is waiting. What a lane's tests ask for is
//! started in it, so those that need the same stand together.

use anyhow::{Result, bail};

use crate::Test;
use crate::{
    annotations, api, brokers, cap, chart, conformance, convert, cost, events, faults, lag, leader,
    live, load, login, logins, network, oracle, outage, protocols, renewal, rows, scale, selectors,
    smoke, state, tenants, unseen, zero,
};

/// The variable that names the lane to run; without it all are run, one after the other.
const CHOICE: &str = "LAGWISE_LANE";

/// The tests of a suite.
pub(crate) type Tests = &'static [(&'static str, Test)];

/// Scenarios that run one after the other.
pub(crate) struct Lane {
    pub(crate) name: &'static str,
    /// Those of every run.
    pub(crate) cases: &'static [Tests],
    /// The long ones, for `tests/run --full` (or `--ignored`, as with any test marked so).
    pub(crate) long: &'static [Tests],
}

pub(crate) const LANES: &[Lane] = &[
    // What Kafka says, and how it is asked.
    Lane {
        name: "kafka",
        cases: &[
            lag::CASES,
            live::CASES,
            cost::CASES,
            conformance::CASES,
            rows::CASES,
            selectors::CASES,
        ],
        long: &[brokers::LONG, conformance::LONG],
    },
    // The testbed itself, logins, bad networks and load; and, since this lane has time left, outages and what may be
    // woken.
    Lane {
        name: "access",
        cases: &[
            smoke::CASES,
            login::CASES,
            logins::CASES,
            protocols::CASES,
            #[cfg(feature = "gssapi")]
            crate::kerberos::CASES,
            network::CASES,
            renewal::CASES,
            faults::CASES,
            state::CASES,
            outage::CASES,
            zero::RECORDS,
        ],
        long: &[smoke::LONG, faults::LONG, load::LONG],
    },
    // The aggregated API, and what is woken by what it says.
    Lane {
        name: "api",
        cases: &[api::CASES, chart::CASES, zero::CASES],
        long: &[api::LONG, chart::LONG, zero::LONG],
    },
    // How many replicas there are and why, what the daemon writes for it, and which daemon does.
    Lane {
        name: "replicas",
        cases: &[
            scale::CASES,
            annotations::CASES,
            convert::CASES,
            oracle::CASES,
            cap::CASES,
            leader::CASES,
            events::CASES,
            tenants::CASES,
            unseen::CASES,
        ],
        long: &[cap::LONG, tenants::LONG],
    },
];

/// The lanes to run.
///
/// # Errors
/// A name that no lane has: its tests would be missed in silence.
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
