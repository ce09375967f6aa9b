//! Reads committed offsets: one `OffsetFetch` for all groups of a coordinator (KIP-709), or one per
//! group with older brokers.

use std::collections::HashMap;
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::ready;
use futures::stream::{self, BoxStream, SelectAll};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::address::Address;
use super::broker::Broker;
use super::cluster::WireCluster;
use super::offset_fetch::{FetchedOffsets, MAX_FETCHED_TOPICS, OffsetFetchBody, OffsetFetchQuery};
use super::responses;
use super::versions::ApiKey;
use crate::kafka::codes;
use crate::model::kafka::fault::Fault;
use crate::model::units::newtypes::GroupId;

/// Maximum number of groups, and of their partitions, in one request. They keep the response far below the frame limit,
/// unless consumers store kilobytes of metadata with each offset.
const MAX_GROUPS: usize = 1000;
const MAX_PARTITIONS: usize = 20_000;

/// Maximum number of concurrent requests of a sweep to one broker.
const MAX_IN_FLIGHT: usize = 16;

/// Maximum number of attempts per group and sweep.
const MAX_ATTEMPTS: u32 = 6;

/// Retries are made at multiples of this time, together. Otherwise there would be a separate request for the
/// coordinator of each group, because old brokers answer group by group.
const RETRY_SLOT: Duration = Duration::from_millis(25);

/// Result for one group, by its index in [`CommitSweep::queries`].
struct CommitOutcome {
    group: usize,
    result: Result<FetchedOffsets, Fault>,
    retry: Retry,
}

/// Whether and where to retry a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retry {
    No,
    /// Ask the same broker again, after a pause.
    SameBroker,
    /// Ask the group's new coordinator.
    NewCoordinator,
    /// Look up the group's coordinator and ask it, but only once: until the cluster notices that a broker has failed,
    /// it still names that broker.
    NewCoordinatorOnce,
}

/// A completed step, or retries that are due.
enum CommitStep {
    /// Coordinators were found.
    Located(Vec<(usize, Result<Address, Fault>, Retry)>),
    /// Offsets were fetched.
    Fetched(Address, Vec<CommitOutcome>),
    /// The retries of this time are due.
    Retry(Instant),
}

type CommitSteps<'s> = SelectAll<BoxStream<'s, CommitStep>>;

/// A group, by its index in [`CommitSweep::queries`], and the broker to send to; `None` to find its coordinator first.
type NextStep = (usize, Option<Address>);

/// Reads the committed offsets of one sweep.
pub(super) struct CommitSweep<'a> {
    pub(super) cluster: &'a WireCluster,
    pub(super) queries: &'a [OffsetFetchQuery],
    pub(super) deadline: Instant,
}

/// State of a [`CommitSweep`] under way.
struct CommitRun<'s> {
    sweep: &'s CommitSweep<'s>,
    results: Vec<Result<FetchedOffsets, Fault>>,
    attempts: Vec<u32>,
    steps: CommitSteps<'s>,
    /// By the time at which they are due.
    retries: BTreeMap<Instant, Vec<NextStep>>,
    /// When the first step began.
    begun: Instant,
    /// Permits to send a request, by broker.
    permits: BTreeMap<Address, Arc<Semaphore>>,
}

impl<'a> CommitSweep<'a> {
    /// Fetches the offsets of every group; one result per group, in order, by the deadline. Groups
    /// of different coordinators progress independently, so a slow coordinator delays no other.
    pub(super) async fn run(&self) -> Vec<Result<FetchedOffsets, Fault>> {
        let mut run = CommitRun {
            sweep: self,
            results: self.queries.iter().map(|_| Err(Fault::NoAnswer)).collect(),
            attempts: vec![0; self.queries.len()],
            steps: SelectAll::new(),
            retries: BTreeMap::new(),
            begun: Instant::now(),
            permits: BTreeMap::new(),
        };
        let coordinators = &self.cluster.coordinators;
        let all = self.queries.iter().enumerate();
        run.dispatch(all.map(|(group, query)| (group, coordinators.get(&query.group))));
        // At the deadline, results so far count and the rest stay `NoAnswer`.
        while let Ok(Some(step)) = timeout_at(self.deadline, run.steps.next()).await {
            run.finish(step);
        }
        run.results
    }

