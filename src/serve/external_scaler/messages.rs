//! The messages of `externalscaler.proto` beside this file, and of `grpc.health.v1.Health`.
//!
//! Written by hand, so that a build needs no protobuf compiler.

use std::collections::BTreeMap;

use prost::{Enumeration, Message};

/// Path of the service, before the names of its methods.
pub(super) const SERVICE: &str = "/externalscaler.ExternalScaler/";

/// Path of the health check.
pub(super) const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";

#[derive(Clone, PartialEq, Message)]
pub(super) struct ScaledObjectRef {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) namespace: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub(super) scaler_metadata: BTreeMap<String, String>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct IsActiveResponse {
    #[prost(bool, tag = "1")]
    pub(super) result: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GetMetricSpecResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) metric_specs: Vec<MetricSpec>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct MetricSpec {
    #[prost(string, tag = "1")]
    pub(super) metric_name: String,
    /// For versions of KEDA that do not know the next field.
    #[prost(int64, tag = "2")]
    pub(super) target_size: i64,
    #[prost(double, tag = "3")]
    pub(super) target_size_float: f64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GetMetricsRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) scaled_object_ref: Option<ScaledObjectRef>,
    #[prost(string, tag = "2")]
    pub(super) metric_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GetMetricsResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) metric_values: Vec<ScalerMetricValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ScalerMetricValue {
    #[prost(string, tag = "1")]
    pub(super) metric_name: String,
    /// For versions of KEDA that do not know the next field.
    #[prost(int64, tag = "2")]
    pub(super) metric_value: i64,
    #[prost(double, tag = "3")]
    pub(super) metric_value_float: f64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    pub(super) service: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct HealthCheckResponse {
    #[prost(enumeration = "HealthStatus", tag = "1")]
    pub(super) status: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub(super) enum HealthStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The fields of each message of the proto file, in its order: type, name, number.
    fn fields() -> BTreeMap<&'static str, Vec<(&'static str, &'static str, u32)>> {
        let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut message = "";
        for line in include_str!("externalscaler.proto").lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("message ") {
                message = rest.trim_end_matches(" {");
            } else if let Some((field, number)) = line.split_once(" = ")
                && let Some((kind, name)) = field.rsplit_once(' ')
                && !message.is_empty()
            {
                let number = number.trim_end_matches(';').parse().unwrap();
                all.entry(message).or_default().push((kind, name, number));
            }
        }
        all
    }

    /// The bytes of a field as protobuf writes them, each with a value of its own.
    fn encode(message: &str, to: &mut Vec<u8>) {
        for (kind, name, number) in &fields()[message] {
            let number = u8::try_from(*number).unwrap();
            let mut nested = Vec::new();
            match *kind {
                "bool" => to.extend([number << 3, 1]),
                "int64" => to.extend([number << 3, 7]),
                "double" => {
                    to.push(number << 3 | 1);
                    to.extend(2.5f64.to_le_bytes());
                    continue;
                }
                "string" => nested.extend(name.as_bytes()),
                "map<string, string>" => nested.extend([10, 1, b'k', 18, 1, b'v']),
                inner => encode(inner.trim_start_matches("repeated "), &mut nested),
            }
            if !nested.is_empty() {
                to.extend([number << 3 | 2, u8::try_from(nested.len()).unwrap()]);
                to.extend(nested);
            }
        }
    }

    fn decoded<M: Message + Default>(message: &str) -> M {
        let mut bytes = Vec::new();
        encode(message, &mut bytes);
        let decoded = M::decode(&*bytes).unwrap();
        // Nothing is left out and nothing is added.
        assert_eq!(decoded.encode_to_vec(), bytes, "{message}");
        decoded
    }

    #[test]
    fn messages_are_those_of_the_proto_file() {
        let object = ScaledObjectRef {
            name: "name".to_owned(),
            namespace: "namespace".to_owned(),
            scaler_metadata: [("k".to_owned(), "v".to_owned())].into(),
        };
        assert_eq!(decoded::<ScaledObjectRef>("ScaledObjectRef"), object);
        let result = true;
        assert_eq!(
            decoded::<IsActiveResponse>("IsActiveResponse"),
            IsActiveResponse { result }
        );
        let spec = MetricSpec {
            metric_name: "metricName".to_owned(),
            target_size: 7,
            target_size_float: 2.5,
        };
        let specs: GetMetricSpecResponse = decoded("GetMetricSpecResponse");
        assert_eq!(specs.metric_specs, [spec]);
        let asked: GetMetricsRequest = decoded("GetMetricsRequest");
        assert_eq!(asked.metric_name, "metricName");
        assert_eq!(asked.scaled_object_ref, Some(object));
        let value = ScalerMetricValue {
            metric_name: "metricName".to_owned(),
            metric_value: 7,
            metric_value_float: 2.5,
        };
        let values: GetMetricsResponse = decoded("GetMetricsResponse");
        assert_eq!(values.metric_values, [value]);
        assert_eq!(fields().len(), 7);
    }

    #[test]
    fn methods_are_those_of_the_proto_file() {
        let lines = include_str!("externalscaler.proto").lines();
        let methods = lines.filter_map(|line| line.trim().strip_prefix("rpc "));
        let methods: Vec<_> = methods.filter_map(|rest| rest.split('(').next()).collect();
        let served = [
            "IsActive",
            "StreamIsActive",
            "GetMetricSpec",
            "GetMetrics",
            "StreamMetricSpec",
        ];
        assert_eq!(methods, served);
    }
}
