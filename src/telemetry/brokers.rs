//! Brokers that cannot be reached while others of their cluster answer.

use crate::model::kafka::fault::BrokerFault;
use crate::model::units::newtypes::ClusterName;

/// Brokers of a cluster cannot be reached, while others answer.
#[derive(Debug)]
pub struct BrokersUnreachable<'a> {
    pub cluster: &'a ClusterName,
    pub brokers: &'a [&'a BrokerFault],
}

impl BrokersUnreachable<'_> {
    pub fn emit(&self) {
        /// Maximum number of brokers named in the line.
        const MAX_NAMED_BROKERS: usize = 5;
        let named = self.brokers.iter().take(MAX_NAMED_BROKERS);
        let reasons: Vec<_> = named.map(|broker| &*broker.reason).collect();
        tracing::warn!(
            cluster = %self.cluster,
            brokers = self.brokers.len(),
            reasons = reasons.join("; "),
            "brokers of the Kafka cluster cannot be reached: what they lead or coordinate is unknown"
        );
    }
}

/// Every broker of a cluster that is needed can be reached, after some could not.
#[derive(Debug)]
pub struct BrokersReachable<'a> {
    pub cluster: &'a ClusterName,
}

impl BrokersReachable<'_> {
    pub fn emit(&self) {
        tracing::info!(cluster = %self.cluster, "every broker of the Kafka cluster that is needed can be reached");
    }
}
