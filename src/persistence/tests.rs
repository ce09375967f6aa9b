//! A saved state is loaded, and other data is not mistaken for one.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::format::{decode, encode};
use super::location::{StateFile, StateLocation, StorageError};
use super::store::run;
use crate::leader_election::{Leadership, Term};
use crate::model::fixtures;
use crate::model::lag::assembly::{ClusterHistory, Scope};
use crate::model::lag::history::memory::SavedHistory;
use crate::model::lag::history::saved_policy::SavedPolicy;
use crate::telemetry::testing::counter_value;

/// The saved history of this number of groups on one partition each.
fn history_of(groups: usize) -> SavedHistory {
    let mut history = ClusterHistory::default();
    for group in 0..groups {
        let rows = [(0, Ok(Some(5)), Ok(9))];
        let read = fixtures::read(Duration::ZERO, &format!("g{group:04}"), "t", &rows);
        history.apply(read, Scope::Partial);
    }
    let exported = history.export(&fixtures::at(Duration::from_secs(1)));
    SavedHistory {
        saved: 1_714_979_290,
        clusters: [("main".to_owned(), exported)].into(),
        ..SavedHistory::default()
    }
}

#[test]
fn saved_state_round_trips() {
    let history = history_of(3);
    let (text, dropped) = encode(&history, usize::MAX);
    assert_eq!((decode(&text).unwrap(), dropped), (history, 0));
}

#[test]
fn drops_whole_groups_beyond_the_size_limit() {
    let history = history_of(100);
    let (whole, _) = encode(&history, usize::MAX);
    for max_bytes in [whole.len() - 1, whole.len() / 2, 200] {
        let (text, dropped) = encode(&history, max_bytes);
        assert!(text.len() <= max_bytes, "{} of {max_bytes}", text.len());
        let left = decode(&text).unwrap();
        assert_eq!(left.clusters["main"].groups.len(), 100 - dropped);
        assert!(dropped > 0);
    }
    let (nothing, dropped) = encode(&history, 1);
    assert_eq!(
        (decode(&nothing).unwrap(), dropped),
        (SavedHistory::default(), 100)
    );
}

#[test]
fn policies_of_groups_without_history_do_not_crowd_out_the_rest() {
    let mut history = history_of(3);
    let (whole, _) = encode(&history, usize::MAX);
    let policies = &mut history.clusters.get_mut("main").unwrap().policies;
    policies.resize(100, SavedPolicy::default());
    let (text, dropped) = encode(&history, whole.len());
    assert_eq!((text, dropped), (whole, 0));
}

#[test]
fn policies_of_one_group_do_not_crowd_out_other_groups() {
    let of = |group: &str, hpa: usize| -> SavedPolicy {
        let policy = serde_json::json!({
            "namespace": "shop", "hpa": format!("h{hpa:05}"), "metric": 0, "group": group,
        });
        serde_json::from_value(policy).unwrap()
    };
    // Policies of one group take all the memory that the others leave.
    for (many, group) in [(3000, "g0007"), (300, "g0000")] {
        let mut history = history_of(100);
        let policies = &mut history.clusters.get_mut("main").unwrap().policies;
        policies.extend((0..100).map(|number| of(&format!("g{number:04}"), number)));
        let (fair, _) = encode(&history, usize::MAX);
        let policies = &mut history.clusters.get_mut("main").unwrap().policies;
        policies.extend((0..many).map(|number| of(group, number)));
        let (text, dropped) = encode(&history, fair.len());
        assert_eq!(dropped, 1, "{} of {}", text.len(), fair.len());
        let left = decode(&text).unwrap();
        assert!(!left.clusters["main"].groups.contains_key(group));
        assert_eq!(left.clusters["main"].policies.len(), 99);
    }
}

/// What [`encode`] returns, by its plain definition: group after group with its policies.
fn encoded_plainly(history: &SavedHistory, max_bytes: usize) -> (String, usize) {
    let json = |history: &SavedHistory| serde_json::to_string(history).unwrap();
    let mut left = history.clone();
    if json(&left).len() <= max_bytes {
        return (json(&left), 0);
    }
    left.drop_policies_without_group();
    let (mut dropped, mut excess) = (0, 0_usize);
    for (cluster, group) in history.least_important_first() {
        if excess == 0 {
            excess = json(&left).len().saturating_sub(max_bytes);
        }
        if excess == 0 {
            return (json(&left), dropped);
        }
        let known = &left.clusters[cluster.as_str()];
        let policies = known.policies.iter().filter(|p| p.group() == group);
        let of_policies = policies.map(|policy| serde_json::to_string(policy).unwrap().len() + 1);
        let of_group = serde_json::to_string(&known.groups[&group]).unwrap().len();
        excess = excess.saturating_sub(of_group + of_policies.sum::<usize>());
        left.drop_groups(&[(cluster, [group].into())].into());
        dropped += 1;
    }
    match json(&left) {
        text if text.len() <= max_bytes => (text, dropped),
        _ => (json(&SavedHistory::default()), dropped),
    }
}

