//! What takes long with many HPAs or partitions keeps no thread of the runtime: while all threads for blocking work are
//! busy, none of it is answered.

use std::sync::mpsc;

use super::*;

/// Requests each path while the only thread for blocking work is busy, and again when it is free.
fn are_made_off_the_runtime(router: impl FnOnce() -> (Router, Publisher), paths: &[&str]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (router, _publisher) = router();
        for path in paths {
            let (free, freed) = mpsc::channel::<()>();
            let busy = tokio::task::spawn_blocking(move || freed.recv());
            let asked = get(&router, path);
            let answered = tokio::time::timeout(Duration::from_millis(50), asked).await;
            assert!(answered.is_err(), "{path} was answered by the runtime");
            drop(free);
            assert!(busy.await.unwrap().is_err());
            assert_eq!(get(&router, path).await.0, 200, "{path}");
        }
    });
}

#[test]
fn pages_and_documents_are_made_off_the_runtime() {
    let step = Duration::from_secs(3600);
    are_made_off_the_runtime(
        || served_with_points(every_state(), step),
        &[
            "/",
            "/hpas/shop/capped",
            "/api/hpas",
            "/api/hpas/shop/capped",
            "/api/peaks",
            "/status",
        ],
    );
}

#[test]
fn explanations_are_made_off_the_runtime() {
    let without_history = || {
        let (publisher, reader) = snapshot_channel::channel(every_state());
        let options = AdminEndpointOptions::new(reader, Leadership::alone());
        (router(options), publisher)
    };
    are_made_off_the_runtime(
        without_history,
        &[
            "/explain?namespace=shop&hpa=capped",
            "/hpas/shop/capped",
            "/api/hpas/shop/capped",
        ],
    );
}
