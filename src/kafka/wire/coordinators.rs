//! Finds and caches the coordinators of groups.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt, stream};
use kafka_protocol::messages::FindCoordinatorRequest;
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::address::Address;
use super::broker::Broker;
use super::cluster::WireCluster;
use super::connection::ResponseLimit;
use super::responses::{self, CoordinatorEntry};
use super::versions::ApiKey;
use crate::kafka::codes;
use crate::model::kafka::fault::Fault;
use crate::model::units::newtypes::GroupId;

/// Maximum groups per request.
const MAX_GROUPS: usize = 5000;

/// Maximum concurrent requests where each names a single group (below version 4).
const MAX_IN_FLIGHT: usize = 16;

/// Maximum size of a coordinator in a response, without the group: a host and a message.
const MAX_COORDINATOR_BYTES: usize = 2048;

/// Coordinators as last found.
#[derive(Debug, Default)]
pub(super) struct CoordinatorCache(Mutex<FoundCoordinators>);

/// The coordinator of each group, and when it was found.
type FoundCoordinators = HashMap<GroupId, (Address, Instant)>;

/// A coordinator's address, or the broker's error code.
pub(super) type Location = Result<Address, i16>;

impl CoordinatorCache {
    fn all(&self) -> MutexGuard<'_, FoundCoordinators> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, group: &GroupId) -> Option<Address> {
        self.all().get(group).map(|(address, _)| address.clone())
    }

    pub(super) fn insert(&self, group: GroupId, address: Address) {
        self.all().insert(group, (address, Instant::now()));
    }

    /// Forgets a group's coordinator, unless another has been found since.
    pub(super) fn forget(&self, group: &GroupId, address: &Address) {
        let mut all = self.all();
        if all.get(group).is_some_and(|(found, _)| found == address) {
            all.remove(group);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all().len()
    }

    /// Evicts groups that are no longer read.
    pub(super) fn retain(&self, wanted: impl Fn(&GroupId) -> bool) {
        self.all().retain(|group, _| wanted(group));
    }

    /// Evicts coordinators of this age at addresses that `is_unadvertised` selects.
    pub(super) fn forget_older(&self, age: Duration, is_unadvertised: impl Fn(&Address) -> bool) {
        self.all()
            .retain(|_, (address, found)| found.elapsed() < age || !is_unadvertised(address));
    }

    pub(super) fn addresses(&self) -> BTreeSet<Address> {
        let all = self.all();
        all.values().map(|(address, _)| address.clone()).collect()
    }
}

impl WireCluster {
    /// Finds and caches the coordinators of groups; one result per group, in order.
    pub(super) async fn find_coordinators(
        &self,
        groups: &[GroupId],
        deadline: Instant,
    ) -> Result<Vec<Location>, Fault> {
        let send = |broker: Arc<Broker>, address: Address| async move {
            let version = broker
                .versions(deadline)
                .await?
                .highest_common(ApiKey::FindCoordinator)?;
            let lookup = &CoordinatorLookup {
                cluster: self,
                broker: &broker,
                address: &address,
                version,
                deadline,
            };
            if version < 4 {
                let mut each = Vec::new();
                for group in groups.chunks(1) {
                    each.push(lookup.find(group));
                }
                let found: Vec<_> = stream::iter(each).buffered(MAX_IN_FLIGHT).collect().await;
                return found.into_iter().collect::<Result<Vec<_>, _>>();
            }
            let mut found = Vec::new();
            for batch in groups.chunks(MAX_GROUPS) {
                found.push(lookup.find(batch).await?);
            }
            Ok(found)
        };
        let found: Vec<Location> = self.request_from_any(deadline, send).await?.concat();
        for (group, location) in groups.iter().zip(&found) {
            if let Ok(address) = location {
                self.coordinators.insert(group.clone(), address.clone());
            }
        }
        Ok(found)
    }
}

/// `FindCoordinator` requests to one broker.
struct CoordinatorLookup<'a> {
    cluster: &'a WireCluster,
    broker: &'a Broker,
    address: &'a Address,
    version: i16,
    deadline: Instant,
}

impl CoordinatorLookup<'_> {
    /// Finds the coordinators of these groups; below version 4 there may be only one.
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
        let limit = groups.iter().fold(MAX_COORDINATOR_BYTES, |all, group| {
            let one = group.as_str().len().saturating_add(MAX_COORDINATOR_BYTES);
            all.saturating_add(one)
        });
        let body = self
            .broker
            .send_bounded_request(
                ApiKey::FindCoordinator,
                self.version,
                &request,
                ResponseLimit::Expected(limit),
                self.deadline,
            )
            .await?;
        let found = responses::find_coordinator(&body, self.version)
            .map_err(|error| self.cluster.report_malformed(self.address, &error))?;
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
