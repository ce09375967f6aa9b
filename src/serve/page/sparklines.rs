//! The lag of the last hour of some HPAs, for a line in each row of the overview.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::diagnostics::hpa_history::HpaHistory;
use crate::model::diagnostics::hpa_history::recorder::HistoryRecorder;
use crate::model::units::hpa_key::HpaKey;

const MAX_SPARK_POINTS: usize = 40;

/// Maximum time that a sparkline covers.
const MAX_SPARK_SPAN: Duration = Duration::from_secs(3600);

/// The lag of the last hour by HPA; `None` where it is unknown.
#[derive(Debug, Default)]
pub(super) struct Sparklines(BTreeMap<HpaKey, Vec<Option<u64>>>);

impl Sparklines {
    pub(super) fn new(recorder: &HistoryRecorder, hpas: Vec<HpaKey>) -> Self {
        let known = hpas.into_iter().filter_map(|hpa| {
            let lags = sparkline(recorder.history(&hpa)?, recorder.step());
            Some((hpa, lags))
        });
        Self(known.collect())
    }

    pub(super) fn lags(&self, hpa: &HpaKey) -> &[Option<u64>] {
        self.0.get(hpa).map_or(&[], Vec::as_slice)
    }
}

/// The largest lag in each of equal parts of the last hour, or of the time since the first point if that is shorter.
fn sparkline(history: &HpaHistory, step: u32) -> Vec<Option<u64>> {
    let per_hour = MAX_SPARK_SPAN.as_secs() / u64::from(step.max(1));
    let most = usize::try_from(per_hour).unwrap_or(usize::MAX);
    let lags: Vec<_> = history.points().rev().take(most).map(|p| p.lag).collect();
    let part = lags.len().div_ceil(MAX_SPARK_POINTS).max(1);
    let parts = lags.chunks(part).rev();
    parts
        .map(|part| part.iter().copied().max().flatten())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::diagnostics::hpa_history::{HistoryPoint, HistoryResolution};

    #[test]
    fn a_sparkline_has_the_largest_lag_of_each_part_of_the_last_hour() {
        let resolution = HistoryResolution::new(15);
        let mut history = HpaHistory::default();
        let mut add = |at: u32, lag| {
            let point = HistoryPoint {
                at,
                lag,
                ..HistoryPoint::default()
            };
            history.add(point, resolution);
        };
        // Before the hour.
        add(0, Some(1_000_000));
        for place in 0..240 {
            add(15 + place * 15, (place != 239).then_some(u64::from(place)));
        }
        let lags = sparkline(&history, 15);
        assert_eq!(lags.len(), MAX_SPARK_POINTS);
        assert_eq!((lags[0], lags[1]), (Some(5), Some(11)));
        assert_eq!(lags[39], Some(238), "the known ones of the last part");
        assert_eq!(sparkline(&HpaHistory::default(), 15), []);
    }
}
