//! The names of a cluster's groups: every broker knows those that it coordinates.

use std::collections::BTreeSet;
use std::time::Instant;

use futures::future::join_all;
use kafka_protocol::messages::ListGroupsRequest;

use super::address::Address;
use super::versions::ApiVersions;
use super::{Inner, responses};
use crate::kafka::{GroupList, codes};
use crate::model::kafka::fault::Fault;
use crate::model::kafka::group::GroupKind;
use crate::model::units::newtypes::{GroupId, Moment};

impl Inner {
    pub(super) async fn list_groups(&self, deadline: Instant) -> GroupList {
        // Which brokers there are is asked with half of the time.
        let budget = deadline.saturating_duration_since(Instant::now());
        let by = (Instant::now() + budget / 2).into();
        let mut groups = BTreeSet::new();
        let mut faults = Vec::new();
        match self.cluster.refresh(&BTreeSet::new(), by).await {
            Err(fault) => faults.push(fault),
            Ok(known) => {
                let nodes = known.nodes.values();
                let asked = nodes.map(|node| self.groups_of(node, deadline.into()));
                for answer in join_all(asked).await {
                    match answer {
                        Ok(names) => groups.extend(names),
                        Err(fault) => faults.push(fault),
                    }
                }
            }
        }
        let silent = groups.is_empty() && faults.iter().any(|fault| fault.is_connection());
        GroupList {
            groups: groups.into_iter().collect(),
            connection: silent.then(|| self.health().silent(&self.bootstrap, Moment::now())),
            faults: faults.iter().map(Fault::to_string).collect(),
        }
    }

    async fn groups_of(
        &self,
        address: &Address,
        deadline: tokio::time::Instant,
    ) -> Result<Vec<GroupId>, Fault> {
        let broker = self.cluster.broker(address);
        let version = broker
            .versions(deadline)
            .await?
            .of(ApiVersions::ListGroups)?;
        let request = ListGroupsRequest::default();
        let body = broker
            .ask(ApiVersions::ListGroups, version, &request, deadline)
            .await?;
        let (code, names) = responses::list_groups(&body, version)
            .map_err(|error| self.cluster.garbled(address, &error))?;
        match code {
            codes::NONE => Ok(names
                .into_iter()
                .map(|(name, kind)| self.listed(name, kind))
                .collect()),
            code => Err(codes::fault_of(code.into())),
        }
    }

    /// The group, whose type is kept: it saves asking for it.
    fn listed(&self, name: &str, kind: &str) -> GroupId {
        let group = GroupId::from(name);
        let kind = match kind.to_ascii_lowercase().as_str() {
            "classic" => GroupKind::Classic,
            "consumer" => GroupKind::Consumer,
            "share" => GroupKind::Share,
            "streams" => GroupKind::Streams,
            _ => return group,
        };
        self.descriptions.learn(&group, kind);
        group
    }
}
