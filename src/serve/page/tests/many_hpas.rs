//! Many HPAs are shown on several pages, each within a bound of time.

use super::*;
use crate::serve::history::HISTORY_STEP;

/// Many HPAs, each with a separate group on 36 partitions.
fn crowd(count: usize) -> LagSnapshot {
    let rows: Vec<_> = (0..36).map(|n| ok(0, n)).collect();
    let names = || (0..count).map(|n| (format!("h{n:04}"), format!("g{n:04}")));
    let hpas: Vec<_> = names()
        .map(|(name, group)| hpa(&name, &group, "orders"))
        .collect();
    let reads = names().map(|(_, group)| fixtures::read(Duration::ZERO, &group, "orders", &rows));
    snapshot(&hpas, reads.collect())
}

#[tokio::test]
async fn many_hpas_are_on_several_pages() {
    let (router, _publisher) = served(crowd(250));
    let names = |html: &str| -> Vec<String> {
        let rows = html.split("data-href=\"/hpas/shop/").skip(1);
        rows.map(|row| row.split('"').next().unwrap().to_owned())
            .collect()
    };
    let mut all = Vec::new();
    let mut address = "/?sort=name".to_owned();
    loop {
        let (code, html) = get(&router, &address).await;
        assert_eq!(code, 200);
        // The counters count all of them.
        assert!(html.contains("<b>250</b> all"), "{html}");
        all.extend(names(&html));
        let Some((before, _)) = html.split_once("\" rel=\"next\"") else {
            assert!(html.contains("201–250 of 250 HPAs"), "{html}");
            break;
        };
        address = before
            .rsplit_once("href=\"")
            .unwrap()
            .1
            .replace("&amp;", "&");
    }
    assert_eq!(all.len(), 250);
    assert!(all.is_sorted(), "{all:?}");
    let (_, last) = get(&router, "/?page=99&sort=name").await;
    assert_eq!(names(&last), all[200..]);
    let (_, few) = get(&router, "/?q=h0001").await;
    assert!(
        names(&few) == ["h0001"] && !few.contains("class=\"pager\""),
        "{few}"
    );
}

/// A page does not grow with the number of HPAs. Prints the cost of an overview of many HPAs and of few.
#[tokio::test]
#[allow(clippy::print_stdout, reason = "a figure for whoever runs it")]
async fn an_overview_of_a_thousand_hpas() {
    let mut spent = Vec::new();
    for count in [10, 100, 1_000] {
        // As seldom as in a daemon: a query waits while a point is recorded.
        let (router, _publisher) = served_with_points(crowd(count), HISTORY_STEP);
        let mut cost = Vec::new();
        for path in ["/", "/hpas/shop/h0007"] {
            let mut best = Duration::MAX;
            let mut bytes = 0;
            for _ in 0..5 {
                let started = Instant::now();
                let (code, html) = get(&router, path).await;
                best = best.min(started.elapsed());
                assert_eq!(code, 200);
                bytes = html.len();
            }
            cost.push((best, bytes));
        }
        spent.push(cost);
    }
    for (place, what) in ["overview", "page of one HPA"].into_iter().enumerate() {
        let [(few, _), (hundred, small), (many, large)] = [0, 1, 2].map(|n| spent[n][place]);
        println!(
            "{what} among 1,000 HPAs with 36 partitions: {many:?}, {:.1} times that among 10 and {:.1} times that among \
             100; {large} bytes",
            many.as_secs_f64() / few.as_secs_f64(),
            many.as_secs_f64() / hundred.as_secs_f64(),
        );
        assert!(
            large < small + small / 5,
            "{what}: {small} bytes, then {large}"
        );
    }
}
