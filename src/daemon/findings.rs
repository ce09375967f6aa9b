//! Joins the findings that components report to the poller.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Tasks, options};
use crate::config::Config;
use crate::model::findings::ReportedFindings;
use crate::serve::upstream::Upstream;

/// Opens the upstream, if one is configured, and joins the findings about its files with `others`.
///
/// # Errors
/// Unusable certificates.
pub(super) fn open_upstream(
    config: &Config,
    others: watch::Receiver<ReportedFindings>,
    tasks: &mut Tasks,
) -> anyhow::Result<(Option<Upstream>, watch::Receiver<ReportedFindings>)> {
    let Some(options) = options::upstream(config) else {
        return Ok((None, others));
    };
    let upstream = Upstream::new(options)?;
    let findings = join(others, upstream.findings(), tasks);
    Ok((Some(upstream), findings))
}

/// Joins two sources of findings, and follows their changes.
pub(super) fn join(
    first: watch::Receiver<ReportedFindings>,
    second: watch::Receiver<ReportedFindings>,
    tasks: &mut Tasks,
) -> watch::Receiver<ReportedFindings> {
    let (joined, receiver) = watch::channel(both(&first, &second));
    tasks.spawn(async move {
        publish(first, second, joined).await;
        ("findings", Ok(()))
    });
    receiver
}

fn both(
    first: &watch::Receiver<ReportedFindings>,
    second: &watch::Receiver<ReportedFindings>,
) -> ReportedFindings {
    let (first, second) = (first.borrow().clone(), second.borrow().clone());
    match (first.is_empty(), second.is_empty()) {
        (_, true) => first,
        (true, false) => second,
        (false, false) => Arc::new(first.union(&second).cloned().collect()),
    }
}

async fn publish(
    mut first: watch::Receiver<ReportedFindings>,
    mut second: watch::Receiver<ReportedFindings>,
    joined: watch::Sender<ReportedFindings>,
) {
    let (mut first_open, mut second_open) = (true, true);
    loop {
        tokio::select! {
            changed = first.changed(), if first_open => first_open = changed.is_ok(),
            changed = second.changed(), if second_open => second_open = changed.is_ok(),
            else => return std::future::pending().await,
        }
        joined.send_replace(both(&first, &second));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::diagnostics::setting_findings::find_unusable_upstream_file;

    #[tokio::test]
    async fn both_are_published_whichever_changes_and_after_one_has_ended() {
        let found = |keys: &[&str]| -> ReportedFindings {
            let keys = keys.iter().map(|key| Some(*key));
            let findings = keys.map(|key| find_unusable_upstream_file(key, "it is empty"));
            Arc::new(findings.collect())
        };
        let (first_in, first) = watch::channel(found(&["a"]));
        let (second_in, second) = watch::channel(found(&[]));
        let mut tasks = Tasks::new();
        let mut joined = join(first, second, &mut tasks);
        assert_eq!(*joined.borrow(), found(&["a"]));
        second_in.send_replace(found(&["b"]));
        joined
            .wait_for(|all| *all == found(&["a", "b"]))
            .await
            .unwrap();
        first_in.send_replace(found(&[]));
        joined.wait_for(|all| *all == found(&["b"])).await.unwrap();
        drop(first_in);
        second_in.send_replace(found(&["c"]));
        joined.wait_for(|all| *all == found(&["c"])).await.unwrap();
    }
}