proptest::proptest! {
    #[test]
    fn a_state_that_is_too_large_loses_groups_one_after_another(
        groups in proptest::collection::vec((0_usize..20, 0..4, 1..6_i64, 0..3), 0..15),
        policies in proptest::collection::vec((0_usize..2, 0_usize..22, "[a-z]{1,30}"), 0..40),
        percent in 0..110_usize,
    ) {
        let mut histories = [ClusterHistory::default(), ClusterHistory::default()];
        for (group, topic, partitions, cluster) in groups {
            let rows: Vec<_> = (0..partitions).map(|p| (0, Ok(Some(5 + p)), Ok(9 + p))).collect();
            let group = format!("g{group}");
            let read = fixtures::read(Duration::ZERO, &group, &format!("t{topic}"), &rows);
            histories[usize::from(cluster == 0)].apply(read, Scope::Partial);
        }
        let exported = histories.map(|mut history| history.export(&fixtures::at(Duration::from_secs(1))));
        let clusters = ["main", "other"].map(str::to_owned).into_iter().zip(exported);
        let mut history = SavedHistory { clusters: clusters.collect(), ..SavedHistory::default() };
        for (cluster, group, hpa) in policies {
            let policy = serde_json::json!({
                "namespace": "shop", "hpa": hpa, "metric": 0, "group": format!("g{group}"),
            });
            let known = history.clusters.get_mut(["main", "other"][cluster]).unwrap();
            known.policies.push(serde_json::from_value(policy).unwrap());
        }
        let (whole, _) = encode(&history, usize::MAX);
        let max_bytes = whole.len() * percent / 100;
        proptest::prop_assert_eq!(encode(&history, max_bytes), encoded_plainly(&history, max_bytes));
    }
}

#[test]
fn rejects_other_versions_and_garbage() {
    for (text, reason) in [
        ("", "EOF while parsing"),
        ("[]", "invalid"),
        ("{\"version\":2,\"saved\":\"new\"}", "it has version 2"),
        ("{\"version\":1}", "missing field"),
        ("\u{fffd}\u{fffd}", "expected value"),
    ] {
        let error = decode(text).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
}

/// A store that runs, and the poller's ends of its channels.
struct RunningStore {
    histories: watch::Sender<Option<Arc<SavedHistory>>>,
    loaded: oneshot::Receiver<SavedHistory>,
    task: tokio::task::JoinHandle<()>,
}

fn start(location: impl StateLocation, leadership: Leadership) -> RunningStore {
    let (histories, received) = watch::channel(None);
    let (sender, loaded) = oneshot::channel();
    let task = tokio::spawn(run(location, sender, received, leadership));
    RunningStore {
        histories,
        loaded,
        task,
    }
}

fn start_file(path: &Path) -> RunningStore {
    start(StateFile::new(path), Leadership::alone())
}

#[tokio::test]
async fn state_file_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    let first = start_file(&path);
    assert_eq!(first.loaded.await.unwrap(), SavedHistory::default());
    first.histories.send_replace(Some(Arc::new(history_of(1))));
    first.histories.send_replace(Some(Arc::new(history_of(2))));
    // The last history is saved even if the poller ends right after.
    drop(first.histories);
    first.task.await.unwrap();
    assert_eq!(start_file(&path).loaded.await.unwrap(), history_of(2));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn ignores_and_replaces_unreadable_state() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    fs::write(&path, b"\xff\xfe not ours").unwrap();
    let store = start_file(&path);
    assert_eq!(store.loaded.await.unwrap(), SavedHistory::default());
    store.histories.send_replace(Some(Arc::new(history_of(1))));
    drop(store.histories);
    store.task.await.unwrap();
    assert_eq!(
        decode(&fs::read_to_string(&path).unwrap()),
        Ok(history_of(1))
    );
}

#[tokio::test(start_paused = true)]
async fn continues_after_a_failed_save() {
    let folder = tempfile::tempdir().unwrap();
    let store = start_file(&folder.path().join("missing").join("state.json"));
    assert_eq!(store.loaded.await.unwrap(), SavedHistory::default());
    store.histories.send_replace(Some(Arc::new(history_of(1))));
    drop(store.histories);
    store.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn retries_loading_until_the_poller_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    // A directory has a size and no text.
    let store = start_file(folder.path());
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(!store.task.is_finished());
    drop(store.histories);
    store.task.await.unwrap();
    assert!(store.loaded.await.is_err());
}

