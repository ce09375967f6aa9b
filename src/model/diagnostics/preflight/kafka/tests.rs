use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::model::diagnostics::preflight::CheckStatus;
use crate::model::kafka::group::{GroupDescription, GroupKind, GroupState};
use crate::model::kafka::observation::{CertificateExpiry, GroupObservation, TopicOffsets};
use crate::model::kafka::offset_column::CommittedOffsets;
use crate::model::kafka::sweep_plan::GroupPlan;
use crate::model::units::newtypes::{Moment, Offset};

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn days(count: u64) -> Duration {
    Duration::from_secs(count * 24 * 3600)
}

fn session() -> BrokerSession {
    let api = |name, version| ApiSupport {
        name,
        version: Some(version),
        is_needed: true,
    };
    BrokerSession {
        login: Some(SaslLogin {
            mechanism: "SCRAM-SHA-512",
            name: "lagwise".into(),
        }),
        tls: Some(TlsSession {
            is_verified: true,
            expires: Some(now() + days(90)),
        }),
        apis: vec![api("OffsetFetch", 9), api("ListOffsets", 10)],
    }
}

fn probe(address: &str, outcome: Result<BrokerSession, Fault>) -> BrokerProbe {
    BrokerProbe {
        address: address.into(),
        outcome: outcome.map_err(|kind| BrokerFault {
            address: address.into(),
            kind,
            reason: format!("{address}: connection refused").into(),
        }),
    }
}

fn description() -> GroupDescription {
    GroupDescription::memberless(GroupKind::Consumer, GroupState::Empty)
}

fn group(name: &str) -> GroupObservation {
    let column: CommittedOffsets = [Ok(Some(Offset(5)))].into_iter().collect();
    GroupObservation {
        plan: GroupPlan::new(name, ["orders".into()].into()),
        committed: Ok([("orders".into(), column)].into()),
        description: Ok(Arc::new(description())),
        reported_lags: None,
        refused_partitions: None,
    }
}

fn observation() -> Observation {
    let log = TopicOffsets {
        ends: vec![Ok(Offset(9))],
        ..TopicOffsets::default()
    };
    Observation {
        cluster: "main".into(),
        started: Moment::now(),
        finished: Moment::now(),
        topics: [("orders".into(), Ok(Arc::new(log)))].into(),
        groups: vec![group("billing")],
        connection: None,
        unreachable_brokers: Vec::new(),
        traffic: None,
        listings: BTreeMap::new(),
        group_names: None,
        certificates: CertificateExpiry::default(),
    }
}

fn facts() -> KafkaFacts {
    KafkaFacts {
        cluster: "main".into(),
        access: KafkaAccess::new("b-1:9096", false, Some("lagwise")),
        client: Ok(ClientFacts {
            is_wire: true,
            reasons: Vec::new(),
        }),
        client_certificate: None,
        bootstrap: vec![probe("b-1:9096", Ok(session()))],
        listed: Some(ListedGroups {
            count: 14,
            faults: Vec::new(),
            connection: None,
        }),
        observation: Some(observation()),
        is_sample: false,
        cost: Some(PollCost {
            requests: 3,
            connections: 1,
        }),
        interval: Duration::from_secs(5),
    }
}

fn lines(facts: &KafkaFacts) -> Vec<CheckLine> {
    check_kafka(facts, now())
}

fn codes(facts: &KafkaFacts) -> Vec<&'static str> {
    lines(facts).iter().filter_map(|line| line.code).collect()
}

fn shown(facts: &KafkaFacts) -> String {
    let lines = lines(facts).into_iter();
    lines
        .map(|line| format!("{} {}: {}\n", line.status.sign(), line.check, line.message))
        .collect()
}

#[test]
fn a_good_cluster_passes_each_check() {
    insta::assert_snapshot!(shown(&facts()));
}