    fn group(&self, group: usize) -> Option<&'a GroupId> {
        self.queries.get(group).map(|query| &query.group)
    }

    async fn find_coordinators(
        &self,
        groups: &[usize],
    ) -> Vec<(usize, Result<Address, Fault>, Retry)> {
        let names: Vec<_> = groups
            .iter()
            .filter_map(|&group| self.group(group).cloned())
            .collect();
        let found = self.cluster.find_coordinators(&names, self.deadline).await;
        let each = |(place, &group): (usize, &usize)| match &found {
            Err(fault) => (group, Err(*fault), Retry::No),
            Ok(found) => match found.get(place) {
                Some(Ok(address)) => (group, Ok(address.clone()), Retry::No),
                Some(Err(code)) => (
                    group,
                    Err(codes::fault_of((*code).into())),
                    retry_for(*code),
                ),
                None => (group, Err(Fault::NoAnswer), Retry::No),
            },
        };
        groups.iter().enumerate().map(each).collect()
    }

    /// Fetches the offsets of groups from their coordinator. Each batch is a separate step, so that results count even
    /// if the deadline passes before the other batches are answered.
    fn fetch<'s>(
        &'s self,
        address: Address,
        groups: Vec<usize>,
        permits: Arc<Semaphore>,
    ) -> BoxStream<'s, CommitStep> {
        let broker = self.cluster.broker(&address);
        let versions = {
            let broker = Arc::clone(&broker);
            async move {
                let versions = broker.versions(self.deadline).await;
                versions.and_then(|versions| versions.highest_common(ApiKey::OffsetFetch))
            }
        };
        let batches = move |version: Result<i16, Fault>| -> BoxStream<'s, CommitStep> {
            let (address, broker) = (address.clone(), Arc::clone(&broker));
            let permits = Arc::clone(&permits);
            let version = match version {
                Ok(version) => version,
                Err(fault) => {
                    let failed = CommitStep::Fetched(address, fail_all(&groups, fault));
                    return stream::once(ready(failed)).boxed();
                }
            };
            let batches = if version >= 8 {
                self.batches(&groups)
            } else {
                groups.iter().map(|group| vec![*group]).collect()
            };
            let fetches = batches.into_iter().map(move |batch| {
                let (address, broker) = (address.clone(), Arc::clone(&broker));
                let permits = Arc::clone(&permits);
                async move {
                    // Never closed.
                    let _permit = permits.acquire().await;
                    let outcomes = self.fetch_batch(&broker, &address, version, batch).await;
                    CommitStep::Fetched(address, outcomes)
                }
            });
            stream::iter(fetches)
                .buffer_unordered(MAX_IN_FLIGHT)
                .boxed()
        };
        stream::once(versions).flat_map(batches).boxed()
    }

    fn batches(&self, groups: &[usize]) -> Vec<Vec<usize>> {
        let mut batches = vec![Vec::new()];
        let mut partitions = 0_usize;
        for &group in groups {
            let more = self
                .queries
                .get(group)
                .map_or(0, OffsetFetchQuery::expected_partitions);
            partitions = partitions.saturating_add(more);
            let is_full = |batch: &Vec<usize>| {
                !batch.is_empty() && (batch.len() >= MAX_GROUPS || partitions > MAX_PARTITIONS)
            };
            if batches.last().is_some_and(is_full) {
                batches.push(Vec::new());
                partitions = more;
            }
            if let Some(batch) = batches.last_mut() {
                batch.push(group);
            }
        }
        batches
    }

    async fn fetch_batch(
        &self,
        broker: &Broker,
        address: &Address,
        version: i16,
        batch: Vec<usize>,
    ) -> Vec<CommitOutcome> {
        let queries: Vec<_> = batch
            .iter()
            .filter_map(|&group| Some((group, self.queries.get(group)?)))
            .collect();
        let request = OffsetFetchBody(queries.iter().map(|(_, query)| *query).collect());
        let answer = broker
            .send_request(ApiKey::OffsetFetch, version, &request, self.deadline)
            .await;
        let body = match answer {
            Ok(body) => body,
            Err(fault) => return fail_all(&batch, fault),
        };
        let by_name: HashMap<_, _> = queries
            .iter()
            .map(|&(group, query)| {
                // Before version 8 the response does not name the only group of the request.
                let name = (version >= 8).then_some(query.group.as_str());
                (name, (group, query))
            })
            .collect();
        let mut room = MAX_FETCHED_TOPICS;
        let mut outcomes = Vec::with_capacity(queries.len());
        let decoded = responses::offset_fetch(&body, version, |name, code, offsets| {
            let Some(&(group, query)) = by_name.get(&name) else {
                return;
            };
            let result = if code == codes::NONE {
                FetchedOffsets::new(query, offsets.topics(), &mut room)
            } else {
                Err(codes::fault_of(code.into()))
            };
            outcomes.push(CommitOutcome {
                group,
                result,
                retry: retry_for(code),
            });
        });
        match decoded {
            Ok(()) => outcomes,
            Err(error) => fail_all(&batch, self.cluster.report_malformed(address, &error)),
        }
    }
}

