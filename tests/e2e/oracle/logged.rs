//! Parses the log of the HPA controller about its syncs (`--vmodule=horizontal=4`).

use std::collections::BTreeMap;
use std::time::Duration;

/// One sync of one HPA.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sync {
    /// When the metrics had been read, since midnight.
    pub(super) at: Duration,
    /// When it was over: after the write, where there was one, which takes its time where there is much to do.
    pub(super) done: Duration,
    /// The number that the metrics propose; `None` where there is none.
    pub(super) stage: Option<u32>,
    /// The replicas that it set; `None` where it left them as they were.
    pub(super) after: Option<u32>,
    /// Whether the metrics were an error.
    pub(super) failed: bool,
}

/// The syncs of every HPA of a namespace that scales a Deployment of its own name, in their order; those that are over.
pub(super) fn syncs_of(log: &str, namespace: &str) -> BTreeMap<String, Vec<Sync>> {
    let mut all: BTreeMap<String, Vec<Sync>> = BTreeMap::new();
    let mut open: BTreeMap<String, Sync> = BTreeMap::new();
    let target = format!("Deployment/{namespace}/");
    let hpa = format!("HPA=\"{namespace}/");
    for line in log.lines() {
        let after = |key: &str| Some(line.split_once(key)?.1);
        let Some(rest) = after(&target).or_else(|| after(&hpa)) else {
            continue;
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let name: String = rest.chars().take_while(|c| is_name(*c)).collect();
        let Some(at) = time_of(line) else { continue };
        let number = |key: &str| {
            let digits = after(key)?.chars().take_while(char::is_ascii_digit);
            digits.collect::<String>().parse().ok()
        };
        if line.contains("\"Proposing desired replicas") {
            let stage = number("desiredReplicas=");
            open.insert(
                name,
                Sync {
                    at,
                    done: at,
                    stage,
                    ..Sync::default()
                },
            );
        } else if line.contains("\"Successfully rescaled\"") {
            let begun = open.remove(&name).unwrap_or(Sync {
                at,
                ..Sync::default()
            });
            let after = number("desiredReplicas=");
            let sync = Sync {
                after,
                done: at,
                ..begun
            };
            all.entry(name).or_default().push(sync);
        } else if line.contains("\"Decided not to scale\"") {
            let begun = open.remove(&name).unwrap_or(Sync {
                at,
                done: at,
                ..Sync::default()
            });
            all.entry(name).or_default().push(begun);
        } else if line.contains("failed to compute desired number of replicas") {
            let failed = Sync {
                at,
                done: at,
                failed: true,
                ..Sync::default()
            };
            all.entry(name).or_default().push(failed);
        }
    }
    all
}

/// The time of a line such as `I1124 15:55:37.123456    12345 horizontal.go:837] ...`.
fn time_of(line: &str) -> Option<Duration> {
    let clock = line.split_whitespace().nth(1)?;
    let (hours, rest) = clock.split_once(':')?;
    let (minutes, seconds) = rest.split_once(':')?;
    let whole = hours.parse::<u64>().ok()? * 3600 + minutes.parse::<u64>().ok()? * 60;
    Some(Duration::from_secs(whole) + Duration::try_from_secs_f64(seconds.parse().ok()?).ok()?)
}
