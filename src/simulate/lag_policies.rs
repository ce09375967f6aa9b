//! HPAs on lag by their names, and a grid of them.

use super::benchmark::compared_policies;
use super::scaler::SimulatedPolicy;

/// Name of the set of all HPAs of the grid.
pub const LAG_GRID: &str = "lag-grid";

/// Form of the names of HPAs on lag.
pub const LAG_FORM: &str = "lag-TARGET or lag-TARGET-SECONDSs";

/// Maximum stabilization window in seconds, as in the API of Kubernetes.
pub const MAX_WINDOW_SECONDS: u32 = 3600;

/// Lag per replica that an HPA of the grid aims at.
const TARGETS: [u32; 7] = [100, 200, 500, 1000, 2000, 5000, 10_000];

/// Stabilization windows of the grid in seconds.
const WINDOWS: [u32; 5] = [0, 60, 300, 900, 1800];

/// An HPA on lag for each target and window of the grid. Those among the compared policies have the names from there.
#[must_use]
pub fn lag_grid() -> Vec<SimulatedPolicy> {
    let compared = compared_policies();
    let pairs = TARGETS.into_iter().flat_map(|threshold| {
        WINDOWS.map(|window| SimulatedPolicy::Lag {
            threshold,
            window_seconds: Some(window),
        })
    });
    let named = pairs.map(|policy| {
        let same = compared.iter().find(|other| other.is_same_as(&policy));
        same.copied().unwrap_or(policy)
    });
    named.collect()
}

/// The HPA on lag with a name of the form [`LAG_FORM`]. The target is at least 1, the window at most
/// [`MAX_WINDOW_SECONDS`].
#[must_use]
pub fn parse_lag_policy(name: &str) -> Option<SimulatedPolicy> {
    let rest = name.strip_prefix("lag-")?;
    let (threshold, window) = match rest.split_once('-') {
        Some((threshold, window)) => (threshold, Some(window.strip_suffix('s')?)),
        None => (rest, None),
    };
    let policy = SimulatedPolicy::Lag {
        threshold: threshold.parse().ok().filter(|target| *target > 0)?,
        window_seconds: match window {
            Some(seconds) => Some(
                seconds
                    .parse()
                    .ok()
                    .filter(|it| *it <= MAX_WINDOW_SECONDS)?,
            ),
            None => None,
        },
    };
    // Numbers such as 0500 and +500 would be printed in another form.
    (policy.name() == name).then_some(policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_a_target_and_a_window() {
        for (name, threshold, window_seconds) in [
            ("lag-1", 1, None),
            ("lag-200", 200, None),
            ("lag-500", 500, None),
            ("lag-500-900s", 500, Some(900)),
            ("lag-1-0s", 1, Some(0)),
            ("lag-200-300s", 200, Some(300)),
            ("lag-4294967295-3600s", u32::MAX, Some(3600)),
        ] {
            let policy = parse_lag_policy(name).unwrap();
            let expected = SimulatedPolicy::Lag {
                threshold,
                window_seconds,
            };
            assert_eq!(policy, expected, "{name}");
            assert_eq!(policy.name(), name);
        }
    }

    #[test]
    fn other_forms_are_no_names() {
        for name in [
            "",
            "lag",
            "lag-",
            "lag-0",
            "lag-0-60s",
            "lag-500-60",
            "lag-500-3601s",
            "lag-500--60s",
            "lag-500-s",
            "lag-500-",
            "lag-x-60s",
            "lag-500-xs",
            "lag-500-60s-60s",
            "lag-500-1m",
            "lag-0500-60s",
            "lag-500-060s",
            "lag-+500-60s",
            "lag-500-+60s",
            "lag--500-60s",
            "lag-1.5-60s",
            "lag-4294967296-60s",
            "lag-500-60s ",
            "LAG-500-60s",
            "keda-500-60s",
            LAG_GRID,
        ] {
            assert_eq!(parse_lag_policy(name), None, "{name:?}");
        }
    }

    #[test]
    fn the_grid_has_each_hpa_once() {
        let grid = lag_grid();
        assert_eq!(grid.len(), 35);
        for (place, policy) in grid.iter().enumerate() {
            let others = grid.iter().skip(place + 1);
            let same: Vec<_> = others.filter(|other| policy.is_same_as(other)).collect();
            assert!(same.is_empty(), "{}: {same:?}", policy.name());
            let parsed = parse_lag_policy(&policy.name());
            assert_eq!(parsed.as_ref(), Some(policy));
        }
        let names: Vec<String> = grid.iter().map(SimulatedPolicy::name).collect();
        let has = |name: &str| names.iter().any(|other| other == name);
        for name in ["lag-100-0s", "lag-200", "lag-500-300s", "lag-10000-1800s"] {
            assert!(has(name), "{name} in {names:?}");
        }
        // The default window has been among the compared policies under another name.
        assert!(!has("lag-200-300s") && !has("lag-200-3600s"), "{names:?}");
    }
}