#[test]
fn the_stage_at_which_a_connection_fails_is_the_last_line() {
    for (kind, code, checks) in [
        (Fault::NameResolution, "kafka_name_unresolved", 2),
        (Fault::Unreachable, "kafka_unreachable", 2),
        (Fault::NoAnswer, "kafka_unreachable", 2),
        (Fault::HostNotAllowed, "kafka_host_not_allowed", 2),
        (Fault::Tls, "kafka_tls_failed", 3),
        (Fault::Login, "kafka_login_refused", 3),
    ] {
        let connection = Some(ConnectionFault {
            kind,
            reason: "the reason".into(),
            since: Moment::now(),
        });
        let swept = KafkaFacts {
            observation: Some(Observation {
                connection: connection.clone(),
                ..observation()
            }),
            ..facts()
        };
        let listed = KafkaFacts {
            observation: None,
            listed: Some(ListedGroups {
                count: 0,
                faults: vec![Fault::Unreachable],
                connection,
            }),
            ..facts()
        };
        for facts in [swept, listed] {
            assert_eq!(codes(&facts), [code]);
            let lines = lines(&facts);
            assert_eq!(lines.len(), checks, "{kind:?}");
            let last = lines.last().unwrap();
            assert_eq!(
                (&*last.message, last.status),
                ("the reason", CheckStatus::Failed)
            );
        }
    }
}

#[test]
fn only_the_refused_client_is_reported() {
    let refused = KafkaFacts {
        client: Err("property ssl.ca.location: no such file".into()),
        ..facts()
    };
    assert_eq!(codes(&refused), ["kafka_client_refused"]);
    assert_eq!(lines(&refused).len(), 1);
}

#[test]
fn the_client_is_named_with_the_reason_for_it() {
    let client = |reasons: &[&str]| KafkaFacts {
        client: Ok(ClientFacts {
            is_wire: false,
            reasons: reasons.iter().map(ToString::to_string).collect(),
        }),
        bootstrap: Vec::new(),
        cost: None,
        ..facts()
    };
    let chosen = shown(&client(&[]));
    assert!(
        chosen.starts_with("√ client: librdkafka, as configured"),
        "{chosen}"
    );
    assert!(
        chosen.ends_with(
            "√ cost: 2 clients, each with a connection to each broker, and polls every 5s\n"
        ),
        "{chosen}"
    );
    let forced = shown(&client(&["sasl.mechanism (Kerberos)"]));
    assert!(
        forced.contains("because of sasl.mechanism (Kerberos)"),
        "{forced}"
    );
}

#[test]
fn some_unreachable_brokers_are_distinguished() {
    let refused = KafkaFacts {
        bootstrap: vec![
            probe("b-1:9096", Ok(session())),
            probe("b-2:9096", Err(Fault::Unreachable)),
        ],
        ..facts()
    };
    assert_eq!(codes(&refused), ["kafka_bootstrap_unreachable"]);
    let advertised = |kind| KafkaFacts {
        observation: Some(Observation {
            unreachable_brokers: vec![BrokerFault {
                address: "b-3:9096".into(),
                kind,
                reason: "b-3:9096: connecting timed out".into(),
            }],
            ..observation()
        }),
        ..facts()
    };
    let down = advertised(Fault::Unreachable);
    assert_eq!(codes(&down), ["kafka_broker_unreachable"]);
    let strange = advertised(Fault::HostNotAllowed);
    assert_eq!(codes(&strange), ["kafka_host_not_allowed"]);
}

#[test]
fn certificates_are_reported_before_they_expire() {
    let expiring = |expires: Option<SystemTime>| {
        let tls = Some(TlsSession {
            is_verified: true,
            expires,
        });
        KafkaFacts {
            bootstrap: vec![probe("b-1:9096", Ok(BrokerSession { tls, ..session() }))],
            ..facts()
        }
    };
    let message = |facts: &KafkaFacts| {
        let lines = lines(facts);
        let tls = lines.into_iter().find(|line| line.check == "tls").unwrap();
        (tls.code, tls.message)
    };
    let problem = Some("kafka_certificate_expiring");
    for (left, expected) in [
        (days(13), "expires in 13 days"),
        (days(1), "expires in 1 day"),
        (Duration::from_secs(60), "expires within a day"),
    ] {
        let (code, text) = message(&expiring(Some(now() + left)));
        assert_eq!(code, problem);
        assert_eq!(text, format!("b-1:9096: the certificate {expected}"));
    }
    let (code, text) = message(&expiring(Some(now() - days(1))));
    assert_eq!(code, problem);
    assert!(text.ends_with("has expired"), "{text}");
    assert_eq!(message(&expiring(Some(now() + days(14)))).0, None);
    let (code, text) = message(&expiring(None));
    assert_eq!(
        (code, &*text),
        (None, "the certificates of the brokers are trusted")
    );
    let mut plain = session();
    plain.tls = None;
    let plain = KafkaFacts {
        bootstrap: vec![probe("b-1:9092", Ok(plain))],
        ..facts()
    };
    assert!(lines(&plain).iter().all(|line| line.check != "tls"));
}

