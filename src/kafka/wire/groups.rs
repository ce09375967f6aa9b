//! Lists the groups of a cluster. Each broker lists those that it coordinates.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use futures::future::join_all;
use kafka_protocol::messages::ListGroupsRequest;

use super::address::Address;
use super::versions::ApiKey;
use super::{WireInner, responses};
use crate::kafka::group_listing::reported_names;
use crate::kafka::{GroupList, codes};
use crate::model::kafka::fault::Fault;
use crate::model::kafka::group::GroupKind;
use crate::model::units::newtypes::{GroupId, Moment};

impl WireInner {
    pub(super) async fn list_groups(&self, deadline: Instant) -> GroupList {
        // Finding the brokers gets half of the time.
        let budget = deadline.saturating_duration_since(Instant::now());
        let by = (Instant::now() + budget / 2).into();
        let (groups, faults) = match self.cluster.fetch_metadata(&BTreeSet::new(), by).await {
            Err(fault) => (BTreeSet::new(), vec![fault]),
            Ok(metadata) => {
                let nodes: Vec<_> = metadata.nodes.values().cloned().collect();
                let (listed, faults) = self.groups_of_all(&nodes, deadline.into()).await;
                let recorded = listed.into_iter().map(|(group, kind)| {
                    if let Some(kind) = kind {
                        self.descriptions.record_kind(&group, kind);
                    }
                    group
                });
                (recorded.collect(), faults)
            }
        };
        let silent = groups.is_empty() && faults.iter().any(|fault| fault.is_connection());
        GroupList {
            groups: groups.into_iter().collect(),
            connection: silent
                .then(|| self.health().record_silence(&self.bootstrap, Moment::now())),
            faults,
        }
    }

    /// Lists the names of groups of the brokers that answer in time during a sweep; `None` without a deadline.
    pub(super) async fn group_names(&self, deadline: Option<Instant>) -> Option<Vec<GroupId>> {
        let deadline = deadline?.into();
        let (groups, _) = self.groups_of_all(&self.cluster.nodes(), deadline).await;
        reported_names(groups.into_keys())
    }

    async fn groups_of_all(
        &self,
        nodes: &[Address],
        deadline: tokio::time::Instant,
    ) -> (BTreeMap<GroupId, Option<GroupKind>>, Vec<Fault>) {
        let (mut groups, mut faults) = (BTreeMap::new(), Vec::new());
        let requests = nodes.iter().map(|node| self.groups_of(node, deadline));
        for answer in join_all(requests).await {
            match answer {
                Ok(names) => groups.extend(names),
                Err(fault) => faults.push(fault),
            }
        }
        (groups, faults)
    }

    async fn groups_of(
        &self,
        address: &Address,
        deadline: tokio::time::Instant,
    ) -> Result<Vec<(GroupId, Option<GroupKind>)>, Fault> {
        let broker = self.cluster.broker(address);
        let version = broker
            .versions(deadline)
            .await?
            .highest_common(ApiKey::ListGroups)?;
        let request = ListGroupsRequest::default();
        let body = broker
            .send_request(ApiKey::ListGroups, version, &request, deadline)
            .await?;
        let (code, names) = responses::list_groups(&body, version)
            .map_err(|error| self.cluster.report_malformed(address, &error))?;
        match code {
            codes::NONE => Ok(names
                .into_iter()
                .map(|(name, kind)| (GroupId::from(name), kind_of(kind)))
                .collect()),
            code => Err(codes::fault_of(code.into())),
        }
    }
}

/// The kind of a group by its type, which saves a request later; `None` below version 5.
fn kind_of(group_type: &str) -> Option<GroupKind> {
    match group_type.to_ascii_lowercase().as_str() {
        "classic" => Some(GroupKind::Classic),
        "consumer" => Some(GroupKind::Consumer),
        "share" => Some(GroupKind::Share),
        "streams" => Some(GroupKind::Streams),
        _ => None,
    }
}
