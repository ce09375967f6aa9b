//! Negotiation of request versions.

use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse, CreatePartitionsRequest, CreatePartitionsResponse,
    DescribeConfigsRequest, DescribeConfigsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    DescribeShareGroupOffsetsResponse, FindCoordinatorRequest, FindCoordinatorResponse,
    ListGroupsRequest, ListGroupsResponse, ListOffsetsRequest, ListOffsetsResponse,
    MetadataRequest, MetadataResponse, OffsetFetchRequest, OffsetFetchResponse,
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
    ShareGroupDescribeRequest, ShareGroupDescribeResponse,
};
use kafka_protocol::protocol::{HeaderVersion, Message, VersionRange};

use super::responses::ApiRange;
use crate::kafka::codes;
use crate::model::kafka::fault::Fault;

/// The requests used by this client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::enum_variant_names, reason = "the names are Kafka's")]
pub(super) enum ApiKey {
    ListOffsets,
    Metadata,
    OffsetFetch,
    FindCoordinator,
    DescribeGroups,
    ListGroups,
    SaslHandshake,
    ApiVersions,
    SaslAuthenticate,
    ConsumerGroupDescribe,
    ShareGroupDescribe,
    StreamsGroupDescribe,
    DescribeShareGroupOffsets,
    DescribeConfigs,
    CreatePartitions,
}

impl ApiKey {
    pub(super) const ALL: [Self; 15] = [
        ApiKey::ListOffsets,
        ApiKey::Metadata,
        ApiKey::OffsetFetch,
        ApiKey::FindCoordinator,
        ApiKey::ListGroups,
        ApiKey::SaslHandshake,
        ApiKey::ApiVersions,
        ApiKey::SaslAuthenticate,
        ApiKey::DescribeGroups,
        ApiKey::ConsumerGroupDescribe,
        ApiKey::ShareGroupDescribe,
        ApiKey::StreamsGroupDescribe,
        ApiKey::DescribeShareGroupOffsets,
        ApiKey::DescribeConfigs,
        ApiKey::CreatePartitions,
    ];

