//! Responses of Prometheus.

use serde_json::{Value, json};

use super::*;

fn one(name: &str, labels: Value, values: Value) -> Value {
    let mut metric = labels;
    metric["__name__"] = json!(name);
    json!({"metric": metric, "values": values})
}

fn response(result: Vec<Value>) -> String {
    json!({"status": "success", "data": {"resultType": "matrix", "result": result}}).to_string()
}

fn end(partition: &str, values: Value) -> Value {
    one(
        LOG_END,
        json!({"topic": "orders", "partition": partition}),
        values,
    )
}

fn committed(group: &str, values: Value) -> Value {
    one(
        COMMITTED,
        json!({"topic": "orders", "partition": "0", "consumergroup": group}),
        values,
    )
}

fn read(text: &str, group: Option<&str>) -> Result<Trace, String> {
    let selection = SeriesSelection {
        group,
        cluster: None,
    };
    trace_of_series(text, &selection).map_err(|error| error.to_string())
}

#[test]
fn series_of_exporters_become_samples() {
    let text = response(vec![
        end("0", json!([[1000, "10"], [1015.5, "1.2e+01"]])),
        // Begins later, and is there twice.
        end("1", json!([[1015.5, "7"]])),
        end("1", json!([[1015.5, "6"]])),
        one(
            LOG_END,
            json!({"topic": "others", "partition": "0"}),
            json!([[1000, "1"]]),
        ),
    ]) + "\n"
        + &response(vec![
            committed("billing", json!([[1000, "8"], [1015.5, "9"]])),
            committed("other", json!([[1000, "1"]])),
            one(
                MEMBERS,
                json!({"consumergroup": "billing"}),
                json!([[1015.5, "3"], [1030, "3"]]),
            ),
        ]);
    let trace = read(&text, Some("billing")).unwrap();
    assert_eq!(trace.header, TraceHeader::new("billing", ""));
    let orders = |positions: Vec<_>| BTreeMap::from([("orders".to_owned(), positions)]);
    let expected = [
        TraceSample {
            at: 1_000_000,
            members: None,
            stable: None,
            topics: orders(vec![(Some(10), Some(8)), (None, None)]),
        },
        TraceSample {
            at: 1_015_500,
            members: Some(3),
            stable: None,
            topics: orders(vec![(Some(12), Some(9)), (Some(7), None)]),
        },
    ];
    assert_eq!(trace.samples, expected);
}

#[test]
fn errors_name_what_is_missing() {
    let (a, b) = (
        committed("a", json!([[1, "1"]])),
        committed("b", json!([[1, "1"]])),
    );
    let ends = || end("0", json!([[1, "1"]]));
    let vector = json!({"status": "success", "data": {"resultType": "vector", "result": []}});
    let failure = json!({"status": "error", "error": "query timed out"});
    let query = series_query(&SeriesSelection::default());
    for (text, group, expected) in [
        (
            "{\n\"status\": 5}".to_owned(),
            None,
            "line 2: not a response of Prometheus to a range query: invalid type: integer `5`, expected a string (column 11)",
        ),
        (
            String::new(),
            None,
            &*format!("no series {COMMITTED}; export them with the query\n  {query}"),
        ),
        (
            vector.to_string(),
            None,
            "a vector instead of a range of values; ask /api/v1/query_range with start, end and step",
        ),
        (
            failure.to_string(),
            None,
            "Prometheus answered an error: query timed out",
        ),
        (
            response(vec![json!({"metric": {}, "values": []})]),
            None,
            "series 1 has no name: functions of PromQL remove it; export the metrics themselves",
        ),
        (
            response(vec![json!({"metric": {"__name__": "x"}, "values": [[1]]})]),
            None,
            "line 1: not a response of Prometheus to a range query: invalid length 1, expected a time and a value (column 59)",
        ),
        (
            response(vec![
                json!({"metric": {"__name__": "x"}, "value": [1, "1"]}),
            ]),
            None,
            "series 1 has no values",
        ),
        (
            response(vec![a.clone(), b.clone(), ends()]),
            None,
            "series of more than one group: a, b; choose one with --group",
        ),
        (
            response(vec![a.clone(), ends()]),
            Some("c"),
            "--group c: there are only series of group a",
        ),
        (
            response(vec![
                a.clone(),
                one(LOG_END, json!({"topic": "x", "partition": "0"}), json!([])),
            ]),
            None,
            &format!(
                "no series {LOG_END} of topic orders, which group a reads; export them with the query\n  {query}"
            ),
        ),
        (
            response(vec![a.clone(), end("all", json!([]))]),
            None,
            "series kafka_topic_partition_current_offset{partition=\"all\",topic=\"orders\"}: the label partition has to \
             be a number below 10000",
        ),
        (
            response(vec![a, end("0", json!([[1, "NaN"]]))]),
            None,
            "series kafka_topic_partition_current_offset{partition=\"0\",topic=\"orders\"}: NaN at 1 is not a count; \
             export the metric itself, without rate() or other functions",
        ),
    ] {
        assert_eq!(read(&text, group).unwrap_err(), expected, "{text}");
    }
}

/// One series with a high partition and many times would have the room of all partitions at each of them.
#[test]
fn series_end_where_the_trace_would_take_too_much_memory() {
    let times = MAX_TRACE_POSITIONS / MAX_TRACE_PARTITIONS + 1;
    let values: Vec<Value> = (0..times).map(|at| json!([at, "1"])).collect();
    let last = (MAX_TRACE_PARTITIONS - 1).to_string();
    let text = response(vec![
        end(&last, Value::Array(values)),
        committed("billing", json!([[1, "1"]])),
    ]);
    let found = read(&text, None).unwrap_err();
    assert!(found.starts_with("the trace up to here has"), "{found}");
    // Many topics, each with few partitions.
    let mut all = Vec::new();
    let values: Vec<Value> = (0..20_000).map(|at| json!([at, "1"])).collect();
    for topic in 0..20 {
        let labels = |name: &str| json!({"topic": format!("{name}{topic}"), "partition": "19"});
        all.push(one(LOG_END, labels("t"), Value::Array(values.clone())));
        let mut of_group = labels("t");
        of_group["consumergroup"] = json!("billing");
        all.push(one(COMMITTED, of_group, json!([[1, "1"]])));
    }
    let found = read(&response(all), None).unwrap_err();
    assert!(found.starts_with("the trace up to here has"), "{found}");
}

#[test]
fn the_query_names_the_group() {
    let selection = SeriesSelection {
        group: Some("a\"b"),
        cluster: Some("main"),
    };
    assert_eq!(
        series_query(&selection),
        "{__name__=~\"kafka_consumergroup_current_offset|kafka_consumergroup_members\",consumergroup=\"a\\\"b\",cluster=\"main\"} \
         or ({__name__=\"kafka_topic_partition_current_offset\",cluster=\"main\"} and on (topic) \
         kafka_consumergroup_current_offset{consumergroup=\"a\\\"b\",cluster=\"main\"})"
    );
}
