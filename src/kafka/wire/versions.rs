//! Which version of each request a broker and we both know.

use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponse, FindCoordinatorRequest,
    FindCoordinatorResponse, ListGroupsRequest, ListGroupsResponse, ListOffsetsRequest,
    ListOffsetsResponse, MetadataRequest, MetadataResponse, OffsetFetchRequest,
    OffsetFetchResponse, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest,
    SaslHandshakeResponse, ShareGroupDescribeRequest, ShareGroupDescribeResponse,
};
use kafka_protocol::protocol::{HeaderVersion, Message, VersionRange};

use super::responses::ApiRange;
use crate::kafka::codes;
use crate::model::kafka::fault::Fault;

/// The requests that are made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::enum_variant_names, reason = "the names are Kafka's")]
pub(super) enum ApiVersions {
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
}

impl ApiVersions {
    /// All of them.
    pub(super) const ALL: [Self; 13] = [
        ApiVersions::ListOffsets,
        ApiVersions::Metadata,
        ApiVersions::OffsetFetch,
        ApiVersions::FindCoordinator,
        ApiVersions::ListGroups,
        ApiVersions::SaslHandshake,
        ApiVersions::ApiVersions,
        ApiVersions::SaslAuthenticate,
        ApiVersions::DescribeGroups,
        ApiVersions::ConsumerGroupDescribe,
        ApiVersions::ShareGroupDescribe,
        ApiVersions::StreamsGroupDescribe,
        ApiVersions::DescribeShareGroupOffsets,
    ];

    pub(super) fn key(self) -> i16 {
        match self {
            ApiVersions::ListOffsets => 2,
            ApiVersions::Metadata => 3,
            ApiVersions::OffsetFetch => 9,
            ApiVersions::FindCoordinator => 10,
            ApiVersions::DescribeGroups => 15,
            ApiVersions::ListGroups => 16,
            ApiVersions::SaslHandshake => 17,
            ApiVersions::ApiVersions => 18,
            ApiVersions::SaslAuthenticate => 36,
            ApiVersions::ConsumerGroupDescribe => 69,
            ApiVersions::ShareGroupDescribe => 77,
            ApiVersions::StreamsGroupDescribe => 89,
            ApiVersions::DescribeShareGroupOffsets => 90,
        }
    }

    /// The versions that the library can write and `responses` can read. The library's table by key
    /// is not asked: it claims versions that its types do not have.
    pub(super) fn ours(self) -> VersionRange {
        let (library, min, max) = match self {
            ApiVersions::ListOffsets => (ListOffsetsRequest::VERSIONS, 1, 10),
            ApiVersions::Metadata => (MetadataRequest::VERSIONS, 0, 13),
            ApiVersions::OffsetFetch => (OffsetFetchRequest::VERSIONS, 1, 9),
            ApiVersions::FindCoordinator => (FindCoordinatorRequest::VERSIONS, 0, 6),
            ApiVersions::DescribeGroups => (DescribeGroupsRequest::VERSIONS, 0, 6),
            ApiVersions::ListGroups => (ListGroupsRequest::VERSIONS, 0, 5),
            // Version 0 sends what follows without Kafka's framing.
            ApiVersions::SaslHandshake => (SaslHandshakeRequest::VERSIONS, 1, 1),
            ApiVersions::ApiVersions => (ApiVersionsRequest::VERSIONS, 0, 3),
            ApiVersions::SaslAuthenticate => (SaslAuthenticateRequest::VERSIONS, 0, 2),
            ApiVersions::ConsumerGroupDescribe => (ConsumerGroupDescribeRequest::VERSIONS, 0, 1),
            ApiVersions::ShareGroupDescribe => (ShareGroupDescribeRequest::VERSIONS, 1, 1),
            // The library lacks it; its request is that of `ConsumerGroupDescribe`.
            ApiVersions::StreamsGroupDescribe => (ConsumerGroupDescribeRequest::VERSIONS, 0, 0),
            ApiVersions::DescribeShareGroupOffsets => {
                (DescribeShareGroupOffsetsRequest::VERSIONS, 0, 0)
            }
        };
        library.intersect(&VersionRange { min, max })
    }

