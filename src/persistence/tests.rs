//! That what is saved comes back, and that nothing else is taken for it.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::format::{decode, encode};
use super::location::StateFile;
use super::store::run;
use crate::leader_election::Leadership;
use crate::model::fixtures;
use crate::model::lag::assembly::{ClusterHistory, Scope};
use crate::model::lag::history::memory::SavedHistory;

/// A memory of so many groups on one partition each.
fn memory(groups: usize) -> SavedHistory {
    let mut history = ClusterHistory::default();
    for group in 0..groups {
        let rows = [(0, Ok(Some(5)), Ok(9))];
        let read = fixtures::read(Duration::ZERO, &format!("g{group:04}"), "t", &rows);
        history.apply(read, Scope::Some);
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
    let memory = memory(3);
    let (text, dropped) = encode(&memory, usize::MAX);
    assert_eq!((decode(&text).unwrap(), dropped), (memory, 0));
}

#[test]
fn drops_whole_groups_beyond_the_size_limit() {
    let memory = memory(100);
    let (whole, _) = encode(&memory, usize::MAX);
    for max_bytes in [whole.len() - 1, whole.len() / 2, 200] {
        let (text, dropped) = encode(&memory, max_bytes);
        assert!(text.len() <= max_bytes, "{} of {max_bytes}", text.len());
        let left = decode(&text).unwrap();
        assert_eq!(left.clusters["main"].groups.len(), 100 - dropped);
        assert!(dropped > 0);
    }
    let (nothing, dropped) = encode(&memory, 1);
    assert_eq!(
        (decode(&nothing).unwrap(), dropped),
        (SavedHistory::default(), 100)
    );
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

struct Kept {
    memories: watch::Sender<Option<Arc<SavedHistory>>>,
    recalled: oneshot::Receiver<SavedHistory>,
    task: tokio::task::JoinHandle<()>,
}

fn keeping(path: &Path) -> Kept {
    let (memories, told) = watch::channel(None);
    let (recall, recalled) = oneshot::channel();
    let task = tokio::spawn(run(StateFile::new(path), recall, told, Leadership::alone()));
    Kept {
        memories,
        recalled,
        task,
    }
}

#[tokio::test]
async fn state_file_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    let first = keeping(&path);
    assert_eq!(first.recalled.await.unwrap(), SavedHistory::default());
    first.memories.send_replace(Some(Arc::new(memory(1))));
    first.memories.send_replace(Some(Arc::new(memory(2))));
    // What was said last is kept also when the poller is gone right after.
    drop(first.memories);
    first.task.await.unwrap();
    assert_eq!(keeping(&path).recalled.await.unwrap(), memory(2));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn ignores_and_replaces_unreadable_state() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.json");
    fs::write(&path, b"\xff\xfe not ours").unwrap();
    let kept = keeping(&path);
    assert_eq!(kept.recalled.await.unwrap(), SavedHistory::default());
    kept.memories.send_replace(Some(Arc::new(memory(1))));
    drop(kept.memories);
    kept.task.await.unwrap();
    assert_eq!(decode(&fs::read_to_string(&path).unwrap()), Ok(memory(1)));
}

#[tokio::test(start_paused = true)]
async fn continues_after_a_failed_save() {
    let folder = tempfile::tempdir().unwrap();
    let kept = keeping(&folder.path().join("missing").join("state.json"));
    assert_eq!(kept.recalled.await.unwrap(), SavedHistory::default());
    kept.memories.send_replace(Some(Arc::new(memory(1))));
    drop(kept.memories);
    kept.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn retries_loading_until_the_poller_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    // A directory has a size and no text.
    let kept = keeping(folder.path());
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(!kept.task.is_finished());
    drop(kept.memories);
    kept.task.await.unwrap();
    assert!(kept.recalled.await.is_err());
}
