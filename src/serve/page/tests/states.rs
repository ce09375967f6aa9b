//! HPAs in every state: the page has the numbers of `explain` and `status`, and distinguishes the states.

use super::*;

/// The same with a selector that no other HPA has, so that its settings may differ from theirs.
fn own(name: &str, group: &str) -> HpaFacts {
    let target = MetricTarget::AverageValue(Milli::from_units(10));
    let selector = format!("group={group},topic={group},hpa={name}");
    HpaFacts {
        metrics: fixtures::hpa(name, &selector, target).metrics,
        ..hpa(name, group, group)
    }
}

/// The same observation, as it was made earlier than now.
pub(super) fn earlier(mut observation: Observation, seconds: u64) -> Observation {
    let (now, before) = (Moment::now(), Duration::from_secs(seconds));
    let at = Moment {
        monotonic: now.monotonic.checked_sub(before).unwrap(),
        wall: now.wall - before,
    };
    (observation.started, observation.finished) = (at, at);
    observation
}

/// HPAs in every state that an HPA can be in.
pub(super) fn every_state() -> LagSnapshot {
    let read = |group: &str, rows: &[PartitionReading]| {
        // Not when the first test began, which may be long ago.
        earlier(fixtures::read(Duration::ZERO, group, group, rows), 0)
    };
    let mut missing = read("typo", &[ok(0, 7)]);
    missing.topics = [("typo".into(), Err(Fault::TopicMissing))].into();
    let mut stale = earlier(read("stale", &[ok(0, 7)]), 120);
    stale.groups[0].description = Err(Fault::NoAnswer);
    let stuck = |seconds: u64, moved: i64| {
        let rows = [ok(5, 40), ok(moved, 100 + moved)];
        earlier(read("stuck", &rows), 1_000 - seconds)
    };
    let mut stuck_readings: Vec<_> = (0..=99)
        .map(|n| stuck(n * 10, i64::try_from(n).unwrap()))
        .collect();
    let mut observations = vec![
        read("plain", &[ok(0, 15), ok(0, 9)]),
        read("empty", &[ok(9, 9), ok(9, 9)]),
        read("capped", &[ok(0, 400), ok(0, 1_240)]),
        read("paused", &[ok(0, 15), ok(0, 9)]),
        read(
            "partial",
            &[ok(0, 5), (0, Ok(Some(1)), Err(Fault::LeaderUnknown))],
        ),
        read("never", &[(0, Ok(None), Ok(100)), (0, Ok(None), Ok(100))]),
        stale,
        earlier(
            read("fallback", &[ok(0, 7), ok(0, 0), ok(0, 0), ok(0, 0)]),
            900,
        ),
        earlier(
            fixtures::failed(Duration::ZERO, "fallback", "fallback", Fault::NoAnswer),
            600,
        ),
        fixtures::failed(Duration::ZERO, "denied", "denied", Fault::GroupDenied),
        missing,
    ];
    observations.append(&mut stuck_readings);
    observations.push(read(
        "first",
        &[(0, Ok(None), Ok(100)), (0, Ok(None), Ok(100))],
    ));
    observations.push(read("held", &[ok(0, 15), ok(0, 9)]));
    observations.push(read(
        "even",
        &[ok(0, 35), ok(5, 5), ok(5, 5), ok(5, 5), ok(5, 5), ok(5, 5)],
    ));
    let asleep = annotated(
        hpa("asleep", "empty", "empty"),
        &[("zeroed-since", "2026-11-30T20:00:00Z")],
    );
    let hpas = [
        hpa("plain", "plain", "plain"),
        hpa("empty", "empty", "empty"),
        hpa("capped", "capped", "capped"),
        annotated(hpa("enforced", "capped", "capped"), &[("cap", "enforce")]),
        annotated(hpa("paused", "paused", "paused"), &[("paused", "true")]),
        hpa("partial", "partial", "partial"),
        hpa("never", "never", "never"),
        hpa("stale", "stale", "stale"),
        hpa("stuck", "stuck", "stuck"),
        hpa("denied", "denied", "denied"),
        annotated(
            hpa("fallback", "fallback", "fallback"),
            &[("fallback-replicas", "3"), ("fallback-after", "2m")],
        ),
        hpa("typo", "typo", "typo"),
        annotated(hpa("setting", "plain", "plain"), &[("stuck-afer", "2m")]),
        HpaFacts {
            replicas: Some(0),
            running: RunningReplicas::None,
            ..asleep
        },
        HpaFacts {
            replicas: Some(1),
            running: RunningReplicas::One,
            ..own("first", "first")
        },
        annotated(own("held", "held"), &[("hold", "up")]),
        annotated(own("even", "even"), &[("even", "true")]),
        HpaFacts {
            max_replicas: 1,
            ..own("most", "plain")
        },
        annotated(own("late", "stuck"), &[("slo", "5m")]),
        own("unread", "unread"),
        HpaFacts {
            metrics: [own("two", "plain"), own("two", "typo")]
                .map(|mut hpa| hpa.metrics.remove(0))
                .to_vec(),
            ..own("two", "plain")
        },
    ];
    // The hold keeps the replicas that were wanted before the lag rose.
    let before = snapshot(&hpas, vec![read("held", &[ok(0, 5), ok(0, 0)])]);
    let mut policies = TargetPolicies::default();
    let mut observe = |snapshot: &LagSnapshot| {
        let evaluations = Arc::clone(&snapshot.evaluations);
        policies.observe_sweep(&"main".into(), evaluations, &Moment::now())
    };
    observe(&before);
    let latest = snapshot(&hpas, observations);
    LagSnapshot {
        evaluations: observe(&latest),
        ..latest
    }
}

