//! Which broker coordinates which group.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{StreamExt, stream};
use kafka_protocol::messages::FindCoordinatorRequest;
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::address::Address;
use super::broker::Broker;
use super::cluster::Cluster;
use super::responses::{self, CoordinatorEntry};
use super::versions::ApiVersions;
use crate::kafka::codes;
use crate::model::kafka::fault::Fault;
use crate::model::units::newtypes::GroupId;

/// Groups asked about in one request.
const BATCH: usize = 5000;

/// Requests under way at once where each is about one group.
const AT_ONCE: usize = 16;

/// Coordinators as they were last found.
#[derive(Debug, Default)]
pub(super) struct Coordinators(Mutex<HashMap<GroupId, Address>>);

/// Where a group's coordinator is: an address, or a broker's error code.
pub(super) type Location = Result<Address, i16>;

impl Coordinators {
    fn all(&self) -> MutexGuard<'_, HashMap<GroupId, Address>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, group: &GroupId) -> Option<Address> {
        self.all().get(group).cloned()
    }

    fn keep(&self, group: GroupId, address: Address) {
        self.all().insert(group, address);
    }

    /// Forgets a coordinator that is none, unless another has been found since.
    pub(super) fn forget(&self, group: &GroupId, address: &Address) {
        let mut all = self.all();
        if all.get(group) == Some(address) {
            all.remove(group);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all().len()
    }

    /// Lets go of groups that nobody reads any more.
    pub(super) fn retain(&self, wanted: impl Fn(&GroupId) -> bool) {
        self.all().retain(|group, _| wanted(group));
    }

    pub(super) fn addresses(&self) -> BTreeSet<Address> {
        self.all().values().cloned().collect()
    }
}

impl Cluster {
    /// Finds the groups' coordinators and keeps them; one result for each group, in their order.
    pub(super) async fn locate(
        &self,
        groups: &[GroupId],
        deadline: Instant,
    ) -> Result<Vec<Location>, Fault> {
        let ask = |broker: Arc<Broker>, address: Address| async move {
            let version = broker
                .versions(deadline)
                .await?
                .of(ApiVersions::FindCoordinator)?;
            let asked = &CoordinatorQuery {
                cluster: self,
                broker: &broker,
                address: &address,
                version,
                deadline,
            };
            if version < 4 {
                let mut each = Vec::new();
                for group in groups.chunks(1) {
                    each.push(asked.find(group));
                }
                let found: Vec<_> = stream::iter(each).buffered(AT_ONCE).collect().await;
                return found.into_iter().collect::<Result<Vec<_>, _>>();
            }
            let mut found = Vec::new();
            for batch in groups.chunks(BATCH) {
                found.push(asked.find(batch).await?);
            }
            Ok(found)
        };
        let found: Vec<Location> = self.any(deadline, ask).await?.concat();
        for (group, location) in groups.iter().zip(&found) {
            if let Ok(address) = location {
                self.coordinators.keep(group.clone(), address.clone());
            }
        }
        Ok(found)
    }
}

/// One broker, asked for coordinators.
struct CoordinatorQuery<'a> {
    cluster: &'a Cluster,
    broker: &'a Broker,
    address: &'a Address,
    version: i16,
    deadline: Instant,
}

impl CoordinatorQuery<'_> {
    /// Of these groups; below version 4, of one.
    async fn find(&self, groups: &[GroupId]) -> Result<Vec<Location>, Fault> {
        let mut keys = groups
            .iter()
            .map(|group| StrBytes::from_string(group.as_str().to_owned()));
        let request = FindCoordinatorRequest::default();
        // Key type 0, the default, is a group.
        let request = if self.version >= 4 {
            request.with_coordinator_keys(keys.collect())
        } else {
            request.with_key(keys.next().unwrap_or_default())
        };
        let body = self
            .broker
            .ask(
                ApiVersions::FindCoordinator,
                self.version,
                &request,
                self.deadline,
            )
            .await?;
        let found = responses::find_coordinator(&body, self.version)
            .map_err(|error| self.cluster.garbled(self.address, &error))?;
        let by_name: HashMap<_, _> = found
            .iter()
            .map(|entry| (entry.group, location(entry)))
            .collect();
        let of = |group: &GroupId| {
            let name = (self.version >= 4).then_some(group.as_str());
            let found = by_name.get(&name).cloned();
            found.unwrap_or(Err(codes::COORDINATOR_NOT_AVAILABLE))
        };
        Ok(groups.iter().map(of).collect())
    }
}

fn location(entry: &CoordinatorEntry<'_>) -> Location {
    if entry.code != codes::NONE {
        return Err(entry.code);
    }
    Address::advertised(entry.host, entry.port).ok_or(codes::COORDINATOR_NOT_AVAILABLE)
}
