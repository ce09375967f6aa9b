//! Passes against an API server that checks resource versions as the real one does.

mod fake_api_server;

use serde_json::{Value, json};

use self::fake_api_server::{SharedApiServer, client, cluster};
use super::*;
use crate::k8s::write_guard::testing::leader;
use crate::k8s::zero_ledger::{LedgerConfigMap, LedgerHandle};
use crate::model::decisions::cap::{CapTarget, FieldOwner};
use crate::model::decisions::scale_to_zero::Demand;
use crate::model::decisions::zero_ledger::ZeroRecord;
use crate::model::decisions::zero_ledger::testing::record;

const HOLD: CapGoal = CapGoal {
    target: CapTarget::Hold(6),
    last_seen: None,
    owner: FieldOwner::Lagwise,
    was_refused: false,
};

/// A workload with this demand that has been idle for longer than its cooldown.
fn zero(demand: Demand) -> Option<ZeroInput> {
    let long_ago = Instant::now() - Duration::from_secs(60);
    Some(ZeroInput {
        candidate: Some(ZeroCandidate {
            demand,
            cooldown: Duration::from_secs(6),
            ceiling: None,
        }),
        idle: Some(Duration::from_secs(60)),
        up_since: Some(long_ago),
        zeroed_at: None,
    })
}

/// Runs a pass of the leader of that term.
async fn pass(
    cluster: &SharedApiServer,
    term: u64,
    cap: Option<CapGoal>,
    zero: Option<ZeroInput>,
) -> PassReport {
    let (mut guard, _publisher) = leader(client(cluster), term, Duration::from_secs(600));
    guard.take_snapshot();
    let map = LedgerConfigMap::new(guard.client.clone(), "lagwise-zero".into());
    let ledger = LedgerHandle::start(map, guard.hpas.clone(), Vec::new());
    let hpa = cluster.lock().unwrap().hpa.clone();
    let hpa = crate::k8s::hpa::facts_of(&serde_json::from_value(hpa).unwrap());
    let pass = Pass {
        scales: Scales::new(guard.client.clone()),
        ledger: Some(ledger),
        is_recorded: !cluster.lock().unwrap().records().is_empty(),
        guard,
        hpa: Arc::new(hpa),
        cap,
        zero,
    };
    pass.run().await
}

fn requests(cluster: &SharedApiServer) -> Vec<String> {
    std::mem::take(&mut cluster.lock().unwrap().requests)
}

fn asks_for_zero() -> Value {
    json!({"lagwise.dev/cap": "enforce", "lagwise.dev/scale-to-zero": "true"})
}

fn annotated() -> Value {
    let mut annotations = asks_for_zero();
    annotations["lagwise.dev/zeroed-since"] = json!("2026-01-01T00:00:00Z");
    annotations
}

/// A workload at zero replicas whose HPA is annotated, with a record for these UIDs of the HPA and of the workload.
fn at_zero(hpa_uid: &str, target_uid: &str) -> SharedApiServer {
    let cluster = cluster(annotated(), 0);
    let record = ZeroRecord {
        name: "billing".into(),
        ..record("orders", target_uid)
    };
    cluster.lock().unwrap().ledger = json!({
        "metadata": {"name": "lagwise-zero", "resourceVersion": "1"},
        "data": {hpa_uid: record.encode()},
    });
    cluster
}

/// A workload that lagwise has scaled to zero.
fn asleep() -> SharedApiServer {
    at_zero("u1", "d1")
}

#[tokio::test]
async fn term_cap_and_zero_annotation_are_one_patch() {
    let cluster = cluster(asks_for_zero(), 3);
    let report = pass(&cluster, 7, Some(HOLD), zero(Demand::None)).await;
    let expected = [
        "GET hpa",
        "GET scale",
        "GET ledger",
        "POST ledger",
        "PATCH hpa",
        "PATCH scale",
    ];
    assert_eq!(requests(&cluster), expected);
    assert_eq!(report.term_write, Ok(()));
    let written = report.cap.unwrap().unwrap().unwrap();
    assert_eq!((written.before.max, written.after.max), (20, 6));
    let zero = report.zero.unwrap();
    assert_eq!((zero.done, zero.error), (Some(ZeroAction::Zero), None));
    let is = cluster.lock().unwrap();
    assert_eq!((is.annotation("epoch"), is.replicas), (json!("7"), 0));
    assert_eq!(is.annotation("user-max-replicas"), "20");
    assert!(is.annotation("zeroed-since").is_string());
    assert_eq!(is.records(), [("u1".to_owned(), "d1".to_owned())]);
}

