//! Conversion to triggers of the external scaler.

use super::*;

/// Every Kafka trigger becomes one that the external scaler accepts, and everything else stays as it is.
#[test]
fn the_corpus_becomes_triggers_of_the_external_scaler() {
    let mut triggers = 0;
    for path in corpus() {
        let text = std::fs::read_to_string(&path).unwrap();
        let before = parse_documents(&text).unwrap();
        let conversion = converted(&path, &["--to", "external-scaler"]);
        for object in &conversion.objects {
            assert!(object.hpa.is_none());
            let Some(made) = &object.scaled_object else {
                continue;
            };
            let is_same =
                |document: &&Value| document["metadata"]["name"] == made["metadata"]["name"];
            let original = before
                .iter()
                .filter(|d| d["kind"] == "ScaledObject")
                .find(is_same);
            for (index, trigger) in made["spec"]["triggers"]
                .as_array()
                .unwrap()
                .iter()
                .enumerate()
            {
                if trigger["type"] != "external-push" {
                    if let Some(original) = original {
                        assert_eq!(
                            *trigger,
                            original["spec"]["triggers"][index],
                            "{}",
                            path.display()
                        );
                    }
                    continue;
                }
                let metadata = trigger["metadata"].as_object().unwrap();
                let metadata = metadata
                    .iter()
                    .map(|(key, value)| (key.as_str(), value.as_str().unwrap()));
                let parsed = ExternalTrigger::parse("shop", &object.name, metadata);
                let parsed = parsed.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                assert_eq!(parsed.external.name, "kafka_lag");
                triggers += 1;
            }
        }
    }
    assert!(triggers >= 30, "only {triggers} triggers");
}

#[test]
fn a_trigger_of_the_external_scaler_keeps_its_options() {
    let trigger = |wanted: &str, index: usize| {
        let path = corpus()
            .into_iter()
            .find(|path| stem(path) == wanted)
            .unwrap();
        let conversion = converted(
            &path,
            &["--to", "external-scaler", "--scaler-address", "l:1"],
        );
        let object = conversion.objects[0].scaled_object.clone().unwrap();
        assert_eq!(object["kind"], "ScaledObject");
        object["spec"]["triggers"][index].clone()
    };
    let metadata = |wanted: &str, index: usize| trigger(wanted, index)["metadata"].clone();
    assert_eq!(
        trigger("05-activation", 0),
        serde_json::json!({
            "type": "external-push",
            "metadata": {
                "scalerAddress": "l:1", "enableTLS": "true", "group": "thumbnails", "topic": "images",
                "lagThreshold": "20", "activationLag": "100",
            },
            "authenticationRef": {"name": "lagwise", "kind": "ClusterTriggerAuthentication"},
        })
    );
    assert_eq!(
        metadata("18-limit-to-partitions-with-lag", 0)["by"],
        "lagging"
    );
    assert_eq!(metadata("08-conflicting-triggers", 0)["partitions"], "0-3");
    assert_eq!(metadata("08-conflicting-triggers", 1)["by"], "lagging");
    let several = metadata("22-apache-kafka-topics", 0);
    assert!(several.get("topic").is_none(), "{several}");
    assert!(
        several["topics"].as_str().unwrap().contains(','),
        "{several}"
    );
}

#[test]
fn the_address_of_the_scaler_is_for_triggers_only() {
    let parse = |args: &[&str]| {
        let all = [&["convert", "-f", "a.yaml"], args].concat();
        ConvertCli::try_parse_from(all).map(|cli| cli.convert)
    };
    let triggers = ["--to", "external-scaler"];
    let address = ["--scaler-address", "lagwise.other.svc:9443"];
    assert_eq!(parse(&triggers).unwrap().problem(), None);
    assert_eq!(
        parse(&[triggers, address].concat()).unwrap().problem(),
        None
    );
    for ignored in [&address[..], &[&address[..], &["--to", "hpa"]].concat()] {
        let problem = parse(ignored).unwrap().problem().unwrap();
        assert!(problem.ends_with("add that, or remove it"), "{problem}");
    }
    for text in ["foo", "foo:bar", "foo:0", ":9443"] {
        let error = parse(&[&triggers[..], &["--scaler-address", text]].concat());
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("write HOST:PORT, such as "),
            "{text}: {error}"
        );
    }
}