    /// The requests of a sweep, and whether lagwise cannot work without them.
    pub(super) const OF_SWEEPS: [(Self, &'static str, bool); 8] = [
        (ApiKey::Metadata, "Metadata", true),
        (ApiKey::FindCoordinator, "FindCoordinator", true),
        (ApiKey::OffsetFetch, "OffsetFetch", true),
        (ApiKey::ListOffsets, "ListOffsets", true),
        (ApiKey::ListGroups, "ListGroups", false),
        (ApiKey::DescribeGroups, "DescribeGroups", false),
        (
            ApiKey::ConsumerGroupDescribe,
            "ConsumerGroupDescribe",
            false,
        ),
        (ApiKey::ShareGroupDescribe, "ShareGroupDescribe", false),
    ];

    pub(super) fn key(self) -> i16 {
        match self {
            ApiKey::ListOffsets => 2,
            ApiKey::Metadata => 3,
            ApiKey::OffsetFetch => 9,
            ApiKey::FindCoordinator => 10,
            ApiKey::DescribeGroups => 15,
            ApiKey::ListGroups => 16,
            ApiKey::SaslHandshake => 17,
            ApiKey::ApiVersions => 18,
            ApiKey::SaslAuthenticate => 36,
            ApiKey::ConsumerGroupDescribe => 69,
            ApiKey::ShareGroupDescribe => 77,
            ApiKey::StreamsGroupDescribe => 89,
            ApiKey::DescribeShareGroupOffsets => 90,
            ApiKey::DescribeConfigs => 32,
            ApiKey::CreatePartitions => 37,
        }
    }

    /// The versions that `kafka-protocol` can encode and `responses` can decode. The library's own
    /// table by key is not used: it lists versions that its types do not have.
    pub(super) fn client_versions(self) -> VersionRange {
        let (library, min, max) = match self {
            ApiKey::ListOffsets => (ListOffsetsRequest::VERSIONS, 1, 10),
            ApiKey::Metadata => (MetadataRequest::VERSIONS, 0, 13),
            ApiKey::OffsetFetch => (OffsetFetchRequest::VERSIONS, 1, 9),
            ApiKey::FindCoordinator => (FindCoordinatorRequest::VERSIONS, 0, 6),
            ApiKey::DescribeGroups => (DescribeGroupsRequest::VERSIONS, 0, 6),
            ApiKey::ListGroups => (ListGroupsRequest::VERSIONS, 0, 5),
            // Version 0 continues without Kafka's framing.
            ApiKey::SaslHandshake => (SaslHandshakeRequest::VERSIONS, 1, 1),
            ApiKey::ApiVersions => (ApiVersionsRequest::VERSIONS, 0, 3),
            ApiKey::SaslAuthenticate => (SaslAuthenticateRequest::VERSIONS, 0, 2),
            ApiKey::ConsumerGroupDescribe => (ConsumerGroupDescribeRequest::VERSIONS, 0, 1),
            ApiKey::ShareGroupDescribe => (ShareGroupDescribeRequest::VERSIONS, 1, 1),
            // `kafka-protocol` lacks it; its request equals `ConsumerGroupDescribe`.
            ApiKey::StreamsGroupDescribe => (ConsumerGroupDescribeRequest::VERSIONS, 0, 0),
            ApiKey::DescribeConfigs => (DescribeConfigsRequest::VERSIONS, 1, 4),
            ApiKey::CreatePartitions => (CreatePartitionsRequest::VERSIONS, 0, 3),
            // `kafka-protocol` stops at version 0, whose request is the same.
            ApiKey::DescribeShareGroupOffsets => return VersionRange { min: 0, max: 1 },
        };
        library.intersect(&VersionRange { min, max })
    }

    /// The version of `kafka-protocol`'s type that encodes the request in this version.
    pub(super) fn codec_version(self, version: i16) -> i16 {
        match self {
            ApiKey::DescribeShareGroupOffsets => 0,
            _ => version,
        }
    }

    /// Whether the response header ends in tagged fields.
    pub(super) fn has_flexible_header(self, version: i16) -> bool {
        let header = match self {
            ApiKey::ListOffsets => ListOffsetsResponse::header_version(version),
            ApiKey::Metadata => MetadataResponse::header_version(version),
            ApiKey::OffsetFetch => OffsetFetchResponse::header_version(version),
            ApiKey::FindCoordinator => FindCoordinatorResponse::header_version(version),
            ApiKey::DescribeGroups => DescribeGroupsResponse::header_version(version),
            ApiKey::ListGroups => ListGroupsResponse::header_version(version),
            ApiKey::SaslHandshake => SaslHandshakeResponse::header_version(version),
            ApiKey::ApiVersions => ApiVersionsResponse::header_version(version),
            ApiKey::SaslAuthenticate => SaslAuthenticateResponse::header_version(version),
            ApiKey::ConsumerGroupDescribe | ApiKey::StreamsGroupDescribe => {
                ConsumerGroupDescribeResponse::header_version(version)
            }
            ApiKey::ShareGroupDescribe => ShareGroupDescribeResponse::header_version(version),
            ApiKey::DescribeShareGroupOffsets => {
                DescribeShareGroupOffsetsResponse::header_version(version)
            }
            ApiKey::DescribeConfigs => DescribeConfigsResponse::header_version(version),
            ApiKey::CreatePartitions => CreatePartitionsResponse::header_version(version),
        };
        header >= 1
    }

    /// Whether the body begins with the throttle time (KIP-219).
    pub(super) fn begins_with_throttle(self, version: i16) -> bool {
        match self {
            ApiKey::ListOffsets => version >= 2,
            ApiKey::Metadata | ApiKey::OffsetFetch => version >= 3,
            ApiKey::FindCoordinator | ApiKey::DescribeGroups | ApiKey::ListGroups => version >= 1,
            ApiKey::ConsumerGroupDescribe
            | ApiKey::ShareGroupDescribe
            | ApiKey::StreamsGroupDescribe
            | ApiKey::DescribeShareGroupOffsets
            | ApiKey::DescribeConfigs
            | ApiKey::CreatePartitions => true,
            ApiKey::SaslHandshake | ApiKey::ApiVersions | ApiKey::SaslAuthenticate => false,
        }
    }
}

/// The API versions of a broker, as negotiated when the connection was set up.
#[derive(Clone, Debug, Default)]
pub(super) struct BrokerVersions(Vec<ApiRange>);

impl BrokerVersions {
    /// Keeps the ranges of the requests used here.
    pub(super) fn new(ranges: &[ApiRange]) -> Self {
        let used = |range: &&ApiRange| ApiKey::ALL.iter().any(|api| api.key() == range.0);
        Self(
            ranges
                .iter()
                .filter(used)
                .take(ApiKey::ALL.len())
                .copied()
                .collect(),
        )
    }

    /// The highest version of `api` that both sides support.
    pub(super) fn highest_common(&self, api: ApiKey) -> Result<i16, Fault> {
        let theirs = self.0.iter().find(|range| range.0 == api.key());
        let common = theirs
            .map(|&(_, min, max)| api.client_versions().intersect(&VersionRange { min, max }));
        match common {
            Some(common) if !common.is_empty() => Ok(common.max),
            _ => Err(Fault::Code(i32::from(codes::UNSUPPORTED_VERSION))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_or_a_fault() {
        let versions = BrokerVersions::new(&[(9, 1, 99), (2, 0, 4), (10, 7, 9), (77, 0, 1)]);
        assert_eq!(versions.highest_common(ApiKey::OffsetFetch), Ok(9));
        assert_eq!(versions.highest_common(ApiKey::ListOffsets), Ok(4));
        assert_eq!(
            versions.highest_common(ApiKey::FindCoordinator),
            Err(Fault::Code(35))
        );
        assert_eq!(
            versions.highest_common(ApiKey::Metadata),
            Err(Fault::Code(35))
        );
    }

    #[test]
    fn the_version_says_whether_a_response_begins_with_a_throttle_time() {
        use kafka_protocol::messages::FindCoordinatorResponse;
        use kafka_protocol::protocol::Encodable;
        for version in 1..=6 {
            let mut bytes = Vec::new();
            let response = FindCoordinatorResponse::default().with_throttle_time_ms(0x0102_0304);
            response.encode(&mut bytes, version).unwrap();
            assert!(ApiKey::FindCoordinator.begins_with_throttle(version));
            assert_eq!(bytes[..4], [1, 2, 3, 4]);
        }
    }
}
