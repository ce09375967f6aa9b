//! End-to-end tests on real Kafka and a real Kubernetes control plane (see `tests/testbed`).
//!
//! Run by `tests/run`, or one at a time by `cargo test --test e2e -- NAME` once the testbed is built. A test is a
//! function of the [`Testbed`] in the file of its scenario, listed here; they run one after the other. Each takes
//! topics, groups and namespaces of its own (`testbed::unique`, `ControlPlane::namespace`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may end by a panic, and prints for whoever runs it"
)]

mod annotations;
mod api;
mod brokers;
mod cap;
mod chart;
mod conformance;
mod cost;
mod daemon;
mod faults;
#[cfg(feature = "gssapi")]
mod kerberos;
mod lag;
mod leader;
mod live;
mod load;
mod login;
mod logins;
mod network;
mod oracle;
mod outage;
mod renewal;
mod rows;
mod scale;
mod smoke;
mod sources;
mod state;
#[path = "../testbed/mod.rs"]
mod testbed;
mod told;
mod zero;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};

use testbed::Testbed;

/// A test: an error or a panic is its failure.
pub(crate) type Test = fn(&Testbed) -> Result<()>;

/// The tests of every run.
const TESTS: &[(&str, Test)] = &[
    ("smoke::three_brokers_answer", smoke::three_brokers_answer),
    (
        "smoke::every_listener_answers",
        smoke::every_listener_answers,
    ),
    (
        "smoke::broker_is_killed_and_comes_back",
        smoke::broker_is_killed_and_comes_back,
    ),
    (
        "smoke::consumers_follow_the_number_asked_for",
        smoke::consumers_follow_the_number_asked_for,
    ),
    (
        "smoke::control_plane_runs_a_deployment",
        smoke::control_plane_runs_a_deployment,
    ),
    (
        "smoke::daemon_account_may_do_its_work_and_no_more",
        smoke::daemon_account_may_do_its_work_and_no_more,
    ),
    (
        "lag::equals_what_kafkas_own_tool_says",
        lag::equals_what_kafkas_own_tool_says,
    ),
    (
        "lag::finds_all_groups_and_says_what_is_unknown",
        lag::finds_all_groups_and_says_what_is_unknown,
    ),
    (
        "outage::the_aggregated_api_answers_kubectl",
        outage::the_aggregated_api_answers_kubectl,
    ),
    (
        "outage::a_missing_topic_is_named_and_not_created",
        outage::a_missing_topic_is_named_and_not_created,
    ),
    (
        "outage::starts_before_kafka_does",
        outage::starts_before_kafka_does,
    ),
    (
        "outage::replicas_hold_while_kafka_is_gone",
        outage::replicas_hold_while_kafka_is_gone,
    ),
    (
        "outage::sigterm_ends_it_in_time",
        outage::sigterm_ends_it_in_time,
    ),
    (
        "outage::a_taken_port_is_named",
        outage::a_taken_port_is_named,
    ),
    (
        "login::a_refused_login_is_told_once_and_everywhere",
        login::a_refused_login_is_told_once_and_everywhere,
    ),
    (
        "login::librdkafka_tells_a_refused_login_too",
        login::librdkafka_tells_a_refused_login_too,
    ),
    (
        "scale::replicas_reach_the_partition_count_and_no_more",
        scale::replicas_reach_the_partition_count_and_no_more,
    ),
    (
        "scale::without_the_clamp_replicas_pass_the_partition_count",
        scale::without_the_clamp_replicas_pass_the_partition_count,
    ),
    (
        "live::every_reading_of_a_live_group_is_possible",
        live::every_reading_of_a_live_group_is_possible,
    ),
    (
        "cost::a_thousand_groups_cost_no_more_than_one",
        cost::a_thousand_groups_cost_no_more_than_one,
    ),
    (
        "load::many_clients_get_right_answers_and_memory_stays",
        load::many_clients_get_right_answers_and_memory_stays,
    ),
    (
        "load::memory_stays_whatever_is_asked",
        load::memory_stays_whatever_is_asked,
    ),
];

/// The long ones, for `tests/run --full` (or `--ignored`, as with any test marked so).
const FULL: &[(&str, Test)] = &[(
    "brokers::each_hangs_dies_and_comes_back",
    brokers::each_hangs_dies_and_comes_back,
)];

