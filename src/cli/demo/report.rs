//! Report of a demo run: the ticks so far and a summary, as text and as JSON. Does no I/O.

use std::time::Duration;

use serde::Serialize;

use super::hpa;
use super::plan::{LAG_PER_REPLICA, Plan};
use super::reading::DemoReading;
use super::screen::{Frame, Links};
use crate::model::units::newtypes::Lag;
use crate::model::units::quantity::Milli;

/// Maximum number of ticks kept for the charts: the longest run at two per second.
const MAX_TICKS: usize = 2 * 60 * 30 + 60;

/// The run so far.
pub(super) struct Report {
    plan: Plan,
    links: Links,
    lags: Vec<u64>,
    counts: Vec<u64>,
    partition_peak: u64,
    lag_peak: u64,
    /// The last known lag; at the end it may be unknown.
    lag_last: Option<u64>,
    replicas_last: u32,
    replicas_max: u32,
    uncapped_max: u32,
}

/// What to try after the demo.
const NEXT: &str = "\
Next, on your own Kafka and Kubernetes:
  lagwise lag --bootstrap HOST:9092    the lag of your consumer groups
  lagwise lint -f hpa.yaml             mistakes in your HPAs
  helm install lagwise charts/lagwise  the daemon; see docs/src/install.md
  lagwise page                         this page for your HPAs
";

/// Summary of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Summary {
    pub(super) partitions: u32,
    pub(super) replicas_max: u32,
    pub(super) replicas_final: u32,
    /// Maximum replicas that the HPA would have run without the cap.
    pub(super) uncapped_max: u32,
    pub(super) lag_peak: u64,
    pub(super) lag_final: Option<u64>,
    pub(super) produced: u64,
    /// Records handled, including repeats after a rebalance.
    pub(super) consumed: u64,
    pub(super) rebalances: u64,
}

/// A tick as JSON.
#[derive(Serialize)]
struct Tick {
    t_seconds: f64,
    phase: &'static str,
    lag: Option<Lag>,
    replicas: u32,
    desired: u32,
    uncapped: u32,
    ceiling: Option<u32>,
    capped: bool,
    partitions: Vec<Option<Lag>>,
}

impl Report {
    pub(super) fn new(plan: Plan, links: Links) -> Self {
        Self {
            plan,
            links,
            lags: Vec::new(),
            counts: Vec::new(),
            partition_peak: 0,
            lag_peak: 0,
            lag_last: None,
            replicas_last: 0,
            replicas_max: 0,
            uncapped_max: 0,
        }
    }

    /// Records a reading at `at` and returns the frame to display.
    pub(super) fn record(
        &mut self,
        at: Duration,
        reading: DemoReading,
        replicas: u32,
        desired: u32,
    ) -> Frame {
        let spec = self.plan.hpa();
        let lag = reading.lag.map(|lag| lag.0);
        self.lag_last = lag.or(self.lag_last);
        self.lag_peak = self.lag_peak.max(lag.unwrap_or(0));
        let known = reading.rows.iter().filter_map(|row| row.lag);
        let highest = known.map(|lag| lag.0).max().unwrap_or(0);
        // The scale of the bars has a minimum, so that a few records do not fill a bar.
        let floor = u64::from(LAG_PER_REPLICA);
        self.partition_peak = self.partition_peak.max(highest).max(floor);
        let uncapped = hpa::desired(&spec, lag.map(Milli::from_units), replicas);
        self.uncapped_max = self.uncapped_max.max(uncapped);
        self.replicas_max = self.replicas_max.max(replicas);
        self.replicas_last = replicas;
        if self.lags.len() < MAX_TICKS {
            self.lags.push(self.lag_last.unwrap_or(0));
            self.counts.push(u64::from(replicas));
        }
        Frame {
            at,
            length: self.plan.length,
            phase: self.plan.phase(at),
            reading,
            replicas,
            desired,
            uncapped,
            min: spec.min,
            max: spec.max,
            per_replica: LAG_PER_REPLICA,
            down_window: self.plan.down_window(),
            partition_peak: self.partition_peak,
            lags: self.lags.clone(),
            counts: self.counts.clone(),
            links: self.links.clone(),
        }
    }

    pub(super) fn summary(&self, produced: u64, consumed: u64, rebalances: u64) -> Summary {
        Summary {
            partitions: self.plan.partitions,
            replicas_max: self.replicas_max,
            replicas_final: self.replicas_last,
            uncapped_max: self.uncapped_max,
            lag_peak: self.lag_peak,
            lag_final: self.lag_last,
            produced,
            consumed,
            rebalances,
        }
    }
}

