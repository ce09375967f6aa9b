//! Committed offsets: all the groups of a coordinator in one `OffsetFetch` (KIP-709), group by group
//! where the broker is too old for that.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, FuturesUnordered};
use futures::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep, timeout_at};

use super::address::Address;
use super::broker::Broker;
use super::cluster::Cluster;
use super::offset_fetch::{FetchedOffsets, OffsetFetchQuery, request};
use super::responses;
use super::versions::ApiVersions;
use crate::kafka::codes;
use crate::model::kafka::fault::Fault;
use crate::model::units::newtypes::GroupId;

/// Groups, and partitions, of one request at most: the answer stays far below the frame's limit
/// unless consumers leave kilobytes beside each offset.
const GROUPS: usize = 1000;
const PARTITIONS: usize = 20_000;

/// Requests to one broker under way at once.
const AT_ONCE: usize = 16;

/// How often a group is asked about in one sweep.
const ATTEMPTS: u32 = 6;

/// One group's result, by its place among those asked about.
struct CommitOutcome {
    group: usize,
    result: Result<FetchedOffsets, Fault>,
    again: Again,
}

/// Whether a group may be asked about once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    No,
    /// At the same broker, in a moment.
    Wait,
    /// At its coordinator, which is another one by now.
    Elsewhere,
    /// At its coordinator, which may be another one by now, but only once: until the cluster finds
    /// out that a broker is gone, it names that broker.
    Moved,
}

/// Groups on their way: to a coordinator that is to be found, or that is known.
enum CommitStep {
    Located(Vec<(usize, Result<Address, Fault>, Again)>),
    Fetched(Address, Vec<CommitOutcome>),
}

/// One sweep's committed offsets.
pub(super) struct CommitSweep<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) asked: &'a [OffsetFetchQuery],
    pub(super) deadline: Instant,
}

impl<'a> CommitSweep<'a> {
    /// Asks about every group; one result for each, by the deadline. Groups of one coordinator wait
    /// for no other's.
    pub(super) async fn run(&self) -> Vec<Result<FetchedOffsets, Fault>> {
        let mut results: Vec<_> = self.asked.iter().map(|_| Err(Fault::NoAnswer)).collect();
        let mut attempts = vec![0_u32; self.asked.len()];
        let mut steps: FuturesUnordered<BoxFuture<'_, CommitStep>> = FuturesUnordered::new();
        let everyone = (0..self.asked.len())
            .filter(|&group| self.group(group).is_some())
            .map(|group| {
                let kept = self
                    .group(group)
                    .and_then(|g| self.cluster.coordinators.get(g));
                (group, kept)
            });
        self.send(everyone, Duration::ZERO, &mut steps);
        // By the deadline what has come counts.
        while let Ok(Some(step)) = timeout_at(self.deadline, steps.next()).await {
            let mut again: BTreeMap<u32, Vec<(usize, Option<Address>)>> = BTreeMap::new();
            let mut retry = |group: usize, address: Option<Address>, most: u32| {
                let Some(attempt) = attempts.get_mut(group) else {
                    return;
                };
                *attempt = attempt.saturating_add(1);
                if *attempt <= most {
                    again.entry(*attempt).or_default().push((group, address));
                }
            };
            match step {
                CommitStep::Located(found) => {
                    let mut known = Vec::new();
                    for (group, address, again) in found {
                        match address {
                            Ok(address) => known.push((group, Some(address))),
                            Err(fault) => {
                                set(&mut results, group, Err(fault));
                                if again != Again::No {
                                    retry(group, None, ATTEMPTS);
                                }
                            }
                        }
                    }
                    self.send(known.into_iter(), Duration::ZERO, &mut steps);
                }
                CommitStep::Fetched(address, outcomes) => {
                    for outcome in outcomes {
                        set(&mut results, outcome.group, outcome.result);
                        match outcome.again {
                            Again::No => {}
                            Again::Wait => retry(outcome.group, Some(address.clone()), ATTEMPTS),
                            Again::Elsewhere | Again::Moved => {
                                if let Some(group) = self.group(outcome.group) {
                                    self.cluster.coordinators.forget(group, &address);
                                }
                                let once = outcome.again == Again::Moved;
                                retry(outcome.group, None, if once { 1 } else { ATTEMPTS });
                            }
                        }
                    }
                }
            }
            for (attempt, groups) in again {
                let pause = Duration::from_millis(25) * (1 << attempt.min(5));
                self.send(groups.into_iter(), pause, &mut steps);
            }
        }
        results
    }

