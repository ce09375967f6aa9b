use super::testing::record;
use super::*;
use crate::model::hpa::facts::ScaleTarget;

fn ledger(records: &[(&str, ZeroRecord)]) -> ZeroLedger {
    let texts: Vec<_> = records
        .iter()
        .map(|(uid, record)| (*uid, record.encode()))
        .collect();
    ZeroLedger::decode(texts.iter().map(|(uid, text)| (*uid, text.as_str())))
}

#[test]
fn finds_only_the_same_hpa_and_the_same_target() {
    let ledger = ledger(&[("h1", record("billing", "d1")), ("", record("mail", "d9"))]);
    for (hpa_uid, target_uid, expected) in [
        ("h1", Some("d1"), LedgerMatch::Recorded),
        // The Deployment was deleted and created again.
        ("h1", Some("d2"), LedgerMatch::OtherTarget),
        ("h1", Some(""), LedgerMatch::OtherTarget),
        ("h1", None, LedgerMatch::OtherTarget),
        // Another HPA of the same name, or on the same Deployment.
        ("h2", Some("d1"), LedgerMatch::NotRecorded),
        ("billing", Some("d1"), LedgerMatch::NotRecorded),
        // An object without a UID matches no record.
        ("", Some("d9"), LedgerMatch::NotRecorded),
    ] {
        let found = ledger.find(hpa_uid, target_uid);
        assert_eq!(found, expected, "{hpa_uid:?} {target_uid:?}");
    }
}

#[test]
fn entry_that_is_no_record_counts_as_absent() {
    let good = record("billing", "d1").encode();
    let bad = [
        "",
        "true",
        "{}",
        r#"{"target_uid":"d1"}"#,
        &good.replace('3', "-3"),
        &good[1..],
    ];
    for text in bad {
        let ledger = ZeroLedger::decode([("h1", text), ("h2", &*good)]);
        assert_eq!(ledger.find("h1", Some("d1")), LedgerMatch::NotRecorded);
        assert_eq!(ledger.find("h2", Some("d1")), LedgerMatch::Recorded);
        // It is not removed, and counts for the size.
        let bytes = "h1h2".len() + text.len() + good.len();
        let wanted = || LedgerChanges::from([("h2".into(), Some(record("billing", "d1")))]);
        let plan = |max| ledger.plan_update(wanted(), |_, _| false, max);
        let own = "h2".len() + good.len();
        assert_eq!(plan(bytes + own).changes, wanted());
        assert_eq!(
            plan(bytes + own - 1).refused,
            ["h2".into()].into(),
            "{text}"
        );
    }
}

#[test]
fn record_survives_encoding() {
    let odd = ZeroRecord {
        name: "a\"\\\u{7}é".into(),
        replicas: u32::MAX,
        ..record("billing", "d1")
    };
    let ledger = ledger(&[("h1", odd.clone())]);
    assert_eq!(ledger.record("h1"), Some(&odd));
    assert_eq!(
        ledger.record("h1").unwrap().hpa_key().to_string(),
        "shop/billing"
    );
}

#[test]
fn update_adds_removes_and_prunes() {
    let before = ledger(&[
        ("h1", record("billing", "d1")),
        ("h2", record("mail", "d2")),
        ("h3", record("gone", "d3")),
    ]);
    let wanted = LedgerChanges::from([
        ("h1".into(), None),
        ("h2".into(), Some(record("mail", "d9"))),
        ("h4".into(), Some(record("new", "d4"))),
        // Removing a record that does not exist changes nothing.
        ("h5".into(), None),
    ]);
    let update = before.plan_update(wanted, |_, record| record.hpa == "gone", usize::MAX);
    let expected = LedgerChanges::from([
        ("h1".into(), None),
        ("h2".into(), Some(record("mail", "d9"))),
        ("h3".into(), None),
        ("h4".into(), Some(record("new", "d4"))),
    ]);
    assert_eq!(update.changes, expected);
    assert!(update.refused.is_empty());
    let after = ledger(&[("h2", record("mail", "d9")), ("h4", record("new", "d4"))]);
    assert_eq!(before.with(&update.changes), after);
}

#[test]
fn full_ledger_refuses_new_records_and_keeps_those_it_has() {
    let before = ledger(&[("h1", record("billing", "d1"))]);
    let one = StoredRecord::new("h1", &record("billing", "d1")).bytes;
    let add = |max| {
        let wanted = LedgerChanges::from([
            ("h2".into(), Some(record("billing", "d2"))),
            ("h3".into(), Some(record("billing", "d3"))),
        ]);
        before.plan_update(wanted, |_, _| false, max)
    };
    for (room_for, refused) in [(3, &[][..]), (2, &["h3"]), (1, &["h2", "h3"])] {
        let update = add(2 * one * room_for);
        let found: Vec<_> = update.refused.iter().map(|uid| &**uid).collect();
        assert_eq!(found, refused, "{room_for}");
        assert_eq!(update.changes.len(), room_for - 1);
        assert!(!update.changes.contains_key("h1"));
    }
    // Removals are always possible, and free memory.
    let wanted = LedgerChanges::from([
        ("h1".into(), None),
        ("h2".into(), Some(record("billing", "d2"))),
    ]);
    let update = before.plan_update(wanted.clone(), |_, _| false, 2 * one);
    assert_eq!((update.changes, update.refused.len()), (wanted, 0));
    // The removal of a deleted HPA's record frees memory, too.
    let wanted = LedgerChanges::from([("h2".into(), Some(record("billing", "d2")))]);
    let update = before.plan_update(wanted, |uid, _| uid == "h1", 2 * one);
    assert!(update.refused.is_empty());
}