/// How many HPAs [`every_state`] has.
pub(super) const STATES: usize = 21;

#[tokio::test]
async fn numbers_are_those_of_explain_and_status_in_every_state() {
    let (router, _publisher) = served(every_state());
    let overview = json(&router, "/api/hpas").await;
    let statuses = json(&router, "/status").await;
    let (_, html) = get(&router, "/").await;
    let rows = overview["hpas"].as_array().unwrap();
    assert_eq!(rows.len(), STATES);
    let mut urgencies = BTreeSet::new();
    for (row, status) in rows.iter().zip(statuses["hpas"].as_array().unwrap()) {
        let name = row["hpa"].as_str().unwrap();
        for (key, value) in status.as_object().unwrap() {
            // Ages rise between the two requests. The figures of groups are not in the overview.
            if !key.ends_with("millis") && key != "figures" {
                assert_eq!(&row[key], value, "{name}: {key}");
            }
        }
        urgencies.insert(row["urgency"].as_str().unwrap().to_owned());
        let explained = json(&router, &format!("/explain?namespace=shop&hpa={name}")).await;
        let one = json(&router, &format!("/api/hpas/shop/{name}")).await;
        for key in ["verdict", "ceiling", "cap", "findings", "not_knowable"] {
            assert_eq!(one["explanation"][key], explained[key], "{name}: {key}");
        }
        let (code, page) = get(&router, &format!("/hpas/shop/{name}")).await;
        assert_eq!(code, 200, "{name}: {page}");
        assert_eq!(shown_numbers(&page), numbers(&explained), "{name}");
        // The row of the overview has them too.
        let cell = between(&html, &format!("data-href=\"/hpas/shop/{name}\""), "</tr>");
        let lag = between(cell, "</svg><b>", "</b>");
        assert_eq!(lag, number(&row["lag"]), "{name}: {cell}");
        let wanted = between(cell, " now, <b>", "</b>");
        assert_eq!(wanted, number(&row["desired"]), "{name}: {cell}");
        assert!(
            cell.contains(&format!("{} replicas now", number(&row["replicas"]))),
            "{cell}"
        );
    }
    for urgency in ["asleep", "at_ceiling", "calm", "warning", "unknown"] {
        assert!(urgencies.contains(urgency), "{urgency} of {urgencies:?}");
    }
}

fn number(value: &Value) -> String {
    match value.as_u64() {
        Some(value) => format::count(value),
        None => format::UNKNOWN.to_owned(),
    }
}

/// All numbers of the answer of `explain`, each with its name, in order.
fn numbers(explained: &Value) -> Vec<(String, String)> {
    let list = |of: &Value, key: &str| of[key].as_array().unwrap().clone();
    let mut all = Vec::new();
    for metric in list(explained, "metrics") {
        let text = |key: &str| metric[key].as_str().unwrap_or(format::UNKNOWN).to_owned();
        for (title, shown) in [
            ("lag", number(&metric["lag"])),
            ("lag per replica", text("lag_per_replica")),
            ("worth", number(&metric["uncapped_replicas"])),
            ("replica ceiling", number(&metric["ceiling"])),
            ("desired", number(&metric["desired_replicas"])),
            ("value served", text("value")),
        ] {
            all.push((title.to_owned(), shown));
        }
        for group in list(&metric, "groups") {
            for (title, key) in [
                ("members", "members"),
                ("lag", "lag"),
                ("useful parallelism", "useful_parallelism"),
                ("threads per replica", "threads"),
                ("replica ceiling", "ceiling"),
            ] {
                all.push((title.to_owned(), number(&group[key])));
            }
            for topic in list(&group, "topics") {
                for partition in list(&topic, "partitions") {
                    all.push((number(&partition["partition"]), number(&partition["lag"])));
                }
            }
        }
    }
    all
}

