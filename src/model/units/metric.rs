//! The external metrics that lagwise serves.

/// The external metric that serves lag.
pub const LAG_METRIC: &str = "kafka_lag";

/// The external metric that serves the replicas wanted.
pub const DESIRED_METRIC: &str = "kafka_desired_replicas";

/// A metric that is served here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// Messages behind: the HPA divides by the lag wanted per replica itself.
    #[default]
    Lag,
    /// The replicas wanted: the HPA is to compare with an average of one.
    DesiredReplicas,
}

impl Metric {
    /// All of them.
    pub const ALL: [Metric; 2] = [Metric::Lag, Metric::DesiredReplicas];

    /// The one of this name. Names are exact: whatever else begins alike is somebody else's.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Metric::Lag => LAG_METRIC,
            Metric::DesiredReplicas => DESIRED_METRIC,
        }
    }
}