/// A location whose first attempts to load and to save never end.
#[derive(Clone, Default)]
struct HangingLocation {
    hanging_loads: usize,
    hanging_saves: usize,
    loads: Arc<AtomicUsize>,
    saves: Arc<AtomicUsize>,
}

impl StateLocation for HangingLocation {
    fn description(&self) -> String {
        "test".to_owned()
    }

    fn max_bytes(&self) -> usize {
        usize::MAX
    }

    async fn load(&self) -> Result<Option<String>, StorageError> {
        if self.loads.fetch_add(1, Ordering::Relaxed) < self.hanging_loads {
            std::future::pending::<()>().await;
        }
        Ok(None)
    }

    async fn save(&self, _: String) -> Result<(), StorageError> {
        if self.saves.fetch_add(1, Ordering::Relaxed) < self.hanging_saves {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn save_that_hangs_does_not_keep_later_ones_from_being_tried() {
    let location = HangingLocation {
        hanging_saves: 2,
        ..HangingLocation::default()
    };
    let mut store = start(location.clone(), Leadership::alone());
    assert_eq!((&mut store.loaded).await.unwrap(), SavedHistory::default());
    for _ in 0..3 {
        store.histories.send_replace(Some(Arc::new(history_of(1))));
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    assert_eq!(location.saves.load(Ordering::Relaxed), 3);
    drop(store.histories);
    store.task.await.unwrap();
}

/// A location whose saves fail, for one of these reasons after the other.
struct FullLocation {
    reasons: &'static [&'static str],
    saves: AtomicUsize,
}

impl StateLocation for FullLocation {
    fn description(&self) -> String {
        "test".to_owned()
    }

    fn max_bytes(&self) -> usize {
        usize::MAX
    }

    async fn load(&self) -> Result<Option<String>, StorageError> {
        Ok(None)
    }

    async fn save(&self, _: String) -> Result<(), StorageError> {
        let save = self.saves.fetch_add(1, Ordering::Relaxed);
        let reason = self.reasons[save % self.reasons.len()];
        Err(StorageError(reason.to_owned()))
    }
}

#[tokio::test(start_paused = true)]
async fn every_failed_save_is_counted() {
    for reasons in [&["disk full"][..], &["disk full", "disk full", "read-only"]] {
        let location = FullLocation {
            reasons,
            saves: AtomicUsize::new(0),
        };
        let mut store = start(location, Leadership::alone());
        (&mut store.loaded).await.unwrap();
        let failed = || counter_value("lagwise_state_saves_total", "failed");
        let before = failed();
        // Many more than fail in the other tests, which may run meanwhile.
        for _ in 0..50 {
            store.histories.send_replace(Some(Arc::new(history_of(1))));
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        assert!(failed() - before >= 50.0, "{reasons:?}");
        drop(store.histories);
        store.task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn load_that_hangs_is_tried_again() {
    let location = HangingLocation {
        hanging_loads: 3,
        ..HangingLocation::default()
    };
    let store = start(location.clone(), Leadership::alone());
    assert_eq!(store.loaded.await.unwrap(), SavedHistory::default());
    assert_eq!(location.loads.load(Ordering::Relaxed), 4);
}

#[tokio::test(start_paused = true)]
async fn save_ends_with_the_term() {
    let location = HangingLocation {
        hanging_saves: 1,
        ..HangingLocation::default()
    };
    let term = Term {
        number: 3,
        until: Some(Instant::now() + Duration::from_secs(2)),
    };
    let store = start(
        location.clone(),
        Leadership::new(watch::channel(Some(term)).1),
    );
    store.loaded.await.unwrap();
    let began = tokio::time::Instant::now();
    store.histories.send_replace(Some(Arc::new(history_of(1))));
    drop(store.histories);
    store.task.await.unwrap();
    assert_eq!(location.saves.load(Ordering::Relaxed), 1);
    assert!(
        began.elapsed() <= Duration::from_millis(2010),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn file_system_that_hangs_occupies_one_thread() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    // Opening a named pipe for writing blocks until another process opens it for reading.
    let pipe = folder.path().join("state.json.new");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let file = StateFile::new(&path);
    let other = file.clone();
    let hanging = tokio::spawn(async move { other.save("a".to_owned()).await });
    // The task runs up to its first wait, that for the thread.
    tokio::task::yield_now().await;
    for _ in 0..3 {
        let error = file.save("b".to_owned()).await.unwrap_err();
        assert!(error.0.contains("has not ended"), "{error}");
    }
    let read = tokio::task::spawn_blocking(move || fs::read(pipe));
    assert_eq!(read.await.unwrap().unwrap(), b"a");
    // A pipe cannot be synchronized with a disk.
    hanging.await.unwrap().unwrap_err();
}