#[test]
fn lagwises_own_certificate_is_reported_with_either_client() {
    for is_wire in [true, false] {
        let expiring = |expires| {
            let mut facts = facts();
            facts.client.as_mut().unwrap().is_wire = is_wire;
            facts.client_certificate = Some(ClientCertificate {
                name: Some("CN=lagwise".into()),
                expires,
            });
            facts
        };
        for (expires, expected) in [
            (now() + days(13), "CN=lagwise expires in 13 days"),
            (now() - days(1), "CN=lagwise has expired"),
        ] {
            let facts = expiring(expires);
            assert_eq!(codes(&facts), ["kafka_client_certificate_expiring"]);
            let text = format!("! client certificate: lagwise's certificate {expected}\n");
            assert!(shown(&facts).contains(&text), "{}", shown(&facts));
        }
        let valid = expiring(now() + days(14));
        assert_eq!(codes(&valid), [""; 0]);
        assert!(shown(&valid).contains("√ client certificate: "));
        // It is reported although no broker answers.
        let mut refused = expiring(now());
        refused.observation.as_mut().unwrap().connection = Some(ConnectionFault {
            kind: Fault::Tls,
            reason: "expired".into(),
            since: Moment::now(),
        });
        let expected = ["kafka_client_certificate_expiring", "kafka_tls_failed"];
        assert_eq!(codes(&refused), expected);
    }
}

#[test]
fn the_lowest_version_of_all_brokers_counts() {
    let with = |version: Option<i16>| {
        let mut other = session();
        other.apis[0].version = version;
        KafkaFacts {
            bootstrap: vec![
                probe("b-1:9096", Ok(session())),
                probe("b-2:9096", Ok(other)),
            ],
            ..facts()
        }
    };
    assert_eq!(codes(&with(Some(8))), [""; 0]);
    assert_eq!(codes(&with(Some(7))), ["kafka_request_per_group"]);
    assert_eq!(codes(&with(None)), ["kafka_api_missing"]);
    let mut optional = with(None);
    for probe in &mut optional.bootstrap {
        probe.outcome.as_mut().unwrap().apis[0].is_needed = false;
    }
    assert_eq!(codes(&optional), [""; 0]);
}

