//! KEDA's Kafka triggers: what their options mean, what their arithmetic gives, how that differs from lagwise, and what
//! becomes of a ScaledObject without KEDA; the Jobs of ScaledJobs; triggers whose external scaler is lagwise; and both numbers
//! beside one another while KEDA scales.
//!
//! Source: `pkg/scalers/{kafka_scaler,apache_kafka_scaler}.go` of KEDA 2.8 to 2.21, and the documentation of these
//! versions. Nothing here asks Kafka or Kubernetes.

pub mod arithmetic;
pub mod authentications;
pub mod convert;
pub mod difference;
pub mod external_answer;
pub mod external_trigger;
pub mod external_triggers;
pub mod external_value;
pub mod jobs;
mod observed_offsets;
pub mod scaled_object;
pub mod shadow;
pub mod trigger;
pub mod version;