impl Frame {
    /// One JSON object on one line.
    pub(super) fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&Tick {
            // Tenths of a second are precise enough.
            t_seconds: Duration::from_millis(millis(self.at) / 100 * 100).as_secs_f64(),
            phase: self.phase.name(),
            lag: self.reading.lag,
            replicas: self.replicas,
            desired: self.desired,
            uncapped: self.uncapped,
            ceiling: self.reading.ceiling,
            capped: self.reading.capped,
            partitions: self.reading.rows.iter().map(|row| row.lag).collect(),
        })
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Summary {
    /// One JSON object on one line.
    pub(super) fn json(&self) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Last<'a> {
            summary: &'a Summary,
        }
        serde_json::to_string(&Last { summary: self })
    }

    pub(super) fn text(&self) -> String {
        let lag = self
            .lag_final
            .map_or_else(|| "unknown".into(), |lag| lag.to_string());
        format!(
            "partitions  {}\n\
             replicas    at most {}, {} at the end; uncapped the HPA would have run {}\n\
             lag         at most {}, {lag} at the end\n\
             records     {} produced, {} handled{}\n\
             rebalances  {}\n\n{NEXT}",
            self.partitions,
            self.replicas_max,
            self.replicas_final,
            self.uncapped_max,
            self.lag_peak,
            self.produced,
            self.consumed,
            self.difference(),
            self.rebalances,
        )
    }

    /// Explains the difference between the records produced and handled, if there is one.
    fn difference(&self) -> String {
        match self.consumed.checked_sub(self.produced) {
            None => " before the end".to_owned(),
            Some(0) => String::new(),
            Some(again) => format!(" ({again} twice, after rebalances)"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cli::demo::reading::PartitionRow;

    fn report() -> Report {
        let plan = Plan {
            length: Duration::from_secs(90),
            partitions: 2,
        };
        let links = Links {
            page: String::new(),
            metric: String::new(),
            metrics: String::new(),
            group: String::new(),
        };
        Report::new(plan, links)
    }

    fn reading(lag: u64) -> DemoReading {
        let row = |lag| PartitionRow {
            lag: Some(Lag(lag)),
            ..PartitionRow::default()
        };
        DemoReading {
            rows: vec![row(lag), PartitionRow::default()],
            lag: Some(Lag(lag)),
            ceiling: Some(2),
            capped: lag > 200,
            unknown: None,
        }
    }

    #[test]
    fn a_tick_as_json() {
        let frame = report().record(Duration::from_millis(1234), reading(350), 2, 2);
        assert_eq!(
            frame.json().unwrap(),
            r#"{"t_seconds":1.2,"phase":"base load","lag":350,"replicas":2,"desired":2,"uncapped":4,"ceiling":2,"capped":true,"partitions":[350,null]}"#
        );
        let unknown = DemoReading {
            unknown: Some("why".into()),
            ..DemoReading::default()
        };
        let frame = report().record(Duration::ZERO, unknown, 3, 3);
        assert_eq!(
            frame.json().unwrap(),
            r#"{"t_seconds":0.0,"phase":"base load","lag":null,"replicas":3,"desired":3,"uncapped":3,"ceiling":null,"capped":false,"partitions":[]}"#
        );
    }

    #[test]
    fn summary_has_peaks_and_last_known_lag() {
        let mut report = report();
        for (lag, replicas) in [(0, 1), (5000, 2), (30, 2), (7, 1)] {
            report.record(Duration::from_secs(1), reading(lag), replicas, replicas);
        }
        report.record(Duration::from_secs(1), DemoReading::default(), 1, 1);
        let summary = report.summary(6000, 6010, 3);
        assert_eq!(
            summary.json().unwrap(),
            r#"{"summary":{"partitions":2,"replicas_max":2,"replicas_final":1,"uncapped_max":10,"lag_peak":5000,"lag_final":7,"produced":6000,"consumed":6010,"rebalances":3}}"#
        );
        insta::assert_snapshot!(summary.text(), @r"
        partitions  2
        replicas    at most 2, 1 at the end; uncapped the HPA would have run 10
        lag         at most 5000, 7 at the end
        records     6000 produced, 6010 handled (10 twice, after rebalances)
        rebalances  3

        Next, on your own Kafka and Kubernetes:
          lagwise lag --bootstrap HOST:9092    the lag of your consumer groups
          lagwise lint -f hpa.yaml             mistakes in your HPAs
          helm install lagwise charts/lagwise  the daemon; see docs/src/install.md
          lagwise page                         this page for your HPAs
        ");
        let text = |consumed| report.summary(6000, consumed, 3).text();
        assert!(text(6000).contains("6000 produced, 6000 handled\n"));
        assert!(text(5900).contains("6000 produced, 5900 handled before the end\n"));
    }
}