/// The same numbers, as the page of an HPA shows them.
fn shown_numbers(page: &str) -> Vec<(String, String)> {
    let derivation = page.split_once("id=\"derivation\"").unwrap().1;
    let number = regex::Regex::new(concat!(
        r"<dt>(lag|lag per replica|worth|replica ceiling|desired|value served|members|useful parallelism|",
        r"threads per replica)</dt><dd>([^ :<]+)",
        r#"|<td class="number">(\d+)</td><td class="number">([^<]+)</td>"#,
    ))
    .unwrap();
    let found = number.captures_iter(derivation);
    let text = |found: &regex::Captures<'_>, places: [usize; 2]| {
        let group = places.into_iter().find_map(|place| found.get(place));
        group.unwrap().as_str().to_owned()
    };
    found
        .map(|found| (text(&found, [1, 3]), text(&found, [2, 4])))
        .collect()
}

#[tokio::test]
async fn every_state_of_the_fixture_matches_its_name() {
    let (router, _publisher) = served(every_state());
    let one = async |name: &str| {
        let view = json(&router, &format!("/api/hpas/shop/{name}")).await;
        let (_, page) = get(&router, &format!("/hpas/shop/{name}")).await;
        (view, page)
    };
    let reason = |view: &Value| view["hpa"]["because"].as_str().unwrap().to_owned();
    for (name, rule) in [
        ("capped", "clamped"),
        ("fallback", "fallback"),
        ("first", "never_ran"),
        ("held", "held"),
        ("even", "even"),
    ] {
        let (view, _) = one(name).await;
        assert_eq!(view["hpa"]["rule"], rule, "{name}: {view}");
    }
    for (name, expected) in [
        ("denied", "lacks Describe"),
        ("partial", "has no leader"),
        ("stale", "is unknown since "),
        ("typo", "does not exist"),
        ("never", "has no committed offset"),
        ("unread", "is not complete yet"),
    ] {
        let (view, page) = one(name).await;
        assert_eq!(view["hpa"]["rule"], Value::Null, "{name}: {view}");
        // A group that never ran has no lag, but that says nothing about the messages that wait.
        assert_eq!(
            view["hpa"]["lag"].is_null(),
            name != "never",
            "{name}: {view}"
        );
        assert!(reason(&view).contains(expected), "{name}: {view}");
        assert!(page.contains("class=\"state-unknown\""), "{name}: {page}");
    }
    let (first, page) = one("first").await;
    assert_eq!(
        (&first["hpa"]["lag"], &first["hpa"]["desired"]),
        (&0.into(), &1.into())
    );
    assert!(
        page.contains("the group has never run, so one replica starts it"),
        "{page}"
    );
    let (stuck, page) = one("stuck").await;
    assert_eq!(
        (&stuck["hpa"]["stuck_partitions"], &stuck["hpa"]["urgency"]),
        (&1.into(), &"warning".into())
    );
    assert!(
        reason(&stuck).ends_with("makes no progress on 1 partition"),
        "{stuck}"
    );
    assert_eq!(page.matches("<tr class=\"stuck\">").count(), 1, "{page}");
    assert!(page.contains(">stuck</span>"), "not by colour alone");
    let (asleep, _) = one("asleep").await;
    assert_eq!(asleep["hpa"]["urgency"], "asleep", "{asleep}");
    let (paused, _) = one("paused").await;
    assert_eq!(paused["hpa"]["paused"], true, "{paused}");
    let (capped, _) = one("capped").await;
    assert!(
        capped["hpa"]["uncapped"].as_u64() > capped["hpa"]["desired"].as_u64(),
        "{capped}"
    );
}

#[tokio::test]
async fn states_are_distinguished() {
    let (router, _publisher) = served(every_state());
    let overview = json(&router, "/api/hpas").await;
    let lines = overview["hpas"].as_array().unwrap().iter().map(|row| {
        let text = |key: &str| row[key].as_str().unwrap().to_owned();
        format!(
            "{}: {}\n  {}\n  {}\n",
            text("hpa"),
            text("urgency"),
            text("because"),
            text("what_would_change")
        )
    });
    let text: String = lines.collect();
    // The time since when a reading is stale.
    let time = regex::Regex::new(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ").unwrap();
    let text = time.replace_all(&text, "TIME");
    insta::assert_snapshot!("states", text);
}
