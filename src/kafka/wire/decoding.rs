//! Every response reader by the key of its API, for the tests that feed them bytes of all kinds.

use std::ops::RangeInclusive;

use super::cursor::Malformed;
use super::describe::described;
use super::topics::TopicCatalog;
use super::versions::ApiVersions;
use super::{responses, share_offsets};
use crate::model::kafka::group::GroupKind;

/// Each API whose responses are read here, by its key, with the versions that are asked for.
#[must_use]
pub fn apis() -> Vec<(i16, RangeInclusive<i16>)> {
    let range = |api: &ApiVersions| {
        let versions = api.ours();
        (api.key(), versions.min..=versions.max)
    };
    ApiVersions::ALL.iter().map(range).collect()
}

/// Reads all that there is in a response's body; whether it is well-formed.
#[must_use]
pub fn is_well_formed(key: i16, version: i16, body: &[u8]) -> bool {
    let api = ApiVersions::ALL.iter().find(|api| api.key() == key);
    api.is_some_and(|api| read(*api, version, body).is_ok())
}

fn read(api: ApiVersions, version: i16, body: &[u8]) -> Result<(), Malformed> {
    match api {
        ApiVersions::ListOffsets => {
            responses::list_offsets(body, version)?
                .topics()
                .for_each(drop);
        }
        ApiVersions::Metadata => drop(responses::metadata(body, version)?),
        ApiVersions::OffsetFetch => {
            let found = responses::offset_fetch(body, version)?;
            found
                .groups()
                .for_each(|(_, _, topics)| topics.for_each(drop));
        }
        ApiVersions::FindCoordinator => drop(responses::find_coordinator(body, version)?),
        ApiVersions::ListGroups => drop(responses::list_groups(body, version)?),
        ApiVersions::SaslHandshake => drop(responses::sasl_handshake(body)?),
        ApiVersions::ApiVersions => drop(responses::api_versions(body, version)?),
        ApiVersions::DescribeGroups => describe(GroupKind::Classic, body, version)?,
        ApiVersions::ConsumerGroupDescribe => describe(GroupKind::Consumer, body, version)?,
        ApiVersions::ShareGroupDescribe => describe(GroupKind::Share, body, version)?,
        ApiVersions::StreamsGroupDescribe => describe(GroupKind::Streams, body, version)?,
        ApiVersions::DescribeShareGroupOffsets => drop(share_offsets::share_offsets(body)?),
        ApiVersions::SaslAuthenticate => {
            responses::sasl_authenticate(body, version)?;
        }
    }
    Ok(())
}

fn describe(kind: GroupKind, body: &[u8], version: i16) -> Result<(), Malformed> {
    described(kind, body, version, &TopicCatalog::default()).map(drop)
}
