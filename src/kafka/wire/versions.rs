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
pub(super) enum Api {
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

impl Api {
    /// All of them.
    pub(super) const ALL: [Self; 13] = [
        Api::ListOffsets,
        Api::Metadata,
        Api::OffsetFetch,
        Api::FindCoordinator,
        Api::ListGroups,
        Api::SaslHandshake,
        Api::ApiVersions,
        Api::SaslAuthenticate,
        Api::DescribeGroups,
        Api::ConsumerGroupDescribe,
        Api::ShareGroupDescribe,
        Api::StreamsGroupDescribe,
        Api::DescribeShareGroupOffsets,
    ];

    pub(super) fn key(self) -> i16 {
        match self {
            Api::ListOffsets => 2,
            Api::Metadata => 3,
            Api::OffsetFetch => 9,
            Api::FindCoordinator => 10,
            Api::DescribeGroups => 15,
            Api::ListGroups => 16,
            Api::SaslHandshake => 17,
            Api::ApiVersions => 18,
            Api::SaslAuthenticate => 36,
            Api::ConsumerGroupDescribe => 69,
            Api::ShareGroupDescribe => 77,
            Api::StreamsGroupDescribe => 89,
            Api::DescribeShareGroupOffsets => 90,
        }
    }

    /// The versions that the library can write and `responses` can read. The library's table by key
    /// is not asked: it claims versions that its types do not have.
    pub(super) fn ours(self) -> VersionRange {
        let (library, min, max) = match self {
            Api::ListOffsets => (ListOffsetsRequest::VERSIONS, 1, 10),
            Api::Metadata => (MetadataRequest::VERSIONS, 0, 13),
            Api::OffsetFetch => (OffsetFetchRequest::VERSIONS, 1, 9),
            Api::FindCoordinator => (FindCoordinatorRequest::VERSIONS, 0, 6),
            Api::DescribeGroups => (DescribeGroupsRequest::VERSIONS, 0, 6),
            Api::ListGroups => (ListGroupsRequest::VERSIONS, 0, 5),
            // Version 0 sends what follows without Kafka's framing.
            Api::SaslHandshake => (SaslHandshakeRequest::VERSIONS, 1, 1),
            Api::ApiVersions => (ApiVersionsRequest::VERSIONS, 0, 3),
            Api::SaslAuthenticate => (SaslAuthenticateRequest::VERSIONS, 0, 2),
            Api::ConsumerGroupDescribe => (ConsumerGroupDescribeRequest::VERSIONS, 0, 1),
            Api::ShareGroupDescribe => (ShareGroupDescribeRequest::VERSIONS, 1, 1),
            // The library lacks it; its request is that of `ConsumerGroupDescribe`.
            Api::StreamsGroupDescribe => (ConsumerGroupDescribeRequest::VERSIONS, 0, 0),
            Api::DescribeShareGroupOffsets => (DescribeShareGroupOffsetsRequest::VERSIONS, 0, 0),
        };
        library.intersect(&VersionRange { min, max })
    }

    /// Whether the response's header ends in tagged fields.
    pub(super) fn has_flexible_header(self, version: i16) -> bool {
        let header = match self {
            Api::ListOffsets => ListOffsetsResponse::header_version(version),
            Api::Metadata => MetadataResponse::header_version(version),
            Api::OffsetFetch => OffsetFetchResponse::header_version(version),
            Api::FindCoordinator => FindCoordinatorResponse::header_version(version),
            Api::DescribeGroups => DescribeGroupsResponse::header_version(version),
            Api::ListGroups => ListGroupsResponse::header_version(version),
            Api::SaslHandshake => SaslHandshakeResponse::header_version(version),
            Api::ApiVersions => ApiVersionsResponse::header_version(version),
            Api::SaslAuthenticate => SaslAuthenticateResponse::header_version(version),
            Api::ConsumerGroupDescribe | Api::StreamsGroupDescribe => {
                ConsumerGroupDescribeResponse::header_version(version)
            }
            Api::ShareGroupDescribe => ShareGroupDescribeResponse::header_version(version),
            Api::DescribeShareGroupOffsets => {
                DescribeShareGroupOffsetsResponse::header_version(version)
            }
        };
        header >= 1
    }

    /// Whether the body begins with the time for which the broker wants to be left alone (KIP-219).
    pub(super) fn begins_with_throttle(self, version: i16) -> bool {
        match self {
            Api::ListOffsets => version >= 2,
            Api::Metadata | Api::OffsetFetch => version >= 3,
            Api::FindCoordinator | Api::DescribeGroups | Api::ListGroups => version >= 1,
            Api::ConsumerGroupDescribe
            | Api::ShareGroupDescribe
            | Api::StreamsGroupDescribe
            | Api::DescribeShareGroupOffsets => true,
            Api::SaslHandshake | Api::ApiVersions | Api::SaslAuthenticate => false,
        }
    }
}

/// What one broker can do, as it said when the connection was made.
#[derive(Clone, Debug, Default)]
pub(super) struct Versions(Vec<ApiRange>);

impl Versions {
    /// Keeps what is of use here.
    pub(super) fn new(ranges: &[ApiRange]) -> Self {
        let used = |range: &&ApiRange| Api::ALL.iter().any(|api| api.key() == range.0);
        Self(
            ranges
                .iter()
                .filter(used)
                .take(Api::ALL.len())
                .copied()
                .collect(),
        )
    }

    /// The highest version of `api` that both sides know.
    pub(super) fn of(&self, api: Api) -> Result<i16, Fault> {
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
        assert_eq!(versions.of(Api::OffsetFetch), Ok(9));
        assert_eq!(versions.of(Api::ListOffsets), Ok(4));
        assert_eq!(versions.of(Api::FindCoordinator), Err(Fault::Code(35)));
        assert_eq!(versions.of(Api::Metadata), Err(Fault::Code(35)));
    }

    #[test]
    fn a_response_that_begins_with_a_throttle_time_is_known_by_its_version() {
        use kafka_protocol::messages::FindCoordinatorResponse;
        use kafka_protocol::protocol::Encodable;
        for version in 1..=6 {
            let mut bytes = Vec::new();
            let response = FindCoordinatorResponse::default().with_throttle_time_ms(0x0102_0304);
            response.encode(&mut bytes, version).unwrap();
            assert!(Api::FindCoordinator.begins_with_throttle(version));
            assert_eq!(bytes[..4], [1, 2, 3, 4]);
        }
    }
}
