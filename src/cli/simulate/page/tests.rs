//! The page.

use super::*;
use crate::cli::simulate::run_courses;
use crate::simulate::benchmark::{compared_policies, sweep};
use crate::simulate::builtin::builtin_scenarios;
use crate::simulate::outcome::RunOptions;
use crate::simulate::scenario::Scenario;

fn page(scenarios: &[Scenario]) -> String {
    let policies = &compared_policies()[..3];
    let options = RunOptions::default();
    let result = sweep(scenarios, policies, 0..1, &options, 1, &|_| {});
    let report = SimulationReport::new(scenarios, policies, &result, 0, 1);
    let courses = run_courses(scenarios, policies, 0, &options);
    render_page(&report, &courses, scenarios.len() * policies.len())
}

fn short(scenario: &Scenario) -> Scenario {
    Scenario {
        duration: 600,
        ..scenario.clone()
    }
}

#[test]
fn every_policy_is_in_the_plot_the_table_and_the_courses() {
    let scenario = Scenario {
        duration: 2600,
        ..builtin_scenarios()[2].clone()
    };
    let page = page(&[scenario]);
    for policy in &compared_policies()[..3] {
        let name = policy.name();
        assert!(page.contains(&format!(">{name}</text>")), "{name}");
        assert!(page.contains(&format!("<th>{name}</th>")), "{name}");
        assert!(page.contains(&format!("<summary>{name}<small>")), "{name}");
    }
    assert_eq!(page.matches("<details").count(), 3);
    assert_eq!(page.matches("<figure class=\"chart\">").count(), 9);
    assert!(
        page.contains(" replicas, rule "),
        "the decisions are marked"
    );
    assert!(page.contains("scenario flash, seed 0"));
}

#[test]
fn the_chart_page_loads_nothing_and_has_no_script() {
    let page = page(&[short(&builtin_scenarios()[1])]);
    for word in [
        "<script", "<link", "<img", "src=", "href=", "url(", "@import", "http://", "https://",
    ] {
        assert!(!page.contains(word), "{word}");
    }
}

#[test]
fn many_scenarios_show_some_of_their_runs() {
    let scenarios: Vec<Scenario> = builtin_scenarios().iter().map(short).collect();
    let page = page(&scenarios);
    assert_eq!(page.matches("<details").count(), 32);
    assert!(page.contains("32 of 48 runs are shown"), "{page}");
    assert!(page.contains("Cost in each scenario"));
}

#[test]
fn names_are_escaped_in_markup() {
    let scenario = Scenario {
        name: "<b>".into(),
        about: "</details><i>".into(),
        ..short(&builtin_scenarios()[1])
    };
    let page = page(&[scenario]);
    assert!(!page.contains("<i>") && page.contains("&lt;b&gt;"));
    assert!(page.contains("&lt;/details&gt;&lt;i&gt;"));
}
