//! Objects in forms that the corpus does not have.

use super::*;

#[test]
fn null_equals_a_missing_field() {
    let nulls = object("a")
        .replace("{name: a}\nspec:", "{name: a, labels: null, annotations: null}\nspec:\n  advanced: null\n  fallback: null\n  pollingInterval: null")
        .replace("    - type: kafka", "    - type: kafka\n      useCachedMetrics: null\n      metricType: null");
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: [odd]}\n";
    let (nulls, plain) = (written(&[&nulls, map].join("---\n")), written(&object("a")));
    assert_eq!(nulls.objects[0].hpa, plain.objects[0].hpa);
    assert_eq!(nulls.objects[0].notes, plain.objects[0].notes);
}

#[test]
fn groups_whose_names_make_the_same_label_have_different_ones() {
    let head = "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {name: a}\nspec:\n  \
                scaleTargetRef: {name: a}\n  minReplicaCount: 1\n  triggers:\n";
    let trigger = |group: &str| {
        format!(
            "    - type: kafka\n      \
             metadata: {{bootstrapServers: \"k:9092\", consumerGroup: \"{group}\", topic: t}}\n"
        )
    };
    let triggers = ["a/b", "a:b", "a-b", "a/b"].map(trigger).concat();
    let conversion = written(&[head, &triggers].concat());
    let hpa = conversion.objects[0].hpa.as_ref().unwrap();
    let label = |place: usize| {
        let metric = &hpa["spec"]["metrics"][place]["external"]["metric"];
        metric["selector"]["matchLabels"]["group"].clone()
    };
    assert_eq!([0, 1, 2, 3].map(label), ["a-b-2", "a-b-3", "a-b", "a-b-2"]);
    assert_eq!(
        hpa["metadata"]["annotations"],
        serde_json::json!({
            "lagwise.dev/consumer-group.a-b-2": "a/b",
            "lagwise.dev/consumer-group.a-b-3": "a:b",
        })
    );
}

#[test]
fn hpas_of_a_namespace_with_the_same_query_have_distinct_labels() {
    let labels = |first: &str, second: &str| {
        let conversion = written(&[first, second].join("---\n"));
        let label = |object: &ConvertedObject| {
            let hpa = object.hpa.as_ref().unwrap();
            let selector = &hpa["spec"]["metrics"][0]["external"]["metric"]["selector"];
            selector["matchLabels"]["hpa"].as_str().map(str::to_owned)
        };
        let notes =
            |object: &ConvertedObject| Vec::from_iter(object.notes.iter().map(|note| note.kind));
        let objects = &conversion.objects;
        ([&objects[0], &objects[1]].map(label), notes(&objects[1]))
    };
    let (a, b) = (object("a"), object("b"));
    let (hpas, notes) = labels(&a, &b);
    assert_eq!(hpas, [Some("a".to_owned()), Some("b".to_owned())]);
    assert!(notes.contains(&NoteKind::Differs));
    for (apart, why) in [
        (
            b.replace("{name: b}\nspec", "{name: b, namespace: other}\nspec"),
            "another namespace",
        ),
        (b.replace("topic: ", "topic: x-"), "another topic"),
    ] {
        assert_ne!(apart, b);
        assert_eq!(labels(&a, &apart).0, [None, None], "{why}");
    }
    let long = "b".repeat(64);
    let (hpas, notes) = labels(&a, &object(&long));
    assert_eq!(hpas, [Some("a".to_owned()), None]);
    assert!(notes.contains(&NoteKind::Todo));
}

/// The time for names of clusters and for notes does not grow with the square of their number.
#[test]
fn many_clusters_have_distinct_names() {
    let trigger = |number: u32| {
        format!(
            "    - {{type: kafka, metadata: {{bootstrapServers: \"k:{number}\", consumerGroup: g, version: x}}}}\n"
        )
    };
    let triggers = String::from_iter((1..=5_000).map(trigger));
    let text = object("a").replace("triggers:\n", &format!("triggers:\n{triggers}"));
    let config = written(&text).config.unwrap();
    let clusters = config["clusters"].as_array().unwrap();
    let names = BTreeSet::from_iter(clusters.iter().map(|cluster| cluster["name"].to_string()));
    assert_eq!((clusters.len(), names.len()), (5_001, 5_001));
    assert_eq!(clusters[1]["name"], "k-2");
}

