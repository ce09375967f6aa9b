//! Output for people: findings, incidents, Kubernetes events, explanations and status.

pub mod at_ceiling;
pub mod attention;
pub mod current_findings;
pub mod earlier_incidents;
pub mod event_throttle;
pub mod explain;
pub mod hpa_events;
pub mod hpa_figures;
pub mod hpa_findings;
pub mod hpa_history;
pub mod hpa_status;
pub mod incidents;
pub mod kafka_service;
pub mod policy_events;
pub mod policy_findings;
pub mod preflight;
pub mod rate_change;
pub mod setting_findings;
pub mod topic_growth;
pub mod unseen_groups;
pub mod workload_findings;

#[cfg(test)]
mod tests;