/// Those of the suites, which list their own.
const SUITES: &[&[(&str, Test)]] = &[
    annotations::CASES,
    api::CASES,
    conformance::CASES,
    logins::CASES,
    #[cfg(feature = "gssapi")]
    kerberos::CASES,
    network::CASES,
    oracle::CASES,
    renewal::CASES,
    faults::CASES,
    rows::CASES,
    state::CASES,
    cap::CASES,
    chart::CASES,
    leader::CASES,
    told::CASES,
    zero::CASES,
];

/// Likewise, the long ones.
const FULL_SUITES: &[&[(&str, Test)]] = &[FULL, api::LONG, conformance::LONG, faults::LONG];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, rest @ ..] = arguments.as_slice()
        && role == testbed::consumers::CONSUMER_ROLE
    {
        return finish(testbed::consumers::consume(rest));
    }
    let mut arguments = Arguments::from_args();
    // The scenarios share one cluster, two cores and the one external metrics API.
    arguments.test_threads = Some(1);
    let testbed = match start(&arguments) {
        Ok(testbed) => testbed,
        Err(error) => return finish(Err(error)),
    };

    let full = std::env::var("LAGWISE_TIER").is_ok_and(|tier| tier == "full");
    let trials = TESTS
        .iter()
        .chain(SUITES.iter().copied().flatten())
        .map(|&(name, test)| trial(name, test, &testbed));
    let long = FULL_SUITES
        .iter()
        .copied()
        .flatten()
        .map(|&(name, test)| trial(name, test, &testbed).with_ignored_flag(!full));
    let conclusion = libtest_mimic::run(&arguments, trials.chain(long).collect());

    let stopped = match Arc::try_unwrap(testbed) {
        Ok(testbed) => testbed.stop(),
        // The signal's thread holds the other handle; it is weak, unless it is ending the run this moment.
        Err(testbed) => {
            testbed.abort();
            Ok(())
        }
    };
    if conclusion.has_failed() {
        conclusion.exit_code()
    } else {
        finish(stopped)
    }
}

/// The testbed, with nothing started yet; an error at once where its programs are missing and tests are to run.
fn start(arguments: &Arguments) -> Result<Arc<Testbed>> {
    let testbed = Arc::new(Testbed::new()?);
    if !arguments.list {
        testbed.artifacts()?;
    }
    let weak = Arc::downgrade(&testbed);
    testbed::on_stop_signal(move || {
        if let Some(testbed) = weak.upgrade() {
            testbed.abort();
        }
        std::process::exit(130);
    })?;
    Ok(testbed)
}

fn trial(name: &str, test: Test, testbed: &Arc<Testbed>) -> Trial {
    // Weak, because the runner keeps a test's closure for longer than the test, and the testbed must end in order.
    let testbed = Arc::downgrade(testbed);
    Trial::test(name, move || {
        let testbed = testbed.upgrade().ok_or("the testbed is gone")?;
        testbed.mend().map_err(|error| format!("{error:#}"))?;
        let started = Instant::now();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&testbed)));
        let message = match outcome {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => format!("{error:#}{}", where_in_the_scenario(&error)),
            Err(panic) => panic_message(panic.as_ref()),
        };
        let tails = testbed.log_tails(15);
        Err(Failed::from(format!(
            "{message}\n(after {:.1?})\n{tails}",
            started.elapsed()
        )))
    })
}

/// The scenario's own lines on the way to the error, where backtraces are asked for (`RUST_LIB_BACKTRACE=1`).
fn where_in_the_scenario(error: &anyhow::Error) -> String {
    let backtrace = error.backtrace().to_string();
    let lines = backtrace.lines().map(str::trim);
    let own = lines.filter(|line| {
        line.contains("tests/e2e/") && !line.contains("/../") && !line.contains("main.rs")
    });
    own.map(|line| format!("\n  {line}")).collect()
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    format!(
        "panicked: {}",
        text.unwrap_or("with a value that is no text")
    )
}

fn finish(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("e2e: {error:#}");
            ExitCode::FAILURE
        }
    }
}