#[tokio::test]
async fn wakes_a_workload_before_removing_the_annotation() {
    let cluster = asleep();
    let report = pass(&cluster, 0, None, zero(Demand::Waiting(3))).await;
    let expected = [
        "GET hpa",
        "GET scale",
        "GET ledger",
        "PATCH scale",
        "PATCH hpa",
        "PATCH ledger",
    ];
    assert_eq!(requests(&cluster), expected);
    let zero_report = report.zero.unwrap();
    assert_eq!(zero_report.done, Some(ZeroAction::Wake(3)));
    assert!(zero_report.up_since.is_some());
    let is = cluster.lock().unwrap();
    assert_eq!(
        (is.annotation("zeroed-since"), is.replicas),
        (Value::Null, 3)
    );
    assert_eq!(is.records(), []);
}

#[tokio::test]
async fn new_leader_writes_its_term_before_waking_a_workload() {
    let cluster = asleep();
    pass(&cluster, 7, None, zero(Demand::Waiting(3))).await;
    let expected = [
        "GET hpa",
        "GET scale",
        "GET ledger",
        "PATCH hpa",
        "PATCH scale",
        "PATCH hpa",
        "PATCH ledger",
    ];
    assert_eq!(requests(&cluster), expected);
    let is = cluster.lock().unwrap();
    assert_eq!((is.annotation("epoch"), is.replicas), (json!("7"), 3));
    assert!(is.annotation("zeroed-since").is_null());
}

#[tokio::test]
async fn conflicting_write_changes_nothing() {
    for zero_input in [None, zero(Demand::None)] {
        let cluster = cluster(asks_for_zero(), 3);
        cluster.lock().unwrap().hpa_is_contested = true;
        let report = pass(&cluster, 7, Some(HOLD), zero_input).await;
        assert_eq!(report.term_write, Err(ApiError::Changed));
        assert_eq!(report.cap, Some(Err(ApiError::Changed)));
        let zero_error = report.zero.and_then(|zero| zero.error);
        assert_eq!(zero_error, zero_input.map(|_| ApiError::Changed));
        let is = cluster.lock().unwrap();
        assert!(is.annotation("epoch").is_null() && is.annotation("ceiling").is_null());
        assert_eq!(
            (is.replicas, &is.hpa["spec"]["maxReplicas"]),
            (3, &json!(20))
        );
    }
}

#[tokio::test]
async fn does_not_annotate_a_workload_scaled_by_others() {
    let cluster = cluster(asks_for_zero(), 3);
    cluster.lock().unwrap().scale_is_contested = true;
    let report = pass(&cluster, 7, Some(HOLD), zero(Demand::None)).await;
    let zero_report = report.zero.unwrap();
    let changed = Some(ApiError::Changed);
    assert_eq!((zero_report.done, zero_report.error), (None, changed));
    let is = cluster.lock().unwrap();
    assert!(is.annotation("zeroed-since").is_null());
    assert_eq!(is.records(), []);
    // The other writes of the pass are made.
    assert_eq!(
        (is.annotation("epoch"), is.annotation("ceiling")),
        (json!("7"), json!("6"))
    );
}

#[tokio::test]
async fn keeps_the_annotation_of_a_workload_it_could_not_wake() {
    let cluster = asleep();
    cluster.lock().unwrap().scale_is_contested = true;
    let report = pass(&cluster, 0, Some(HOLD), zero(Demand::Waiting(3))).await;
    let zero_report = report.zero.unwrap();
    assert_eq!(zero_report.error, Some(ApiError::Changed));
    assert!(report.cap.unwrap().unwrap().is_some());
    let is = cluster.lock().unwrap();
    assert!(is.annotation("zeroed-since").is_string());
    assert_eq!(is.annotation("ceiling"), "6");
    assert_eq!(is.records(), [("u1".to_owned(), "d1".to_owned())]);
}

