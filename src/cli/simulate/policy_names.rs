//! The values of `--policy`: policies and sets of them by name.

use crate::cli::wrong_usage;
use crate::model::findings::suggestion;
use crate::model::units::spelling::did_you_mean;
use crate::simulate::benchmark::compared_policies;
use crate::simulate::lag_policies::{
    LAG_FORM, LAG_GRID, MAX_WINDOW_SECONDS, lag_grid, parse_lag_policy,
};
use crate::simulate::scaler::SimulatedPolicy;

/// The policies of these names in their order, each once. Without names, the compared ones.
pub(super) fn select_policies(names: &[String]) -> anyhow::Result<Vec<SimulatedPolicy>> {
    if names.is_empty() {
        return Ok(compared_policies());
    }
    let mut selected: Vec<SimulatedPolicy> = Vec::new();
    for name in names {
        for policy in find_policies(name)? {
            if !selected.iter().any(|other| other.is_same_as(&policy)) {
                selected.push(policy);
            }
        }
    }
    Ok(selected)
}

/// The policies of a name, which is that of a policy or of a set.
fn find_policies(name: &str) -> anyhow::Result<Vec<SimulatedPolicy>> {
    if name == LAG_GRID {
        return Ok(lag_grid());
    }
    let compared = compared_policies();
    let named = compared.iter().find(|policy| policy.name() == name);
    if let Some(policy) = named.copied().or_else(|| parse_lag_policy(name)) {
        return Ok(vec![policy]);
    }
    let all = compared.into_iter().chain(lag_grid());
    let mut known: Vec<String> = all.map(|policy| policy.name()).collect();
    known.push(LAG_GRID.to_owned());
    let mut meant = suggestion("", did_you_mean(name, known.iter().map(String::as_str)));
    if name.starts_with("lag-") {
        meant += &format!(
            "; HPAs on lag are {LAG_FORM} with a target of 1 to {} and at most {MAX_WINDOW_SECONDS} seconds",
            u32::MAX
        );
    }
    Err(wrong_usage(format!(
        "--policy {name}: no such policy{meant}; lagwise simulate --list shows all"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(names: &[&str]) -> anyhow::Result<Vec<String>> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let policies = select_policies(&names)?;
        Ok(policies.iter().map(SimulatedPolicy::name).collect())
    }

    #[test]
    fn names_print_back_as_given() {
        for names in [
            &["rate", "static", "flink-given-tuned"][..],
            &["lag-500-900s", "rate", "lag-500"],
            &["lag-200-300s"],
            &["lag-200-3600s", "lag-200", "lag-200-0s"],
        ] {
            assert_eq!(select(names).unwrap(), names);
        }
        assert_eq!(select(&[]).unwrap().len(), compared_policies().len());
    }

    #[test]
    fn policies_count_once() {
        for (names, expected) in [
            (&["rate", "rate"][..], &["rate"][..]),
            (&["lag-200", "lag-200-300s"], &["lag-200"]),
            (&["lag-200-300s", "lag-200"], &["lag-200-300s"]),
        ] {
            assert_eq!(select(names).unwrap(), expected, "{names:?}");
        }
    }

    #[test]
    fn the_grid_is_a_set_that_adds_no_policy_twice() {
        let grid = select(&["lag-grid"]).unwrap();
        assert_eq!(grid.len(), 35);
        assert_eq!(select(&["lag-grid", "lag-grid"]).unwrap(), grid);
        assert_eq!(
            select(&["lag-grid", "lag-100-60s", "lag-1000"]).unwrap(),
            grid
        );
        let names = select(&["rate", "lag-200-300s", "lag-grid", "lag-200-3600s"]).unwrap();
        assert_eq!(names.len(), 37, "{names:?}");
        assert_eq!(names[..2], ["rate", "lag-200-300s"]);
        assert_eq!(names[36], "lag-200-3600s");
        assert!(!names.contains(&"lag-200".to_owned()), "{names:?}");
    }

    #[test]
    fn other_names_are_refused_with_a_suggestion() {
        let form = "; HPAs on lag are lag-TARGET or lag-TARGET-SECONDSs with a target of 1 to 4294967295 and at most \
                    3600 seconds";
        for (name, meant) in [
            ("statik", " (did you mean static?)".to_owned()),
            ("hpa", String::new()),
            ("lag_grid", " (did you mean lag-grid?)".to_owned()),
            ("lag-500-60", format!(" (did you mean lag-500-60s?){form}")),
            ("lag-grit", format!(" (did you mean lag-grid?){form}")),
            ("lag-nonsense-of-a-name", form.to_owned()),
        ] {
            let expected = format!(
                "--policy {name}: no such policy{meant}; lagwise simulate --list shows all"
            );
            assert_eq!(select(&[name]).unwrap_err().to_string(), expected);
        }
        for name in [
            "lag-0-60s",
            "lag-500-3601s",
            "lag-4294967296-60s",
            "lag-x-60s",
            "lag-0",
            "lag-500-xs",
            "lag-",
        ] {
            let error = select(&["rate", name]).unwrap_err().to_string();
            assert!(
                error.contains(&format!("{name}: no such policy")),
                "{error}"
            );
            assert!(error.contains(form), "{error}");
        }
    }
}
