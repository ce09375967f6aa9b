//! Evaluations of a snapshot.

use super::*;
use crate::model::targets::metric_query::MetricQuery;
use crate::model::units::metric::Metric;

#[tokio::test]
async fn a_publication_evaluates_only_changed_targets() {
    let running = start(None);
    until(&running.reader, LagSnapshot::is_swept).await;
    let two = [hpa("a", "a"), hpa("b", "b")];
    running.hpas.send_replace(listed(two.clone()));
    until(&running.reader, |snapshot| {
        has_read("a")(snapshot) && has_read("b")(snapshot)
    })
    .await;
    let before = running.reader.latest().evaluations.metrics_evaluated();
    let three = two.into_iter().chain([hpa("c", "c")]);
    running.hpas.send_replace(listed(three));
    let snapshot = until(&running.reader, has_read("c")).await;
    // Once before the group is read, and once after.
    assert_eq!(snapshot.evaluations.metrics_evaluated() - before, 2);
}

#[tokio::test]
async fn a_query_that_was_answered_once_is_evaluated_with_every_snapshot() {
    let running = start(None);
    until(&running.reader, LagSnapshot::is_swept).await;
    running.watch_keys.send(watch_key("g")).await.unwrap();
    until(&running.reader, has_read("g")).await;
    let selector = Selector::parse("group=g,topic=t").unwrap();
    let query = MetricQuery {
        namespace: "n",
        metric: LAG_METRIC,
        selector: &selector,
    };
    let ad_hoc = query.to_ad_hoc(Metric::Lag);
    running.queries.send(ad_hoc).await.unwrap();
    while running.queries.capacity() < 8 {
        tokio::task::yield_now().await;
    }
    running.hpas.send_replace(listed([]));
    let evaluated = |snapshot: &LagSnapshot| snapshot.evaluations.of_ad_hoc(&query).is_some();
    let snapshot = until(&running.reader, evaluated).await;
    let now = Moment::now();
    let value = snapshot.at(&now).answer(&query).unwrap();
    assert_eq!(value.lag.map(|lag| lag.0), Some(7));
}