#[test]
fn each_right_is_proven_by_itself() {
    let with = |change: fn(&mut Observation)| {
        let mut observation = observation();
        change(&mut observation);
        KafkaFacts {
            observation: Some(observation),
            ..facts()
        }
    };
    let check = |facts: &KafkaFacts| {
        let lines = lines(facts).into_iter();
        let problems = lines.filter_map(|line| Some((line.check, line.code?)));
        problems.collect::<Vec<_>>()
    };
    let log = |fault| {
        Ok(Arc::new(TopicOffsets {
            ends: vec![Ok(Offset(1)), Err(fault)],
            ..TopicOffsets::default()
        }))
    };
    let denied = with(|o| o.groups[0].committed = Err(Fault::GroupDenied));
    assert_eq!(check(&denied), [("fetch offsets", "kafka_group_denied")]);
    let denied = with(|o| o.groups[0].description = Err(Fault::GroupDenied));
    assert_eq!(check(&denied), [("describe groups", "kafka_group_denied")]);
    let members = with(|o| o.groups[0].description = Err(Fault::TopicDenied));
    assert_eq!(check(&members), [("describe groups", "kafka_topic_denied")]);
    let old = with(|o| o.groups[0].description = Err(Fault::Unsupported));
    assert_eq!(check(&old), []);
    let many = with(|o| o.groups[0].committed = Err(Fault::TooManyGroups));
    assert_eq!(check(&many), [("fetch offsets", "kafka_too_many_groups")]);
    let late = with(|o| o.groups[0].committed = Err(Fault::CoordinatorUnavailable));
    assert_eq!(
        check(&late),
        [("fetch offsets", "kafka_broker_unreachable")]
    );
    let other = with(|o| o.groups[0].committed = Err(Fault::Code(42)));
    assert_eq!(check(&other), [("fetch offsets", "kafka_unread")]);
    for (fault, code) in [
        (Fault::TopicDenied, "kafka_topic_denied"),
        (Fault::TopicMissing, "kafka_topic_missing"),
    ] {
        let mut topic = facts();
        let topics = &mut topic.observation.as_mut().unwrap().topics;
        topics.insert("orders".into(), Err(fault));
        assert_eq!(check(&topic), [("describe topics", code)]);
        topic.observation.as_mut().unwrap().topics = [("orders".into(), log(fault))].into();
        assert_eq!(check(&topic), [("list offsets", code)]);
    }
    let text = shown(&denied);
    let expected = "× describe groups: group billing: not authorized: the principal lacks Describe on the group";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn the_remedy_for_a_missing_right_is_a_command_with_the_names() {
    let with = |change: fn(&mut KafkaFacts)| {
        let mut facts = facts();
        change(&mut facts);
        let lines = lines(&facts);
        let problem = lines.into_iter().find(|line| line.code.is_some()).unwrap();
        problem.remedy.unwrap().into_owned()
    };
    let acls = "Allow it: kafka-acls --bootstrap-server b-1:9096 --command-config admin.properties --add --allow-principal User:lagwise --operation Describe";
    let denied = |facts: &mut KafkaFacts| {
        facts.observation.as_mut().unwrap().groups[0].committed = Err(Fault::GroupDenied);
    };
    assert_eq!(with(denied), format!("{acls} --group billing"));
    assert_eq!(
        with(|facts| {
            let topics = &mut facts.observation.as_mut().unwrap().topics;
            topics.insert("orders".into(), Err(Fault::TopicDenied));
        }),
        format!("{acls} --topic orders")
    );
    // The topic of a member is not known.
    assert_eq!(
        with(|facts| {
            let groups = &mut facts.observation.as_mut().unwrap().groups;
            groups[0].description = Err(Fault::TopicDenied);
        }),
        format!("{acls} --topic TOPIC")
    );
    let unlisted = with(|facts| {
        facts.listed.as_mut().unwrap().faults = vec![Fault::Code(31)];
    });
    assert!(
        unlisted.contains("suggestions only") && unlisted.ends_with(&format!("{acls} --cluster"))
    );
    let by_iam = with(|facts| {
        let host = "b-1.main.x.c2.kafka.eu-central-1.amazonaws.com:9098";
        facts.access = KafkaAccess::new(host, true, None);
        facts.observation.as_mut().unwrap().groups[0].committed = Err(Fault::GroupDenied);
    });
    assert!(
        by_iam.contains("kafka-cluster:DescribeGroup") && by_iam.contains("/billing "),
        "{by_iam}"
    );
}

#[test]
fn many_names_are_counted() {
    let groups = (0..9).map(|number| GroupObservation {
        committed: Err(Fault::GroupDenied),
        ..group(&format!("g{number}"))
    });
    let many = KafkaFacts {
        observation: Some(Observation {
            groups: groups.collect(),
            ..observation()
        }),
        ..facts()
    };
    let lines = lines(&many);
    let denied = lines.iter().find(|line| line.code.is_some()).unwrap();
    assert!(
        denied
            .message
            .starts_with("group g0, g1, g2, g3, and 5 more: "),
        "{}",
        denied.message
    );
    assert_eq!(denied.details.len(), 9);
}

#[test]
fn without_groups_no_permission_is_proven() {
    let none = KafkaFacts {
        observation: Some(Observation {
            groups: Vec::new(),
            topics: BTreeMap::new(),
            ..observation()
        }),
        ..facts()
    };
    assert_eq!(codes(&none), ["kafka_nothing_proven"]);
    let sample = KafkaFacts {
        is_sample: true,
        ..facts()
    };
    assert_eq!(codes(&sample), ["kafka_nothing_proven"]);
    assert!(shown(&sample).contains("proven for billing, the first"));
    let topicless = KafkaFacts {
        observation: Some(Observation {
            groups: vec![GroupObservation {
                committed: Ok([].into()),
                ..group("billing")
            }],
            topics: BTreeMap::new(),
            ..observation()
        }),
        ..facts()
    };
    assert_eq!(codes(&topicless), ["kafka_nothing_proven"]);
    assert!(shown(&topicless).contains("Describe on their topics is missing"));
}

#[test]
fn advice_for_groups_that_cannot_be_listed_follows_the_cause() {
    for (fault, code) in [
        (Fault::Code(31), "kafka_groups_unlisted"),
        (Fault::GroupDenied, "kafka_groups_unlisted"),
        (Fault::Code(35), "kafka_list_failed"),
        (Fault::NoAnswer, "kafka_list_failed"),
    ] {
        let unlisted = KafkaFacts {
            listed: Some(ListedGroups {
                count: 0,
                faults: vec![fault],
                connection: None,
            }),
            ..facts()
        };
        assert_eq!(codes(&unlisted), [code], "{fault}");
    }
}
