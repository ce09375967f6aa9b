//! The table of cases, each with the value and the replicas that KEDA's source gives.

use proptest::prelude::*;

use super::*;

/// One line of the table.
struct Case {
    kind: TriggerKind,
    metadata: BTreeMap<String, String>,
    numbers: BTreeMap<String, u32>,
    has_members: bool,
    readings: Vec<BTreeMap<TopicName, Vec<PartitionOffsets>>>,
    expected: String,
}

fn offset(text: &str) -> Result<Option<i64>, OffsetFault> {
    match text {
        "?" => Err(OffsetFault),
        "-" => Ok(None),
        number => Ok(Some(number.parse().expect("an offset"))),
    }
}

fn topic(text: &str) -> (TopicName, Vec<PartitionOffsets>) {
    let (name, partitions) = text.split_once(':').expect("a topic");
    let partitions = partitions.split_whitespace().map(|pair| {
        let (committed, end) = pair.split_once('/').expect("two offsets");
        PartitionOffsets {
            committed: offset(committed),
            end: offset(end).map(|end| end.expect("an end")),
        }
    });
    (name.trim().into(), partitions.collect())
}

impl Case {
    fn parse(line: &str) -> Self {
        let [trigger, readings, expected] = *line.split(" | ").collect::<Vec<_>>() else {
            panic!("three columns: {line}");
        };
        let mut words = trigger.split_whitespace();
        let kind = TriggerKind::find(words.next().expect("a trigger")).expect("a Kafka trigger");
        let options = words.map(|word| word.split_once('=').expect("an option"));
        let is_own = |key: &str| ["v", "at", "min", "max", "idle", "tolerance"].contains(&key);
        let (own, metadata): (Vec<_>, Vec<_>) = options.partition(|(key, _)| is_own(key));
        let number = |(key, value): (&str, &str)| (key.to_owned(), value.parse().unwrap());
        let text = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let reading = |text: &str| text.split(';').map(topic).collect();
        Self {
            kind,
            has_members: !trigger.contains("members=no"),
            metadata: metadata.into_iter().map(text).collect(),
            numbers: own.into_iter().map(number).collect(),
            readings: readings.split("=>").map(reading).collect(),
            expected: expected.to_owned(),
        }
    }

    fn number(&self, key: &str, default: u32) -> u32 {
        self.numbers.get(key).copied().unwrap_or(default)
    }

    fn run(&self) -> String {
        let version = KedaVersion {
            minor: self.number("v", KedaVersion::NEWEST.minor),
        };
        let trigger = KafkaTrigger::parse(self.kind, &self.metadata, version).expect("a trigger");
        let mut previous = PreviousOffsets::new();
        let mut last = None;
        for topics in &self.readings {
            let offsets = KedaOffsets {
                topics: topics.clone(),
                has_members: self.has_members,
            };
            last = Some(read(&trigger, &offsets, &mut previous, version));
        }
        let reading = match last.expect("a reading") {
            Ok(reading) => reading,
            Err(failure) => return format!("fails: {failure}"),
        };
        let bounds = ReplicaBounds {
            min: self.number("min", 0),
            max: self.number("max", 100),
            idle: self.numbers.get("idle").copied(),
        };
        let tolerance = u64::from(self.number("tolerance", 100));
        let tolerances = (tolerance, tolerance);
        let replicas = replicas(
            &[(&trigger, &reading)],
            bounds,
            self.number("at", 1),
            tolerances,
        );
        let rule = match reading.rule {
            KedaRule::Lag => "lag",
            KedaRule::Bounded => "bound",
            KedaRule::Even => "even",
        };
        let bound = match reading.bound {
            Some(partitions) => format!("bound {partitions}"),
            None => "no bound".to_owned(),
        };
        let activity = if reading.active { "active" } else { "idle" };
        let value = reading.value;
        format!("value {value} by {rule}, {bound}, {activity}: {replicas} replicas")
    }
}

#[test]
fn every_case_has_the_value_of_kedas_source() {
    let lines = include_str!("cases.txt").lines();
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut count = 0;
    let mut wrong = String::new();
    for line in lines {
        let case = Case::parse(line);
        let found = case.run();
        if found != case.expected {
            wrong += &format!("{line}\n  is: {found}\n");
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(count >= 40, "only {count} cases");
}

#[test]
fn the_largest_metric_of_several_triggers_wins_and_one_active_trigger_suffices() {
    let trigger = |threshold: &str| {
        let metadata = [("topic", "orders"), ("lagThreshold", threshold)];
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let newest = KedaVersion::NEWEST;
        KafkaTrigger::parse(TriggerKind::Kafka, &metadata.into(), newest).unwrap()
    };
    let (ten, two) = (trigger("10"), trigger("2"));
    let of = |trigger: &KafkaTrigger, partitions: &str| {
        let offsets = KedaOffsets {
            topics: [topic(partitions)].into(),
            has_members: true,
        };
        read(
            trigger,
            &offsets,
            &mut PreviousOffsets::new(),
            KedaVersion::NEWEST,
        )
        .unwrap()
    };
    let (busy, quiet) = (
        of(&ten, "orders: 0/40 0/0 0/0 0/0"),
        of(&two, "orders: 5/5"),
    );
    let wanted = |readings: &[(&KafkaTrigger, &KedaReading)]| {
        replicas(readings, ReplicaBounds::default(), 1, (100, 100))
    };
    assert_eq!(wanted(&[(&ten, &busy), (&two, &quiet)]), 4);
    assert_eq!(wanted(&[(&two, &quiet), (&ten, &busy)]), 4);
    assert_eq!(wanted(&[(&two, &quiet)]), 0);
}

proptest! {
    /// Unless idle consumers are allowed, KEDA's HPA exceeds the number of partitions by one replica at most.
    #[test]
    fn keda_exceeds_the_partitions_by_one_replica_at_most(
        lags in proptest::collection::vec(0i64..1_000, 1..30),
        threshold in 1u64..200,
        even: bool,
    ) {
        let metadata = BTreeMap::from([
            ("topic".to_owned(), "orders".to_owned()),
            ("lagThreshold".to_owned(), threshold.to_string()),
            ("ensureEvenDistributionOfPartitions".to_owned(), even.to_string()),
        ]);
        let version = KedaVersion::NEWEST;
        let trigger = KafkaTrigger::parse(TriggerKind::Kafka, &metadata, version).unwrap();
        let partition = |lag: &i64| PartitionOffsets { committed: Ok(Some(0)), end: Ok(*lag) };
        let offsets = KedaOffsets {
            topics: [("orders".into(), lags.iter().map(partition).collect())].into(),
            has_members: true,
        };
        let reading = read(&trigger, &offsets, &mut PreviousOffsets::new(), version).unwrap();
        prop_assert_eq!(reading.lag, lags.iter().sum::<i64>());
        let replicas = hpa_replicas(&trigger, &reading, 1, (0, 0));
        let partitions = u32::try_from(lags.len()).unwrap();
        prop_assert!(replicas <= partitions + u32::from(!even));
        if even && reading.lag > 0 {
            prop_assert_eq!(partitions % replicas, 0);
        }
    }
}
