//! End-to-end tests on real Kafka and a real Kubernetes control plane (see `tests/testbed`).
//!
//! Run by `tests/run`, or one at a time by `cargo test --test e2e -- NAME` once the testbed is built. A test is a
//! function of the [`Testbed`] in the file of its scenario, listed in `lanes`, which says how many of them run at once.
//! Each uses separate topics, groups and namespaces (`testbed::unique`, `ControlPlane::namespace`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may end by a panic, and prints for whoever runs it"
)]

mod annotations;
mod api;
mod background;
mod brokers;
mod bystander;
mod cap;
mod chart;
mod check;
mod conformance;
mod convert;
mod cost;
mod daemon;
mod events;
mod external_scaler;
mod faults;
mod guide;
#[cfg(feature = "gssapi")]
mod kerberos;
mod lag;
mod lanes;
mod latencies;
mod leader;
mod live;
mod load;
mod login;
mod logins;
mod network;
mod oracle;
mod otlp;
mod outage;
mod policy;
mod probes;
mod protocols;
mod renewal;
mod rows;
mod scale;
mod selectors;
mod shadow;
mod simulate;
mod simulated_group;
mod smoke;
mod sources;
mod state;
mod tenants;
#[path = "../testbed/mod.rs"]
mod testbed;
mod topics;
mod unseen;
mod zero;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};

use lanes::{LANES, Lane, Tests, chosen};
use testbed::{Testbed, is_full_tier};

/// A test: an error or a panic is its failure.
pub(crate) type Test = fn(&Testbed) -> Result<()>;

/// Argument that prints the names of the lanes.
const LANES_ROLE: &str = "lanes-of-the-scenarios";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, rest @ ..] = arguments.as_slice()
        && role == testbed::consumers::CONSUMER_ROLE
    {
        return finish(testbed::consumers::consume(rest));
    }
    if arguments == [LANES_ROLE] {
        LANES.iter().for_each(|lane| println!("{}", lane.name));
        return ExitCode::SUCCESS;
    }
    let mut arguments = Arguments::from_args();
    let started = chosen().and_then(|lanes| Ok((lanes, start(&arguments)?)));
    let (lanes, testbed) = match started {
        Ok(started) => started,
        Err(error) => return finish(Err(error)),
    };
    arguments.test_threads = lanes.iter().map(|lane| lane.at_once).min();

    let full = is_full_tier();
    let trials = |tests: fn(&Lane) -> &[Tests]| {
        let tests = lanes.iter().flat_map(tests).copied().flatten();
        tests.map(|&(name, test)| trial(name, test, &testbed))
    };
    let long = trials(|lane| lane.long).map(|trial| trial.with_ignored_flag(!full));
    let trials = trials(|lane| lane.cases).chain(long).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        print_slowest();
    }

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

/// The testbed, with nothing started yet. An error if its programs are missing and tests have to run.
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

/// How long each test took, in the order in which they ended.
static TIMES: Mutex<Vec<(&str, Duration)>> = Mutex::new(Vec::new());

/// Notes how long a test took, however it ends.
struct Timed(&'static str, Instant);

impl Drop for Timed {
    fn drop(&mut self) {
        let mut times = TIMES.lock().unwrap_or_else(PoisonError::into_inner);
        times.push((self.0, self.1.elapsed()));
    }
}

/// Lists the slowest tests.
fn print_slowest() {
    let mut times = TIMES.lock().unwrap_or_else(PoisonError::into_inner);
    times.sort_by_key(|(_, took)| std::cmp::Reverse(*took));
    let all: Duration = times.iter().map(|(_, took)| *took).sum();
    println!("\nslowest of {} tests, {all:.0?} together:", times.len());
    for (name, took) in times.iter().take(12) {
        println!("{:>6.1} s  {name}", took.as_secs_f64());
    }
}

fn trial(name: &'static str, test: Test, testbed: &Arc<Testbed>) -> Trial {
    // Weak, because the runner keeps a test's closure for longer than the test, and the testbed must end in order.
    let testbed = Arc::downgrade(testbed);
    Trial::test(name, move || {
        let testbed = testbed.upgrade().ok_or("the testbed is gone")?;
        testbed.restore().map_err(|error| format!("{error:#}"))?;
        let started = Instant::now();
        let _timed = Timed(name, started);
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

/// The scenario's own lines of the error's backtrace, if backtraces are enabled (`RUST_LIB_BACKTRACE=1`).
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
