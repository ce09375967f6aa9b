use super::*;

fn parse(metadata: &[(&str, &str)]) -> Result<ExternalTrigger, MetadataError> {
    ExternalTrigger::parse("shop", "billing", metadata.iter().copied())
}

fn refusal(metadata: &[(&str, &str)]) -> String {
    parse(metadata).unwrap_err().to_string()
}

const GROUP: (&str, &str) = ("group", "billing");
const LAG: (&str, &str) = ("lagThreshold", "100");

#[test]
fn reads_a_trigger_as_a_metric_of_the_hpa_of_keda() {
    let trigger = parse(&[
        GROUP,
        LAG,
        ("topic", "orders"),
        ("cluster", "main"),
        ("scalerAddress", "lagwise.lagwise.svc:9443"),
        ("enableTLS", "true"),
        ("activationLag", "7"),
        ("threadsPerReplica", " 2 "),
        ("even", "true"),
    ]);
    let trigger = trigger.unwrap();
    assert_eq!(trigger.hpa.to_string(), "shop/keda-hpa-billing");
    assert_eq!(trigger.external.name, "kafka_lag");
    let selector = trigger.external.selector.to_string();
    assert_eq!(
        selector,
        "cluster=main,group=billing,hpa=keda-hpa-billing,topic=orders"
    );
    assert_eq!(trigger.target(), Milli::from_units(100));
    assert_eq!(trigger.activation, Lag(7));
    let annotations: Vec<_> = trigger.annotations.iter().collect();
    assert_eq!(
        format!("{annotations:?}"),
        r#"[("lagwise.dev/even.billing", "true"), ("lagwise.dev/threads-per-replica.billing", "2")]"#
    );
}

#[test]
fn desired_replicas_have_the_target_one() {
    let trigger = parse(&[GROUP, LAG, ("metric", "desired")]).unwrap();
    assert_eq!(trigger.external.name, "kafka_desired_replicas");
    assert_eq!(trigger.target(), Milli::ONE);
    let key = "lagwise.dev/lag-per-replica.billing";
    assert_eq!(
        trigger.annotations.get(key).map(String::as_str),
        Some("100")
    );
}

#[test]
fn a_configured_target_may_bring_its_own_lag_per_replica() {
    let trigger = parse(&[("target", "orders-eu"), ("metric", "desired")]).unwrap();
    let selector = trigger.external.selector.to_string();
    assert_eq!(selector, "hpa=keda-hpa-billing,target=orders-eu");
    assert!(trigger.annotations.is_empty());
    let needs = refusal(&[("target", "orders-eu")]);
    assert!(
        needs.starts_with("metadata lagThreshold is missing"),
        "{needs}"
    );
}

#[test]
fn takes_the_spellings_of_keda() {
    let plain = parse(&[GROUP, LAG, ("activationLag", "3")]).unwrap();
    let keda = parse(&[
        ("consumerGroupFromEnv", "billing"),
        ("lagThreshold", "100"),
        ("activationLagThreshold", "3"),
    ]);
    assert_eq!(keda.unwrap(), plain);
}

#[test]
fn a_group_may_have_any_name() {
    let trigger = parse(&[("group", "Bücher/eu.v1"), LAG, ("even", "true")]).unwrap();
    let mut facts = HpaFacts::default();
    trigger.add_to(&mut facts);
    assert!(trigger.is_in(&facts));
}

#[test]
fn every_setting_of_a_metric_is_a_key() {
    for (key, setting) in setting_keys() {
        let value = setting.default().or(setting.example.map(str::to_owned));
        let value = value
            .filter(|value| value != "[]")
            .unwrap_or("a".to_owned());
        let others = [GROUP, LAG, ("fallbackReplicas", "3")];
        let others = others.into_iter().filter(|(other, _)| *other != key);
        let given: Vec<_> = others.chain([(&*key, &*value)]).collect();
        let trigger = parse(&given).unwrap_or_else(|error| panic!("{key}: {error}"));
        let annotation = format!("lagwise.dev/{}.billing", setting.key);
        assert_eq!(trigger.annotations.get(&annotation), Some(&value), "{key}");
    }
}

#[test]
fn refuses_garbage_with_key_value_and_remedy() {
    let long = "x".repeat(MAX_METADATA_BYTES);
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[], "metadata lagThreshold is missing; set it"),
        (&[LAG], "metadata group is missing; set it"),
        (
            &[("group", ""), LAG],
            r#"metadata group: "" is invalid (empty)"#,
        ),
        (
            &[GROUP, ("lagThreshold", "0")],
            r#"lagThreshold: "0" is invalid (not above zero); allowed: a quantity"#,
        ),
        (
            &[GROUP, ("lagThreshold", "ten")],
            r#"lagThreshold: "ten" is invalid"#,
        ),
        (
            &[GROUP, LAG, ("metric", "age")],
            r#"metric: "age" is invalid (unknown); allowed: lag, desired"#,
        ),
        (
            &[GROUP, LAG, ("topic", "a b")],
            r#"topic: "a b" is invalid"#,
        ),
        (
            &[GROUP, LAG, ("activationLag", "-1")],
            r#"activationLag: "-1" is invalid"#,
        ),
        (
            &[GROUP, LAG, ("threadsPerReplica", "0")],
            r#"threadsPerReplica: "0" is invalid"#,
        ),
        (
            &[GROUP, LAG, ("thredsPerReplica", "1")],
            "thredsPerReplica: unknown key; did you mean threadsPerReplica?",
        ),
        (
            &[GROUP, LAG, ("bootstrapServers", "k:9092")],
            "bootstrapServers: unknown key",
        ),
        (
            &[GROUP, LAG, ("scaleToZero", "true")],
            "scaleToZero: a setting of HPAs, which KEDA has",
        ),
        (
            &[GROUP, LAG, ("target", "t")],
            "metadata target and group exclude each other",
        ),
        (
            &[GROUP, LAG, ("topic", "a"), ("topics", "b")],
            "metadata topic and topics exclude each other",
        ),
        (
            &[GROUP, ("consumerGroup", "other"), LAG],
            r#"consumerGroup: "other" is invalid (it is set twice)"#,
        ),
        (
            &[GROUP, LAG, ("fallbackAfter", "1m")],
            "metadata fallbackReplicas is missing",
        ),
        (
            &[GROUP, LAG, ("topics", &long)],
            "the metadata of the trigger has ",
        ),
    ];
    for (metadata, wanted) in cases {
        let said = refusal(metadata);
        assert!(said.contains(wanted), "{metadata:?}: {said}");
    }
}

#[test]
fn refuses_names_that_no_scaled_object_has() {
    for (namespace, name) in [
        ("", "a"),
        ("shop", ""),
        ("Shop", "a"),
        ("shop", "a/b"),
        ("shop", "\u{1b}[0m"),
    ] {
        let refused = ExternalTrigger::parse(namespace, name, [GROUP, LAG]);
        let said = refused.unwrap_err().to_string();
        assert!(said.contains("is no name of Kubernetes"), "{said}");
        assert!(!said.contains('\u{1b}'), "{said}");
    }
}
