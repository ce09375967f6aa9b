//! The comparison of KEDA with lagwise: a row for each object of KEDA, and sums over the observed time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Sums over the time in which both numbers were known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowTotals {
    /// Time observed, in milliseconds.
    pub observed_millis: u64,
    pub running: SideTotals,
    pub keda: SideTotals,
    pub lagwise: SideTotals,
    /// Replica-milliseconds by which KEDA's number was the larger one.
    pub keda_more_replica_millis: u64,
    /// Replica-milliseconds by which lagwise's number was the larger one.
    pub lagwise_more_replica_millis: u64,
    /// Rebalances of the groups that were observed. One that begins and ends between two comparisons is observed only
    /// if it changed the members.
    pub rebalances: u64,
    /// Milliseconds for which each reason held.
    pub reason_millis: BTreeMap<String, u64>,
}

/// Sums of one side: the replicas that ran, or those by KEDA or by lagwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideTotals {
    pub replica_millis: u64,
    /// Changes of the number of replicas, each of which is a rebalance.
    pub scale_changes: u64,
}

impl SideTotals {
    #[must_use]
    pub fn replica_minutes(&self) -> f64 {
        minutes(self.replica_millis)
    }

    /// Adds a time with this number of running or proposed replicas.
    pub(super) fn add(&mut self, replicas: u32, millis: u64) {
        let added = u64::from(replicas).saturating_mul(millis);
        self.replica_millis = self.replica_millis.saturating_add(added);
    }

    fn join(&mut self, other: &Self) {
        self.replica_millis = self.replica_millis.saturating_add(other.replica_millis);
        self.scale_changes = self.scale_changes.saturating_add(other.scale_changes);
    }
}

/// Converts milliseconds to minutes.
#[must_use]
#[allow(
    clippy::cast_precision_loss,
    reason = "exact to a millisecond for 285,000 years"
)]
pub fn minutes(millis: u64) -> f64 {
    millis as f64 / 60_000.0
}

impl ShadowTotals {
    /// Adds the sums of another object.
    pub fn join(&mut self, other: &Self) {
        let sum = |a: &mut u64, b: u64| *a = a.saturating_add(b);
        sum(&mut self.observed_millis, other.observed_millis);
        self.running.join(&other.running);
        self.keda.join(&other.keda);
        self.lagwise.join(&other.lagwise);
        sum(
            &mut self.keda_more_replica_millis,
            other.keda_more_replica_millis,
        );
        sum(
            &mut self.lagwise_more_replica_millis,
            other.lagwise_more_replica_millis,
        );
        sum(&mut self.rebalances, other.rebalances);
        for (reason, millis) in &other.reason_millis {
            sum(
                self.reason_millis.entry(reason.clone()).or_default(),
                *millis,
            );
        }
    }
}

/// One object of KEDA. Unknown numbers are `None`, never zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowRow {
    /// `ScaledObject` or `ScaledJob`.
    pub kind: String,
    pub namespace: String,
    pub name: String,
    /// The HPA that KEDA keeps for it; for a ScaledJob, which has none, `ScaledJob/NAME`.
    pub hpa: String,
    /// Replicas that run, from the status of that HPA; unknown for a ScaledJob.
    pub running: Option<u32>,
    /// Replicas by KEDA's arithmetic now; for a ScaledJob, Jobs after KEDA's next poll if none existed before it.
    pub keda: Option<u32>,
    /// Replicas by lagwise now; for a ScaledJob, Jobs that the lag is worth and that can have work.
    pub lagwise: Option<u32>,
    /// Short names of the reasons for which the two may differ.
    pub reasons: Vec<String>,
    /// The same reasons as sentences.
    pub why: Vec<String>,
    /// Why it is not compared; `None` if it is.
    pub not_compared: Option<String>,
    /// Assumptions and omissions.
    pub remarks: Vec<String>,
    /// How KEDA and lagwise log in to the Kafka cluster of each trigger.
    #[serde(default)]
    pub logins: Vec<String>,
    pub totals: ShadowTotals,
}

/// The comparison of all objects of KEDA.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowReport {
    /// Time of the first comparison, in RFC 3339; `None` before it.
    pub since: Option<String>,
    /// Time of the latest comparison.
    pub at: Option<String>,
    /// Sorted by namespace and name.
    pub objects: Vec<ShadowRow>,
    /// Sums over all objects.
    pub totals: ShadowTotals,
    /// Number of objects that are left out because there are too many.
    pub omitted: usize,
    /// Why KEDA's objects, or some of them, cannot be read.
    pub problems: Vec<String>,
}

impl ShadowReport {
    /// The row of the object whose HPA this is.
    #[must_use]
    pub fn of_hpa(&self, namespace: &str, hpa: &str) -> Option<&ShadowRow> {
        let mut rows = self.objects.iter();
        rows.find(|row| row.namespace == namespace && row.hpa == hpa)
    }
}