    /// Whether the response's header ends in tagged fields.
    pub(super) fn has_flexible_header(self, version: i16) -> bool {
        let header = match self {
            ApiVersions::ListOffsets => ListOffsetsResponse::header_version(version),
            ApiVersions::Metadata => MetadataResponse::header_version(version),
            ApiVersions::OffsetFetch => OffsetFetchResponse::header_version(version),
            ApiVersions::FindCoordinator => FindCoordinatorResponse::header_version(version),
            ApiVersions::DescribeGroups => DescribeGroupsResponse::header_version(version),
            ApiVersions::ListGroups => ListGroupsResponse::header_version(version),
            ApiVersions::SaslHandshake => SaslHandshakeResponse::header_version(version),
            ApiVersions::ApiVersions => ApiVersionsResponse::header_version(version),
            ApiVersions::SaslAuthenticate => SaslAuthenticateResponse::header_version(version),
            ApiVersions::ConsumerGroupDescribe | ApiVersions::StreamsGroupDescribe => {
                ConsumerGroupDescribeResponse::header_version(version)
            }
            ApiVersions::ShareGroupDescribe => ShareGroupDescribeResponse::header_version(version),
            ApiVersions::DescribeShareGroupOffsets => {
                DescribeShareGroupOffsetsResponse::header_version(version)
            }
        };
        header >= 1
    }

    /// Whether the body begins with the time for which the broker wants to be left alone (KIP-219).
    pub(super) fn begins_with_throttle(self, version: i16) -> bool {
        match self {
            ApiVersions::ListOffsets => version >= 2,
            ApiVersions::Metadata | ApiVersions::OffsetFetch => version >= 3,
            ApiVersions::FindCoordinator
            | ApiVersions::DescribeGroups
            | ApiVersions::ListGroups => version >= 1,
            ApiVersions::ConsumerGroupDescribe
            | ApiVersions::ShareGroupDescribe
            | ApiVersions::StreamsGroupDescribe
            | ApiVersions::DescribeShareGroupOffsets => true,
            ApiVersions::SaslHandshake
            | ApiVersions::ApiVersions
            | ApiVersions::SaslAuthenticate => false,
        }
    }
}

/// What one broker can do, as it said when the connection was made.
#[derive(Clone, Debug, Default)]
pub(super) struct Versions(Vec<ApiRange>);

impl Versions {
    /// Keeps what is of use here.
    pub(super) fn new(ranges: &[ApiRange]) -> Self {
        let used = |range: &&ApiRange| ApiVersions::ALL.iter().any(|api| api.key() == range.0);
        Self(
            ranges
                .iter()
                .filter(used)
                .take(ApiVersions::ALL.len())
                .copied()
                .collect(),
        )
    }

    /// The highest version of `api` that both sides know.
    pub(super) fn of(&self, api: ApiVersions) -> Result<i16, Fault> {
        let theirs = self.0.iter().find(|range| range.0 == api.key());
        let common = theirs.map(|&(_, min, max)| api.ours().intersect(&VersionRange { min, max }));
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
        let versions = Versions::new(&[(9, 1, 99), (2, 0, 4), (10, 7, 9), (77, 0, 1)]);
        assert_eq!(versions.of(ApiVersions::OffsetFetch), Ok(9));
        assert_eq!(versions.of(ApiVersions::ListOffsets), Ok(4));
        assert_eq!(
            versions.of(ApiVersions::FindCoordinator),
            Err(Fault::Code(35))
        );
        assert_eq!(versions.of(ApiVersions::Metadata), Err(Fault::Code(35)));
    }

    #[test]
    fn a_response_that_begins_with_a_throttle_time_is_known_by_its_version() {
        use kafka_protocol::messages::FindCoordinatorResponse;
        use kafka_protocol::protocol::Encodable;
        for version in 1..=6 {
            let mut bytes = Vec::new();
            let response = FindCoordinatorResponse::default().with_throttle_time_ms(0x0102_0304);
            response.encode(&mut bytes, version).unwrap();
            assert!(ApiVersions::FindCoordinator.begins_with_throttle(version));
            assert_eq!(bytes[..4], [1, 2, 3, 4]);
        }
    }
}
