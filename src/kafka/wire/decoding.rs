//! Access to every response decoder by API key, for fuzz tests.

use std::ops::RangeInclusive;

use super::cursor::Malformed;
use super::describe::decode_groups;
use super::responses::MetadataLimits;
use super::topics::ClusterMetadata;
use super::versions::ApiKey;
use super::{responses, share_offsets};
use crate::model::kafka::group::GroupKind;

/// Keys of the APIs decoded here, with the versions requested.
#[must_use]
pub fn apis() -> Vec<(i16, RangeInclusive<i16>)> {
    let range = |api: &ApiKey| {
        let versions = api.client_versions();
        (api.key(), versions.min..=versions.max)
    };
    ApiKey::ALL.iter().map(range).collect()
}

/// Decodes a response's body completely; returns whether it is well-formed.
#[must_use]
pub fn is_well_formed(key: i16, version: i16, body: &[u8]) -> bool {
    let api = ApiKey::ALL.iter().find(|api| api.key() == key);
    api.is_some_and(|api| read(*api, version, body).is_ok())
}

fn read(api: ApiKey, version: i16, body: &[u8]) -> Result<(), Malformed> {
    match api {
        ApiKey::ListOffsets => responses::list_offsets(body, version, |_, _| {})?,
        ApiKey::Metadata => {
            responses::metadata(body, version, MetadataLimits::NONE)?;
        }
        ApiKey::OffsetFetch => {
            responses::offset_fetch(body, version, |_, _, offsets| {
                offsets.topics().for_each(drop)
            })?;
        }
        ApiKey::FindCoordinator => drop(responses::find_coordinator(body, version)?),
        ApiKey::ListGroups => drop(responses::list_groups(body, version)?),
        ApiKey::SaslHandshake => drop(responses::sasl_handshake(body)?),
        ApiKey::ApiVersions => drop(responses::api_versions(body, version)?),
        ApiKey::DescribeGroups => describe(GroupKind::Classic, body, version)?,
        ApiKey::ConsumerGroupDescribe => describe(GroupKind::Consumer, body, version)?,
        ApiKey::ShareGroupDescribe => describe(GroupKind::Share, body, version)?,
        ApiKey::StreamsGroupDescribe => describe(GroupKind::Streams, body, version)?,
        ApiKey::DescribeShareGroupOffsets => {
            drop(share_offsets::decode_share_offsets(body, version)?)
        }
        ApiKey::DescribeConfigs => drop(responses::topic_config(body, version)?),
        ApiKey::CreatePartitions => drop(responses::create_partitions(body, version)?),
        ApiKey::SaslAuthenticate => {
            responses::sasl_authenticate(body, version)?;
        }
    }
    Ok(())
}

fn describe(kind: GroupKind, body: &[u8], version: i16) -> Result<(), Malformed> {
    decode_groups(kind, body, version, &ClusterMetadata::default()).map(drop)
}
