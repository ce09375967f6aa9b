//! Bounds how many lines new findings write to the log.

use std::time::Instant;

use super::FindingRaised;
use super::log_interval::LogInterval;
use super::namespace_lines::namespace_lines;
use crate::model::findings::{Finding, FindingSubject};
use crate::model::units::token_bucket::KeyedTokenBuckets;

/// Counts every new finding, and logs as many as the rates of its namespace and of all namespaces allow.
#[derive(Debug)]
pub struct FindingLog {
    lines: KeyedTokenBuckets<String>,
    omitted: u64,
    omissions: LogInterval,
}

impl Default for FindingLog {
    fn default() -> Self {
        Self {
            lines: namespace_lines(),
            omitted: 0,
            omissions: LogInterval::default(),
        }
    }
}

impl FindingLog {
    /// Records a finding that is new at `now`.
    pub fn record(&mut self, finding: &Finding, now: Instant) {
        let raised = FindingRaised(finding);
        match self.may_log(finding, now) {
            true => raised.emit(),
            false => raised.count(),
        }
    }

    /// Logs how many findings were not logged, at most once a minute. To be called after each whole sweep.
    pub fn log_omissions(&mut self, now: Instant) {
        if let Some(omitted) = self.report_omissions(now) {
            tracing::warn!(
                omitted,
                "there are too many new findings to log each: run lagwise lint, which lists all"
            );
        }
    }

    /// Takes a line of the namespace, if there is one; otherwise counts the finding as omitted.
    fn may_log(&mut self, finding: &Finding, now: Instant) -> bool {
        let namespace = match &finding.subject {
            FindingSubject::Hpa(hpa) => &*hpa.namespace,
            // No namespace has an empty name.
            FindingSubject::Group { .. }
            | FindingSubject::Setting(_)
            | FindingSubject::Keda { .. } => "",
        };
        let is_logged = self.lines.take(namespace, 1, now).is_ok();
        if !is_logged {
            self.omitted = self.omitted.saturating_add(1);
        }
        is_logged
    }

    /// The number of findings omitted since the last report, if another report is due.
    fn report_omissions(&mut self, now: Instant) -> Option<u64> {
        (self.omitted > 0 && self.omissions.is_due(now)).then(|| std::mem::take(&mut self.omitted))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::findings::FindingCode;
    use crate::model::units::hpa_key::HpaKey;

    fn finding(namespace: &str, number: u64) -> Finding {
        let hpa = HpaKey::new(namespace, "billing");
        Finding::new(FindingCode::NoGroup, &hpa, format!("mistake {number}"))
    }

    #[test]
    fn logs_a_burst_of_a_namespace_and_then_one_line_a_second() {
        let mut log = FindingLog::default();
        let began = Instant::now();
        let mut lines = |namespace: &str, findings: u64, now: Instant| {
            let new = (0..findings).map(|number| finding(namespace, number));
            new.filter(|finding| log.may_log(finding, now)).count()
        };
        assert_eq!(lines("shop", 5000, began), 100);
        // What one namespace omits is logged of another.
        assert_eq!(lines("bank", 50, began), 50);
        assert_eq!(lines("shop", 5000, began + Duration::from_secs(10)), 10);
    }

    #[test]
    fn bounds_the_lines_of_all_namespaces_together() {
        let mut log = FindingLog::default();
        let now = Instant::now();
        let mut lines = 0;
        for number in 0..10_000 {
            let namespace = format!("namespace-{}", number % 5000);
            lines += usize::from(log.may_log(&finding(&namespace, number), now));
        }
        assert_eq!(lines, 2000);
    }

    #[test]
    fn reports_the_number_of_omitted_lines_once_a_minute() {
        let mut log = FindingLog::default();
        let began = Instant::now();
        for number in 0..150 {
            let _ = log.may_log(&finding("shop", number), began);
        }
        assert_eq!(log.report_omissions(began), Some(50));
        for number in 0..7 {
            let _ = log.may_log(&finding("shop", number), began);
            assert_eq!(log.report_omissions(began), None);
        }
        let later = began + Duration::from_secs(60);
        assert_eq!(log.report_omissions(later), Some(7));
    }
}
