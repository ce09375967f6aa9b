//! The brokers' error codes (<https://kafka.apache.org/protocol#protocol_error_codes>).

use crate::model::kafka::fault::Fault;

/// No error.
pub(super) const NONE: i16 = 0;
/// There is no such topic or partition.
pub(super) const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
/// A partition has no leader.
pub(super) const LEADER_NOT_AVAILABLE: i16 = 5;
/// The group has no coordinator.
pub(super) const COORDINATOR_NOT_AVAILABLE: i16 = 15;
/// The version of a request is none that the broker knows.
pub(super) const UNSUPPORTED_VERSION: i16 = 35;
/// There is no such group, or none of the kind that was asked about.
pub(super) const GROUP_ID_NOT_FOUND: i16 = 69;
/// No group can have that name.
pub(super) const INVALID_GROUP_ID: i16 = 24;

/// The fault for a broker's error code.
pub(super) fn fault_of(code: i32) -> Fault {
    match code {
        7 => Fault::NoAnswer,
        8 | 13 => Fault::Unreachable,
        33 | 34 | 58 => Fault::Login,
        5 | 6 | 9 | 56 | 72 | 74 | 75 | 76 | 78 => Fault::LeaderUnknown,
        14..=16 => Fault::CoordinatorUnavailable,
        // A name that no topic can have names none; an ID of a topic that is gone, too.
        17 | 100 => Fault::TopicMissing,
        3 => Fault::PartitionMissing,
        29 => Fault::TopicDenied,
        30 => Fault::GroupDenied,
        code => Fault::Code(code),
    }
}

/// Whether the partition's leader has to be looked up again, after which the same question may be
/// answered: it moved, its epoch is another, or it is not ready to say (KIP-207, KIP-320).
pub(super) fn has_moved(code: i16) -> bool {
    matches!(code, 3 | 5 | 6 | 9 | 56 | 74 | 75 | 76 | 78)
}

/// Whether the group's coordinator has to be looked up again.
pub(super) fn is_elsewhere(code: i16) -> bool {
    matches!(code, 15 | 16)
}

/// Whether the same coordinator may answer in a moment: it loads the group, or a transaction's
/// commit is under way (KIP-447).
pub(super) fn is_not_yet(code: i16) -> bool {
    matches!(code, 14 | 51 | 88)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_again_has_a_name() {
        for code in -1..200 {
            let fault = fault_of(i32::from(code));
            if has_moved(code) || is_elsewhere(code) {
                assert!(!matches!(fault, Fault::Code(_)), "{code}: {fault}");
            }
            assert!(!fault.to_string().is_empty());
        }
    }
}
