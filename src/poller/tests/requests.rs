//! Groups of requests that no HPA uses.

use super::*;

#[tokio::test]
async fn a_request_is_read_while_a_sweep_is_under_way() {
    let (open, held) = watch::channel(false);
    let running = start(Some(held));
    while running.plans.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    running.watch_keys.send(watch_key("g")).await.unwrap();
    let snapshot = until(&running.reader, has_read("g")).await;
    assert!(!snapshot.is_swept());
    open.send_replace(true);
    until(&running.reader, |snapshot| {
        snapshot.is_swept() && has_read("g")(snapshot)
    })
    .await;
}

#[tokio::test]
async fn a_second_request_for_a_group_causes_no_sweep() {
    let running = start(None);
    // The first sweep reads all groups that were requested before it.
    until(&running.reader, LagSnapshot::is_swept).await;
    running.watch_keys.send(watch_key("g")).await.unwrap();
    until(&running.reader, has_read("g")).await;
    running.watch_keys.send(watch_key("g")).await.unwrap();
    running.watch_keys.send(watch_key("h")).await.unwrap();
    until(&running.reader, has_read("h")).await;
    let plans = running.plans.lock().unwrap();
    let reads = plans
        .iter()
        .filter(|plan| plan.groups.iter().any(|g| g.group.as_str() == "g"))
        .count();
    assert_eq!(reads, 1);
}

#[tokio::test]
async fn requested_groups_are_bounded_and_the_latest_stay() {
    let running = start(None);
    for i in 0..=MAX_AD_HOC {
        let key = watch_key(&format!("g{i:03}"));
        running.watch_keys.send(key).await.unwrap();
    }
    let last = watch_key(&format!("g{MAX_AD_HOC:03}"));
    let is_watched = |snapshot: &LagSnapshot| snapshot.targets.ad_hoc().contains(&last);
    let snapshot = until(&running.reader, is_watched).await;
    let watched = snapshot.targets.ad_hoc();
    assert_eq!(watched.len(), MAX_AD_HOC);
    assert!(!watched.contains(&watch_key("g000")));
}