#[test]
fn namespace_that_takes_all_it_can_leaves_room_for_others() {
    let of = |namespace: &str| ZeroRecord {
        namespace: namespace.into(),
        ..record("billing", "d1")
    };
    let max = 100 * StoredRecord::new("a-00", &of("team-a")).bytes;
    let mut ledger = ZeroLedger::default();
    let mut counts = Vec::new();
    for namespace in ["team-a", "team-b", "team-c", "team-d"] {
        let wanted = (0..100).map(|n| {
            (
                format!("{}-{n:02}", &namespace[5..]).into(),
                Some(of(namespace)),
            )
        });
        let update = ledger.plan_update(wanted.collect(), |_, _| false, max);
        counts.push(update.changes.len());
        ledger = ledger.with(&update.changes);
    }
    assert_eq!(counts, [50, 25, 12, 6]);
}

/// A ledger after some changes, and the bytes of its keys and texts.
fn assert_counts_bytes(ledger: &ZeroLedger, unreadable: usize) {
    let mut of_namespaces: BTreeMap<String, usize> = BTreeMap::new();
    for (uid, record) in ledger.records() {
        *of_namespaces.entry(record.namespace.clone()).or_default() +=
            uid.len() + record.encode().len();
    }
    let all = of_namespaces.values().sum::<usize>() + unreadable;
    let counted = (ledger.used.all, &ledger.used.by_namespace);
    assert_eq!(counted, (all, &of_namespaces));
}

#[test]
fn bytes_are_counted_through_all_changes() {
    let of = |namespace: &str, n: usize| ZeroRecord {
        namespace: namespace.into(),
        replicas: u32::MAX >> (n % 32),
        ..record("billing", &"d".repeat(n))
    };
    let texts = [
        ("h1", of("a", 1).encode()),
        ("note", "of the operator".into()),
    ];
    let mut ledger = ZeroLedger::decode(texts.iter().map(|(uid, text)| (*uid, text.as_str())));
    let unreadable = "note".len() + "of the operator".len();
    assert_counts_bytes(&ledger, unreadable);
    for n in 0..200_usize {
        let uid = |n: usize| Arc::<str>::from(format!("h{}", n % 7));
        let wanted = LedgerChanges::from([
            (uid(n), Some(of(["a", "b", "c"][n % 3], n))),
            (uid(n + 3), (n % 5 == 0).then(|| of("d", n))),
        ]);
        let update = ledger.plan_update(wanted, |uid, _| n % 11 == 0 && uid == "h2", 4_000);
        ledger = ledger.with(&update.changes);
        assert_counts_bytes(&ledger, unreadable);
    }
    let all = ledger.records().map(|(uid, _)| (Arc::clone(uid), None));
    let empty = ledger.clone().with(&all.collect());
    assert_eq!(empty.used.all, unreadable);
}

#[test]
fn findings_name_a_command_that_is_safe_to_paste() {
    let hpa = |api_version: &str, kind: &str, name: &str, min_replicas| HpaFacts {
        namespace: "shop".into(),
        name: "billing".into(),
        min_replicas,
        scale_target: ScaleTarget {
            api_version: api_version.into(),
            kind: kind.into(),
            name: name.into(),
        },
        ..HpaFacts::default()
    };
    for (hpa, expected) in [
        (
            hpa("apps/v1", "Deployment", "billing", None),
            Some("kubectl scale --namespace shop deployment.apps/billing --replicas=1"),
        ),
        (
            hpa("argoproj.io/v1alpha1", "Rollout", "r", Some(4)),
            Some("kubectl scale --namespace shop rollout.argoproj.io/r --replicas=4"),
        ),
        (
            hpa("v1", "ReplicationController", "r", Some(0)),
            Some("kubectl scale --namespace shop replicationcontroller/r --replicas=1"),
        ),
        (hpa("apps/v1", "Deployment", "b; rm -rf ~", None), None),
    ] {
        for refusal in [ZeroRefusal::NotRecorded, ZeroRefusal::OtherTarget] {
            let finding = refusal.finding(&hpa);
            assert_eq!(finding.code, FindingCode::ZeroNotRecorded);
            match expected {
                Some(command) => {
                    let end = format!(": `{command}`");
                    assert!(finding.message.ends_with(&end), "{finding}");
                }
                None => assert!(!finding.message.contains("kubectl"), "{finding}"),
            }
        }
    }
    let hpa = hpa("apps/v1", "Deployment", "billing", None);
    for refusal in [
        ZeroRefusal::LedgerFull,
        ZeroRefusal::NoTargetUid,
        ZeroRefusal::NoLedger("configmaps is forbidden".into()),
    ] {
        assert_eq!(refusal.finding(&hpa).code, FindingCode::ZeroLedgerUnusable);
    }
}