    fn group(&self, group: usize) -> Option<&'a GroupId> {
        self.asked.get(group).map(|asked| &asked.group)
    }

    /// Sends groups on to their coordinators, or has those be found.
    fn send<'s>(
        &'s self,
        groups: impl Iterator<Item = (usize, Option<Address>)>,
        pause: Duration,
        steps: &mut FuturesUnordered<BoxFuture<'s, CommitStep>>,
    ) {
        let mut lost = Vec::new();
        let mut by_address: BTreeMap<Address, Vec<usize>> = BTreeMap::new();
        for (group, address) in groups {
            match address {
                Some(address) => by_address.entry(address).or_default().push(group),
                None => lost.push(group),
            }
        }
        if !lost.is_empty() {
            let locate = async move {
                sleep(pause).await;
                CommitStep::Located(self.locate(&lost).await)
            };
            steps.push(locate.boxed());
        }
        for (address, groups) in by_address {
            let fetch = async move {
                sleep(pause).await;
                let outcomes = self.fetch(&address, &groups).await;
                CommitStep::Fetched(address, outcomes)
            };
            steps.push(fetch.boxed());
        }
    }

    async fn locate(&self, groups: &[usize]) -> Vec<(usize, Result<Address, Fault>, Again)> {
        let names: Vec<_> = groups
            .iter()
            .filter_map(|&group| self.group(group).cloned())
            .collect();
        let found = self.cluster.locate(&names, self.deadline).await;
        let each = |(place, &group): (usize, &usize)| match &found {
            Err(fault) => (group, Err(*fault), Again::No),
            Ok(found) => match found.get(place) {
                Some(Ok(address)) => (group, Ok(address.clone()), Again::No),
                Some(Err(code)) => (group, Err(codes::fault_of((*code).into())), again(*code)),
                None => (group, Err(Fault::NoAnswer), Again::No),
            },
        };
        groups.iter().enumerate().map(each).collect()
    }

    /// Asks one coordinator about its groups.
    async fn fetch(&self, address: &Address, groups: &[usize]) -> Vec<CommitOutcome> {
        let broker = self.cluster.broker(address);
        let version = broker.versions(self.deadline).await;
        let version = match version.and_then(|versions| versions.of(ApiVersions::OffsetFetch)) {
            Ok(version) => version,
            Err(fault) => return all(groups, fault),
        };
        let batches = if version >= 8 {
            self.batches(groups)
        } else {
            groups.iter().map(|group| vec![*group]).collect()
        };
        let each = batches
            .into_iter()
            .map(|batch| self.ask(&broker, address, version, batch));
        let found: Vec<_> = stream::iter(each).buffered(AT_ONCE).collect().await;
        found.into_iter().flatten().collect()
    }

    fn batches(&self, groups: &[usize]) -> Vec<Vec<usize>> {
        let mut batches = vec![Vec::new()];
        let mut partitions = 0_usize;
        for &group in groups {
            let more = self
                .asked
                .get(group)
                .map_or(0, OffsetFetchQuery::partitions);
            partitions = partitions.saturating_add(more);
            let is_full = |batch: &Vec<usize>| {
                !batch.is_empty() && (batch.len() >= GROUPS || partitions > PARTITIONS)
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

    async fn ask(
        &self,
        broker: &Broker,
        address: &Address,
        version: i16,
        batch: Vec<usize>,
    ) -> Vec<CommitOutcome> {
        let asked: Vec<_> = batch
            .iter()
            .filter_map(|&group| Some((group, self.asked.get(group)?)))
            .collect();
        let request = request(asked.iter().map(|(_, asked)| *asked), version);
        let answer = broker
            .ask(ApiVersions::OffsetFetch, version, &request, self.deadline)
            .await;
        let body = match answer {
            Ok(body) => body,
            Err(fault) => return all(&batch, fault),
        };
        let commits = match responses::offset_fetch(&body, version) {
            Ok(commits) => commits,
            Err(error) => return all(&batch, self.cluster.garbled(address, &error)),
        };
        let places: HashMap<_, _> = asked
            .iter()
            .map(|&(group, asked)| {
                let name = (version >= 8).then_some(asked.group.as_str());
                (name, (group, asked))
            })
            .collect();
        let outcome = |(name, code, topics): (_, i16, _)| {
            let &(group, asked) = places.get(&name)?;
            let result = if code == codes::NONE {
                Ok(FetchedOffsets::new(asked, topics))
            } else {
                Err(codes::fault_of(code.into()))
            };
            Some(CommitOutcome {
                group,
                result,
                again: again(code),
            })
        };
        commits.groups().filter_map(outcome).collect()
    }
}

fn set(
    results: &mut [Result<FetchedOffsets, Fault>],
    group: usize,
    result: Result<FetchedOffsets, Fault>,
) {
    if let Some(slot) = results.get_mut(group) {
        *slot = result;
    }
}

/// The same fault for all. A connection that failed may mean that the groups' coordinator is another
/// one now.
fn all(groups: &[usize], fault: Fault) -> Vec<CommitOutcome> {
    let again = if fault.is_connection() && fault != Fault::NoAnswer {
        Again::Moved
    } else {
        Again::No
    };
    let outcome = |&group: &usize| CommitOutcome {
        group,
        result: Err(fault),
        again,
    };
    groups.iter().map(outcome).collect()
}

fn again(code: i16) -> Again {
    if codes::is_elsewhere(code) {
        Again::Elsewhere
    } else if codes::is_not_yet(code) {
        Again::Wait
    } else {
        Again::No
    }
}
