//! The external metrics that lagwise serves.

/// The external metric that serves lag.
pub const LAG_METRIC: &str = "kafka_lag";

/// The external metric that serves the desired number of replicas.
pub const DESIRED_METRIC: &str = "kafka_desired_replicas";

/// An external metric of lagwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// Lag in messages. The HPA divides it by its target average value.
    #[default]
    Lag,
    /// Desired replicas. The HPA compares it with a target average value of 1.
    DesiredReplicas,
}

impl Metric {
    /// All of them.
    pub const ALL: [Metric; 2] = [Metric::Lag, Metric::DesiredReplicas];

    /// The metric with exactly this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Metric::Lag => LAG_METRIC,
            Metric::DesiredReplicas => DESIRED_METRIC,
        }
    }
}