impl CommitRun<'_> {
    /// Records the result of a step, and queues the next steps.
    fn finish(&mut self, step: CommitStep) {
        match step {
            CommitStep::Located(found) => {
                let mut located = Vec::new();
                for (group, address, retry) in found {
                    match address {
                        Ok(address) => located.push((group, Some(address))),
                        Err(fault) => {
                            self.set_result(group, Err(fault));
                            if retry != Retry::No {
                                self.retry(group, None, MAX_ATTEMPTS);
                            }
                        }
                    }
                }
                self.dispatch(located.into_iter());
            }
            CommitStep::Fetched(address, outcomes) => {
                for outcome in outcomes {
                    let group = outcome.group;
                    self.set_result(group, outcome.result);
                    match outcome.retry {
                        Retry::No => {}
                        Retry::SameBroker => self.retry(group, Some(&address), MAX_ATTEMPTS),
                        Retry::NewCoordinator | Retry::NewCoordinatorOnce => {
                            if let Some(id) = self.sweep.group(group) {
                                self.sweep.cluster.coordinators.forget(id, &address);
                            }
                            let once = outcome.retry == Retry::NewCoordinatorOnce;
                            self.retry(group, None, if once { 1 } else { MAX_ATTEMPTS });
                        }
                    }
                }
            }
            CommitStep::Retry(due) => {
                let groups = self.retries.remove(&due).unwrap_or_default();
                self.dispatch(groups.into_iter());
            }
        }
    }

    fn set_result(&mut self, group: usize, result: Result<FetchedOffsets, Fault>) {
        if let Some(slot) = self.results.get_mut(group) {
            *slot = result;
        }
    }

    /// Queues another attempt at a group after a pause, if it has had fewer than `most`.
    fn retry(&mut self, group: usize, address: Option<&Address>, most: u32) {
        let Some(attempt) = self.attempts.get_mut(group) else {
            return;
        };
        *attempt = attempt.saturating_add(1);
        if *attempt > most {
            return;
        }
        let pause = Duration::from_millis(25) * (1 << (*attempt).min(5));
        let due = retry_time(self.begun, Instant::now() + pause);
        let next = (group, address.cloned());
        match self.retries.entry(due) {
            Entry::Occupied(mut retries) => retries.get_mut().push(next),
            Entry::Vacant(retries) => {
                retries.insert(vec![next]);
                let wait = async move {
                    sleep_until(due).await;
                    CommitStep::Retry(due)
                };
                self.steps.push(stream::once(wait).boxed());
            }
        }
    }
}

impl<'s> CommitRun<'s> {
    /// Queues the next step of each group: fetch its offsets, or find its coordinator where that is
    /// not known.
    fn dispatch(&mut self, groups: impl Iterator<Item = NextStep>) {
        let sweep: &'s CommitSweep<'s> = self.sweep;
        let mut lost = Vec::new();
        let mut by_address: BTreeMap<Address, Vec<usize>> = BTreeMap::new();
        for (group, address) in groups {
            match address {
                Some(address) => by_address.entry(address).or_default().push(group),
                None => lost.push(group),
            }
        }
        if !lost.is_empty() {
            let locate = async move { CommitStep::Located(sweep.find_coordinators(&lost).await) };
            self.steps.push(stream::once(locate).boxed());
        }
        for (address, groups) in by_address {
            let permits = self.permits.entry(address.clone());
            let permits = permits.or_insert_with(|| Arc::new(Semaphore::new(MAX_IN_FLIGHT)));
            let fetch = sweep.fetch(address, groups, Arc::clone(permits));
            self.steps.push(fetch);
        }
    }
}

/// Rounds the time of a retry up to a multiple of [`RETRY_SLOT`] since a sweep began.
fn retry_time(begun: Instant, earliest: Instant) -> Instant {
    let since = earliest.saturating_duration_since(begun).as_millis();
    let slots = since / RETRY_SLOT.as_millis() + 1;
    begun + RETRY_SLOT.saturating_mul(u32::try_from(slots).unwrap_or(u32::MAX))
}

/// The same fault for all groups. If the connection failed, the coordinator may have moved.
fn fail_all(groups: &[usize], fault: Fault) -> Vec<CommitOutcome> {
    let again = if fault.is_connection() && fault != Fault::NoAnswer {
        Retry::NewCoordinatorOnce
    } else {
        Retry::No
    };
    let outcome = |&group: &usize| CommitOutcome {
        group,
        result: Err(fault),
        retry: again,
    };
    groups.iter().map(outcome).collect()
}

fn retry_for(code: i16) -> Retry {
    if codes::is_coordinator_stale(code) {
        Retry::NewCoordinator
    } else if codes::is_retriable_here(code) {
        Retry::SameBroker
    } else {
        Retry::No
    }
}