#[tokio::test]
async fn wakes_no_workload_without_a_record_of_the_same_hpa_and_workload() {
    for (hpa_uid, target_uid, refusal) in [
        ("u2", "d1", None),
        ("u1", "d2", Some(ZeroRefusal::OtherTarget)),
    ] {
        let cluster = at_zero(hpa_uid, target_uid);
        for demand in [Demand::Waiting(3), Demand::NeverRan] {
            let report = pass(&cluster, 0, None, zero(demand)).await;
            let zero_report = report.zero.unwrap();
            assert_eq!((zero_report.done, zero_report.error), (None, None));
            assert_eq!(zero_report.refusal, refusal);
            assert_eq!(requests(&cluster), ["GET hpa", "GET scale", "GET ledger"]);
        }
        // The same holds if the HPA no longer has scale to zero.
        let opted_out = ZeroInput::default();
        pass(&cluster, 0, None, Some(opted_out)).await;
        assert_eq!(cluster.lock().unwrap().replicas, 0);
    }
}

#[tokio::test]
async fn scales_nothing_to_zero_that_cannot_be_recorded() {
    let cluster = cluster(asks_for_zero(), 3);
    cluster.lock().unwrap().refuses_ledger = true;
    let report = pass(&cluster, 0, None, zero(Demand::None)).await;
    let zero_report = report.zero.unwrap();
    let refused = ApiError::Forbidden("configmaps is forbidden".into());
    assert_eq!((zero_report.done, zero_report.error), (None, Some(refused)));
    let refusal = ZeroRefusal::NoLedger("configmaps is forbidden".into());
    assert_eq!(zero_report.refusal, Some(refusal));
    // There is no room.
    cluster.lock().unwrap().refuses_ledger = false;
    cluster.lock().unwrap().ledger = json!({
        "metadata": {"name": "lagwise-zero", "resourceVersion": "1"},
        "data": {"other": "x".repeat(900 * 1024)},
    });
    let report = pass(&cluster, 0, None, zero(Demand::None)).await;
    let zero_report = report.zero.unwrap();
    assert_eq!(
        (zero_report.done, zero_report.error, zero_report.refusal),
        (None, None, Some(ZeroRefusal::LedgerFull))
    );
    let is = cluster.lock().unwrap();
    assert!(is.annotation("zeroed-since").is_null());
    assert_eq!(is.replicas, 3);
}

#[tokio::test]
async fn recorded_hpa_gets_the_term_whatever_it_asks_for() {
    let cluster = asleep();
    cluster.lock().unwrap().hpa["metadata"]["annotations"] = json!({});
    let report = pass(&cluster, 7, None, None).await;
    assert_eq!(report.term_write, Ok(()));
    assert_eq!(cluster.lock().unwrap().annotation("epoch"), "7");
}

#[tokio::test]
async fn removes_the_record_of_a_workload_started_by_others() {
    let cluster = asleep();
    cluster.lock().unwrap().replicas = 5;
    let report = pass(&cluster, 0, None, zero(Demand::Waiting(3))).await;
    assert_eq!(
        report.zero.unwrap().done,
        Some(ZeroAction::RemoveAnnotation)
    );
    let is = cluster.lock().unwrap();
    assert_eq!((is.records(), is.replicas), (vec![], 5));
    assert!(is.annotation("zeroed-since").is_null());
}

#[tokio::test]
async fn refused_cap_is_retried_without_other_changes() {
    let cluster = cluster(asks_for_zero(), 3);
    cluster.lock().unwrap().refuses_spec = true;
    let refused = ApiError::Forbidden("spec is not yours".into());
    let report = pass(&cluster, 7, Some(HOLD), zero(Demand::None)).await;
    assert_eq!(report.term_write, Err(refused.clone()));
    assert_eq!(report.cap, Some(Err(refused.clone())));
    assert_eq!(report.zero.unwrap().error, Some(refused));
    let again = CapGoal {
        was_refused: true,
        ..HOLD
    };
    let report = pass(&cluster, 7, Some(again), zero(Demand::None)).await;
    assert_eq!((report.term_write, report.cap), (Ok(()), None));
    assert_eq!(report.zero.unwrap().done, Some(ZeroAction::Zero));
}

#[tokio::test]
async fn skips_a_paused_or_recreated_hpa() {
    let paused = json!({"lagwise.dev/cap": "enforce", "lagwise.dev/paused": "true"});
    let cluster = cluster(paused, 3);
    let report = pass(&cluster, 7, Some(HOLD), zero(Demand::None)).await;
    assert_eq!(report.term_write, Err(ApiError::Changed));
    assert_eq!(requests(&cluster), ["GET hpa"]);
}