#[test]
fn options_that_cannot_be_converted_are_named() {
    let authentication = "apiVersion: keda.sh/v1alpha1\nkind: TriggerAuthentication\nmetadata: {name: a}\nspec:\n  \
         secretTargetRef: [{parameter: oauthExtensions, name: s, key: e}]\n";
    for (old, new, expected) in [
        (
            "sasl: plaintext",
            "tls: \"true\"",
            "triggers[0].metadata.tls",
        ),
        (
            "sasl: plaintext",
            "tls: enable, unsafeSsl: \"yes\"",
            "triggers[0].metadata.unsafeSsl",
        ),
        (
            "sasl: plaintext",
            "sasl: aws_msk_iam",
            "triggers[0].metadata.awsRegion",
        ),
        (
            "sasl: plaintext",
            "lagThresholdFromEnv: LAG",
            "triggers[0].metadata.lagThresholdFromEnv",
        ),
        (
            "topic: t",
            "topic: \"\", topicFromEnv: TOPIC",
            "triggers[0].metadata.topicFromEnv",
        ),
        (
            "type: kafka",
            "type: kafka\n      metricType: Utilization",
            "triggers[0].metricType",
        ),
        (
            "minReplicaCount: 1",
            "minReplicaCount: 1\n  cooldownPeriod: 60",
            "cooldownPeriod",
        ),
    ] {
        let conversion = written(&object("a").replace(old, new));
        let notes = &conversion.objects[0].notes;
        assert!(notes.iter().any(|note| note.field == expected), "{notes:?}");
    }
    let oauth = object("a").replace("sasl: plaintext", "sasl: oauthbearer");
    let conversion = written(&[oauth.as_str(), authentication].join("---\n"));
    let notes = &conversion.objects[0].notes;
    let text = "write the pairs of ${file:/etc/lagwise/keda/default/s/e}";
    assert!(
        notes.iter().any(|note| note.text.starts_with(text)),
        "{notes:?}"
    );
}

#[test]
fn notes_name_the_trigger_by_its_place_among_all_triggers() {
    let before = "triggers:\n    - {type: cron, metadata: {}}\n    - {type: kafka, metadata: {bootstrapServers: \"k:9092\", \
                  consumerGroup: g, topic: t, partitionLimitation: \"0\"}}\n";
    let text = object("a").replace("triggers:\n", before);
    let conversion = written(&text);
    let lost = |note: &&Note| note.text.starts_with("annotations apply to all metrics");
    let note = conversion.objects[0].notes.iter().find(lost).unwrap();
    assert_eq!(note.field, "triggers[2].metadata");
}

#[test]
fn a_paused_workload_is_not_scaled_to_zero() {
    let to_zero = object("a").replace("minReplicaCount: 1", "minReplicaCount: 0");
    let annotations = |conversion: &Conversion| {
        let hpa = conversion.objects[0].hpa.as_ref().unwrap();
        hpa.pointer("/metadata/annotations").cloned()
    };
    assert!(annotations(&written(&to_zero)).is_some());
    for pause in ["paused-replicas: \"4\"", "paused-scale-in: \"true\""] {
        let metadata = format!("{{name: a, annotations: {{autoscaling.keda.sh/{pause}}}}}\nspec:");
        let conversion = written(&to_zero.replace("{name: a}\nspec:", &metadata));
        assert_eq!(annotations(&conversion), None, "{pause}");
        let notes = &conversion.objects[0].notes;
        let expected = "lagwise.dev/cooldown: \"5m\" and lagwise.dev/scale-to-zero: \"true\"";
        assert!(
            notes.iter().any(|note| note.text.contains(expected)),
            "{notes:?}"
        );
    }
}

#[test]
fn fields_that_kubernetes_would_refuse_are_not_printed() {
    let cpu = |value: &str| {
        let trigger = format!(
            "triggers:\n    - {{type: cpu, metricType: AverageValue, metadata: {{value: {value}}}}}\n"
        );
        written(&object("a").replace("triggers:\n", &trigger))
    };
    let has_cpu = |conversion: &Conversion| {
        serde_json::to_string(&conversion.objects[0].hpa)
            .unwrap()
            .contains("cpu")
    };
    assert!(has_cpu(&cpu("500m")));
    assert!(!has_cpu(&cpu("half")));
    let unnamed = written(&object("\"\""));
    assert_eq!(unnamed.objects[0].hpa, None);
    let few = "minReplicaCount: 5\n  maxReplicaCount: 3";
    let conversion = written(&object("a").replace("minReplicaCount: 1", few));
    let hpa = conversion.objects[0].hpa.as_ref().unwrap();
    assert_eq!(hpa.pointer("/spec/maxReplicas"), Some(&Value::from(5)));
    let notes = &conversion.objects[0].notes;
    assert!(
        notes.iter().any(|note| note.field == "maxReplicaCount"),
        "{notes:?}"
    );
}

#[test]
fn text_of_others_does_not_end_a_comment() {
    let odd = object("\"a\\nkind: Secret\"")
        .replace("consumerGroup: g", "\"x\\nkind: Pod\": g, consumerGroup: g");
    let conversion = written(&odd);
    let text = render(&conversion, Print::Hpas).unwrap();
    let summary = summarize(&conversion, Print::Hpas);
    assert_eq!(summary.lines().count(), 2, "{summary}");
    let documents = parse_documents(&text).unwrap();
    assert_eq!(documents.len(), 1, "{text}");
    assert_eq!(documents[0]["kind"], "HorizontalPodAutoscaler");
    let kinds: BTreeSet<_> = text
        .lines()
        .filter(|line| line.starts_with("kind:"))
        .collect();
    assert_eq!(
        kinds.into_iter().collect::<Vec<_>>(),
        ["kind: HorizontalPodAutoscaler"]
    );
}
