//! Findings that other components report.

use super::*;
use crate::model::findings::{Finding, FindingCode};
use crate::model::units::hpa_key::HpaKey;

fn reported_findings(number: usize) -> ReportedFindings {
    let hpa = HpaKey::new("n", "h");
    let message = format!("number {number}");
    Arc::new([Finding::new(FindingCode::ZeroNotRecorded, hpa, message)].into())
}

/// Runs other tasks until this condition holds, without advancing the time.
async fn settle(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(10), "not so: {what}");
        tokio::task::yield_now().await;
    }
}

/// While the poller applies HPAs, a sweep ends and the next tick becomes due. `select!` then picks one of the two at
/// random, and the findings must be published in either case.
#[test]
fn each_whole_sweep_publishes_the_reported_findings() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .max_blocking_threads(1)
        .build();
    runtime.unwrap().block_on(async {
        let (open, held) = watch::channel(false);
        let (poller, reader, _plans) = poller(Some(held));
        let interval = poller.interval;
        let (hpas, hpas_in) = watch::channel(listed([]));
        let (found, reported_findings_in) = watch::channel(ReportedFindings::default());
        let running = tokio::spawn(poller.run(Inputs {
            reported_findings: reported_findings_in,
            ..inputs(hpas_in, mpsc::channel(1).1)
        }));
        // The source holds one receiver, and each sweep in progress another.
        let is_sweeping = || open.receiver_count() == 2;
        for number in 0..20 {
            settle("a sweep is under way", is_sweeping).await;
            found.send_replace(reported_findings(number));
            // Occupies the only blocking thread, and so holds up the poller.
            let (free, freed) = std::sync::mpsc::channel::<()>();
            let busy = tokio::task::spawn_blocking(move || freed.recv());
            tokio::time::advance(2 * HPA_CHANGE_INTERVAL).await;
            hpas.send_replace(listed([]));
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            open.send_replace(true);
            settle("the sweep has ended", || !is_sweeping()).await;
            open.send_replace(false);
            tokio::time::advance(interval).await;
            free.send(()).unwrap();
            busy.await.unwrap().unwrap();
            settle("the next sweep is under way", is_sweeping).await;
            assert_eq!(reader.latest().findings, reported_findings(number));
        }
        running.abort();
    });
}
