//! The format of traces.

use proptest::prelude::*;

use super::*;

const HEADER: &str = "{\"lagwise_trace\":1,\"group\":\"orders\",\"cluster\":\"main\"}\n";

fn problem(text: &str) -> String {
    Trace::parse(text).unwrap_err().to_string()
}

#[test]
fn a_line_is_compact() {
    let sample = TraceSample {
        at: 1_764_572_400_123,
        members: Some(3),
        stable: None,
        topics: BTreeMap::from([("orders".to_owned(), vec![(Some(7), Some(5)), (None, None)])]),
    };
    assert_eq!(
        trace_line(&sample).unwrap(),
        "{\"at\":1764572400123,\"members\":3,\"stable\":null,\"topics\":{\"orders\":[[7,5],[null,null]]}}\n"
    );
    assert_eq!(
        trace_line(&TraceHeader::new("orders", "main")).unwrap(),
        HEADER
    );
}

#[test]
fn errors_name_the_line_and_the_remedy() {
    let sample =
        |at: u64| format!("{{\"at\":{at},\"members\":1,\"stable\":true,\"topics\":{{}}}}\n");
    for (text, expected) in [
        (
            String::new(),
            "the file is empty; lagwise record writes traces",
        ),
        (
            "\n\n".to_owned(),
            "the file is empty; lagwise record writes traces",
        ),
        (
            "time,lag\n".to_owned(),
            "line 1: not the first line of a trace (expected ident at column 2); lagwise record writes traces, and \
             --from-prometheus reads series of Prometheus",
        ),
        (
            HEADER.replace(":1,", ":2,"),
            "line 1: a trace of version 2, and this lagwise reads version 1; use the lagwise that recorded it",
        ),
        (
            format!("{HEADER}{}x\n", sample(1)),
            "line 3: not a sample (expected value at column 1)",
        ),
        (
            format!("{HEADER}\n{{\"at\":-1}}\n"),
            "line 3: not a sample (invalid value: integer `-1`, expected u64 at column 8)",
        ),
        (
            format!("{HEADER}{}{}", sample(9), sample(9)),
            "line 3: its time 9 is not after 9, that of the sample before; sort the lines by \"at\"",
        ),
        (
            format!(
                "{HEADER}{{\"at\":1,\"members\":1,\"stable\":true,\"topics\":{{\"a\":[[-3,null]]}}}}\n"
            ),
            "line 2: topic a has the offset -3; offsets begin at 0, and null means unknown",
        ),
    ] {
        assert_eq!(problem(&text), expected);
    }
    let topics: String = (0..=MAX_TRACE_PARTITIONS)
        .map(|number| format!("\"t{number}\":[],"))
        .collect();
    let positions = "[1,1],".repeat(MAX_TRACE_PARTITIONS);
    for (topics, expected) in [
        (format!("\"a\":[{positions}[1,1]]"), "10000 partitions"),
        (format!("{topics}\"a\":[]"), "10000 topics"),
    ] {
        let text = format!("{HEADER}{{\"at\":1,\"topics\":{{{topics}}}}}\n");
        let found = problem(&text);
        let begin = format!("line 2: not a sample (more than {expected}, which is the most");
        assert!(found.starts_with(&begin), "{found}");
    }
}

#[test]
fn a_trace_ends_where_it_would_take_too_much_memory() {
    // Short lines, of which each takes many times its length.
    let empty = MAX_TRACE_POSITIONS / SAMPLE_POSITIONS;
    let lines = |count: usize, topics: &str| -> String {
        let line = |at| format!("{{\"at\":{at},\"topics\":{{{topics}}}}}\n");
        (0..count).map(line).collect()
    };
    let text = HEADER.to_owned() + &lines(empty, "");
    assert_eq!(Trace::parse(&text).unwrap().samples.len(), empty);
    let found = problem(&(text + "{\"at\":99999999,\"topics\":{}}\n"));
    let begin = format!("line {}: the trace up to here has more than", empty + 2);
    assert!(found.starts_with(&begin), "{found}");
    // Few long ones.
    let positions = "[0,0],".repeat(MAX_TRACE_PARTITIONS - 1) + "[0,0]";
    let text = HEADER.to_owned() + &lines(800, &format!("\"a\":[{positions}]"));
    assert!(text.len() < usize::try_from(MAX_TRACE_BYTES).unwrap());
    assert!(problem(&text).starts_with("line 800: the trace"));
}

fn samples() -> impl Strategy<Value = Vec<TraceSample>> {
    let offset = || prop::option::of(0..i64::MAX);
    let topics = prop::collection::btree_map(
        "[a-z]{1,4}",
        prop::collection::vec((offset(), offset()), 0..4),
        0..3,
    );
    let sample = (
        1u64..1000,
        prop::option::of(0u32..9),
        prop::option::of(any::<bool>()),
        topics,
    );
    prop::collection::vec(sample, 1..8).prop_map(|all| {
        let mut at = 0;
        let sample = |(step, members, stable, topics)| {
            at += step;
            TraceSample {
                at,
                members,
                stable,
                topics,
            }
        };
        all.into_iter().map(sample).collect()
    })
}

proptest! {
    /// Wherever the writer was interrupted, the earlier samples are read, and writing continues after them.
    #[test]
    fn a_truncated_line_loses_no_other_line(samples in samples(), cut in any::<prop::sample::Index>()) {
        let lines: Vec<String> = samples.iter().map(|sample| trace_line(sample).unwrap()).collect();
        let text = HEADER.to_owned() + &lines.concat();
        let whole = Trace::parse(&text).unwrap();
        prop_assert_eq!(&whole.samples, &samples);
        prop_assert_eq!(whole.whole_bytes, text.len());

        let last = lines.last().unwrap();
        let kept = text.len() - last.len() + cut.index(last.len());
        let read = Trace::parse(&text[..kept]).unwrap();
        // Without its line break only, the last sample is complete.
        let is_complete = kept == text.len() - 1;
        let expected = samples.len() - usize::from(!is_complete);
        prop_assert_eq!(read.samples.as_slice(), &samples[..expected]);
        prop_assert_eq!(&text[..read.whole_bytes], if is_complete { &text[..kept] } else { &text[..text.len() - last.len()] });
    }
}
