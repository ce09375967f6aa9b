//! Lists the groups of a cluster. Each broker lists those that it coordinates.

use std::collections::BTreeSet;
use std::time::Instant;

use futures::future::join_all;
use kafka_protocol::messages::ListGroupsRequest;

use super::address::Address;
use super::versions::ApiKey;
use super::{WireInner, responses};
use crate::kafka::{GroupList, codes};
use crate::model::kafka::fault::Fault;
use crate::model::kafka::group::GroupKind;
use crate::model::units::newtypes::{GroupId, Moment};

impl WireInner {
    pub(super) async fn list_groups(&self, deadline: Instant) -> GroupList {
        // Finding the brokers gets half of the time.
        let budget = deadline.saturating_duration_since(Instant::now());
        let by = (Instant::now() + budget / 2).into();
        let mut groups = BTreeSet::new();
        let mut faults = Vec::new();
        match self.cluster.fetch_metadata(&BTreeSet::new(), by).await {
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
            connection: silent
                .then(|| self.health().record_silence(&self.bootstrap, Moment::now())),
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
                .map(|(name, kind)| self.listed(name, kind))
                .collect()),
            code => Err(codes::fault_of(code.into())),
        }
    }

    /// Records the group's type, which saves a request later.
    fn listed(&self, name: &str, kind: &str) -> GroupId {
        let group = GroupId::from(name);
        let kind = match kind.to_ascii_lowercase().as_str() {
            "classic" => GroupKind::Classic,
            "consumer" => GroupKind::Consumer,
            "share" => GroupKind::Share,
            "streams" => GroupKind::Streams,
            _ => return group,
        };
        self.descriptions.record_kind(&group, kind);
        group
    }
}
