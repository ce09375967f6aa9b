//! The built-in scenarios and their variants.

use super::scenario::{RatePart, RebalanceProtocol, Scenario, StartReplicas};

fn wave(low: f64, high: f64, period: f64) -> Vec<RatePart> {
    vec![RatePart::Wave { low, high, period }]
}

fn pulse(rate: f64, from: f64, seconds: f64, ramp: f64) -> RatePart {
    RatePart::Pulse {
        rate,
        from,
        until: from + seconds,
        ramp,
    }
}

/// A day in three hours.
const DAY: f64 = 10_800.0;

/// The 16 built-in scenarios, which start with one replica.
#[must_use]
pub fn builtin_scenarios() -> Vec<Scenario> {
    let constant = |rate| vec![RatePart::Constant(rate)];
    let with = |base: f64, parts: &[RatePart]| {
        let mut all = constant(base);
        all.extend_from_slice(parts);
        all
    };
    vec![
        Scenario::new("diurnal", "one wave of 200..1600", wave(200.0, 1600.0, DAY)),
        Scenario::new(
            "step",
            "300, then 1500 for an hour, then 300",
            with(300.0, &[pulse(1200.0, 3600.0, 3600.0, 1.0)]),
        ),
        Scenario::new(
            "flash",
            "three times 200 to 1500 within 10 s, for 420 s",
            with(
                200.0,
                &[2000.0, 5000.0, 8000.0].map(|from| pulse(1300.0, from, 420.0, 10.0)),
            ),
        ),
        Scenario::new(
            "sawtooth",
            "300 to 1200 every 20 min",
            vec![RatePart::Sawtooth {
                low: 300.0,
                high: 1200.0,
                period: 1200.0,
            }],
        ),
        Scenario {
            outage: Some((3600, 5400)),
            ..Scenario::new(
                "outage",
                "nothing is processed for 30 min at 600",
                constant(600.0),
            )
        },
        Scenario {
            hot: Some(0.13),
            ..Scenario::new(
                "hot-partition",
                "13 % of 500..900 on one partition",
                wave(500.0, 900.0, DAY),
            )
        },
        Scenario {
            poison: Some(3600),
            ..Scenario::new(
                "poison",
                "one partition stops at a message at 480",
                constant(480.0),
            )
        },
        Scenario {
            downstream: Some((3600, 7200, 450.0)),
            ..Scenario::new(
                "downstream",
                "something downstream limits the group to 450 at 600 for an hour",
                constant(600.0),
            )
        },
        Scenario::new(
            "dumps",
            "three times 120,000 messages within 10 s at 100",
            with(
                100.0,
                &[1800.0, 5000.0, 8200.0].map(|from| pulse(12_000.0, from, 10.0, 0.0)),
            ),
        ),
        Scenario {
            noise: Some((0.35, 20)),
            ..Scenario::new("noise", "800 ± 35 % in blocks of 20 s", constant(800.0))
        },
        Scenario {
            partitions: 23,
            ..Scenario::new(
                "prime",
                "23 partitions, two waves of 300..1400",
                wave(300.0, 1400.0, DAY / 2.0),
            )
        },
        Scenario {
            partitions: 128,
            ..Scenario::new(
                "wide",
                "128 partitions, one wave of 1000..8500",
                wave(1000.0, 8500.0, DAY),
            )
        },
        Scenario {
            commit_interval: 30,
            ..Scenario::new(
                "slow-commits",
                "commits every 30 s, one wave of 300..1400",
                wave(300.0, 1400.0, DAY),
            )
        },
        Scenario {
            missing: 0.1,
            gaps: vec![(2400, 2580), (5400, 5700), (8000, 8120)],
            ..Scenario::new(
                "metadata-gaps",
                "a tenth of the polls and some minutes are missing, one wave of 300..1400",
                wave(300.0, 1400.0, DAY),
            )
        },
        Scenario {
            fewer_partitions: Some((5400, 12)),
            ..Scenario::new(
                "growth",
                "12 partitions, 24 after half the time; 500, then 1000",
                with(500.0, &[pulse(500.0, 5400.0, 6000.0, 600.0)]),
            )
        },
        Scenario {
            deploy: Some(5400),
            ..Scenario::new("deploy", "a rolling deploy at 800", constant(800.0))
        },
    ]
}

/// Variants of some built-in scenarios, and batches, that test robustness.
#[must_use]
pub fn variant_scenarios() -> Vec<Scenario> {
    let base = builtin_scenarios();
    let named = |name: &str| base.iter().find(|scenario| scenario.name == name).cloned();
    let mut variants = Vec::new();
    type Change = (&'static str, fn(&mut Scenario));
    let changes: [Change; 12] = [
        ("start-half", |s| s.start_replicas = StartReplicas::Half),
        ("start-all", |s| s.start_replicas = StartReplicas::All),
        ("uneven-pods", |s| s.capacity_spread = 0.3),
        ("capacity-halves", |s| s.capacity_change = Some((5000, 0.5))),
        ("slow-start", |s| s.start_up = (280, 320)),
        ("skew", |s| s.skew = 0.3),
        ("cooperative", |s| {
            s.protocol = RebalanceProtocol::Cooperative
        }),
        ("no-commit-on-revoke", |s| s.commits_on_revoke = false),
        ("slo-15", |s| s.slo = 15),
        ("slo-300", |s| s.slo = 300),
        ("poll-15", |s| s.poll = 15),
        ("poll-1", |s| s.poll = 1),
    ];
    for (suffix, change) in changes {
        for name in ["diurnal", "step", "flash", "sawtooth"] {
            let Some(mut scenario) = named(name) else {
                continue;
            };
            change(&mut scenario);
            if suffix == "capacity-halves" {
                // The arrivals have to stay within the capacity.
                for part in &mut scenario.rate {
                    part.scale(0.5);
                }
            }
            scenario.name = format!("{name}/{suffix}").into();
            variants.push(scenario);
        }
    }
    variants.extend(batch_scenarios());
    variants
}

/// A producer that writes 400 messages per second on average, but in batches.
fn batch_scenarios() -> impl Iterator<Item = Scenario> {
    let scenarios = [
        ("batches/10s", "a batch of 4000 messages every 10 s", 10.0),
        (
            "batches/1m",
            "a batch of 24,000 messages every minute",
            60.0,
        ),
        (
            "batches/3m",
            "a batch of 72,000 messages every 3 minutes",
            180.0,
        ),
    ];
    scenarios.into_iter().map(|(name, description, period)| {
        let seconds = 2.0;
        let begins = std::iter::successors(Some(0.0), |begin| Some(begin + period));
        let batches = begins
            .take_while(|begin| *begin < DAY)
            .map(|begin| pulse(400.0 * period / seconds, begin, seconds, 0.0));
        Scenario::new(name, description, batches.collect())
    })
}
