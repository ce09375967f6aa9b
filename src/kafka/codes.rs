//! Kafka error codes (<https://kafka.apache.org/protocol#protocol_error_codes>) and what they mean
//! for a retry.

use crate::model::kafka::fault::Fault;

pub(super) const NONE: i16 = 0;
pub(super) const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
pub(super) const LEADER_NOT_AVAILABLE: i16 = 5;
pub(super) const COORDINATOR_NOT_AVAILABLE: i16 = 15;
/// Returned for a login on a listener without SASL.
pub(super) const ILLEGAL_SASL_STATE: i16 = 34;
pub(super) const UNSUPPORTED_VERSION: i16 = 35;
pub(super) const NOT_CONTROLLER: i16 = 41;
/// Also returned for a group of another kind than that of the request.
pub(super) const GROUP_ID_NOT_FOUND: i16 = 69;
pub(super) const INVALID_GROUP_ID: i16 = 24;
/// Sends a client back to its bootstrap servers, since its brokers are no longer those of the cluster (KIP-1102).
pub(super) const REBOOTSTRAP_REQUIRED: i16 = 129;

/// Maps a broker's error code to a fault.
pub(super) fn fault_of(code: i32) -> Fault {
    match code {
        7 => Fault::NoAnswer,
        8 | 13 => Fault::Unreachable,
        33 | 34 | 58 => Fault::Login,
        5 | 6 | 9 | 56 | 72 | 74 | 75 | 76 | 78 => Fault::LeaderUnknown,
        14..=16 => Fault::CoordinatorUnavailable,
        // An invalid topic name and the ID of a deleted topic both mean that the topic does not
        // exist.
        17 | 100 => Fault::TopicMissing,
        3 => Fault::PartitionMissing,
        29 => Fault::TopicDenied,
        30 => Fault::GroupDenied,
        code => Fault::Code(code),
    }
}

/// Whether to fetch the partition's leader again and retry: the leader moved, its epoch changed, or
/// it cannot serve offsets yet (KIP-207, KIP-320).
pub(super) fn is_leader_stale(code: i16) -> bool {
    matches!(code, 3 | 5 | 6 | 9 | 56 | 74 | 75 | 76 | 78)
}

/// Whether to find the group's coordinator again and retry.
pub(super) fn is_coordinator_stale(code: i16) -> bool {
    matches!(code, 15 | 16)
}

/// Whether to retry at the same coordinator: it is loading the group, or a transactional commit is
/// pending (KIP-447).
pub(super) fn is_retriable_here(code: i16) -> bool {
    matches!(code, 14 | 51 | 88)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::error::ResponseError;

    use super::*;
    use crate::model::kafka::error_names::error_name;

    #[test]
    fn every_code_that_the_protocol_crate_knows_has_its_name() {
        for code in -1..200_i16 {
            let known = match ResponseError::try_from_code(code) {
                None | Some(ResponseError::Unknown(_)) => None,
                Some(error) => Some(format!("{error:?}").to_uppercase()),
            };
            let name = error_name(code.into()).map(|name| name.replace('_', ""));
            assert_eq!(name, known, "{code}");
        }
        assert_eq!(error_name(-195), None, "librdkafka's own");
    }

    #[test]
    fn messages_name_the_code() {
        for (code, expected) in [
            (35, "Kafka error code 35 (UNSUPPORTED_VERSION)"),
            (31, "Kafka error code 31 (CLUSTER_AUTHORIZATION_FAILED)"),
            (-150, "Kafka error code -150"),
        ] {
            assert_eq!(fault_of(code).to_string(), expected);
        }
    }

    #[test]
    fn every_retried_code_maps_to_a_named_fault() {
        for code in -1..200 {
            let fault = fault_of(i32::from(code));
            if is_leader_stale(code) || is_coordinator_stale(code) {
                assert!(!matches!(fault, Fault::Code(_)), "{code}: {fault}");
            }
            assert!(!fault.to_string().is_empty());
        }
    }
}
