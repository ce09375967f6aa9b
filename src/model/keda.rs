//! KEDA's Kafka triggers: the arithmetic of KEDA's scaler and the Jobs of ScaledJobs, the conversion of ScaledObjects
//! to HPAs, triggers whose external scaler is lagwise, and the comparison of KEDA's replicas with lagwise's
//! ([`shadow`]).
//!
//! Source: `pkg/scalers/{kafka_scaler,apache_kafka_scaler}.go` of KEDA 2.8 to 2.21, and the documentation of these
//! versions.

pub mod arithmetic;
pub mod authentications;
pub mod convert;
pub mod difference;
pub mod external_answer;
pub mod external_trigger;
pub mod external_triggers;
pub mod external_value;
pub mod jobs;
pub mod manifests;
mod observed_offsets;
pub mod scaled_object;
pub mod shadow;
pub mod trigger;
pub mod version;
