//! What survives a restart.

use super::*;
use crate::model::lag::history::memory::SavedHistory;

#[tokio::test]
async fn saved_history_is_loaded_before_the_first_sweep_and_saved_at_the_end() {
    let (poller, reader, _plans) = poller(None);
    let (sender, loaded) = tokio::sync::oneshot::channel();
    let (histories, mut saved) = watch::channel(None);
    let (stop, stopping) = watch::channel(false);
    let poller = poller.with_history(HistoryStore {
        loaded,
        histories,
        stop: stopping,
    });
    let (_hpas, hpas) = watch::channel(listed([hpa("h", "g")]));
    let (_watch_keys, watch_keys) = mpsc::channel(1);
    let running = tokio::spawn(poller.run(inputs(hpas, watch_keys)));
    let known = r#"{"version":1,"saved":1000,"clusters":{"main":{"topics":{},"groups":
        {"g":{"assignor":"sticky","topics":{"t":{"offsets":[0],"since":[500]}}}}}}}"#;
    let known: SavedHistory = serde_json::from_str(known).unwrap();
    assert!(sender.send(known).is_ok());
    let snapshot = until(&reader, has_read("g")).await;
    let group = snapshot.clusters["main"].groups.get("g").unwrap();
    assert_eq!(group.remembered.assignor.as_deref(), Some("sticky"));
    stop.send_replace(true);
    running.await.unwrap().unwrap();
    let saved = saved.borrow_and_update().clone().unwrap();
    let saved = serde_json::to_value(&saved.clusters["main"].groups["g"]).unwrap();
    assert_eq!(saved["topics"]["t"]["offsets"], serde_json::json!([0]));
    // The offset has not moved since long before this process: 500 seconds before 1000.
    assert!(saved["topics"]["t"]["since"][0].as_u64().unwrap() > 1_000_000);
}

#[tokio::test]
async fn nothing_is_saved_before_the_saved_history_is_loaded() {
    let (poller, _reader, _plans) = poller(None);
    let (_sender, loaded) = tokio::sync::oneshot::channel();
    let (histories, saved) = watch::channel(None);
    let (stop, stopping) = watch::channel(false);
    let poller = poller.with_history(HistoryStore {
        loaded,
        histories,
        stop: stopping,
    });
    let (_hpas, hpas) = watch::channel(None);
    let (_watch_keys, watch_keys) = mpsc::channel(1);
    let running = tokio::spawn(poller.run(inputs(hpas, watch_keys)));
    stop.send_replace(true);
    running.await.unwrap().unwrap();
    assert!(saved.borrow().is_none());
}
