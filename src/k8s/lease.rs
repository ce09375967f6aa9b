//! The Lease by which one of several daemons leads: see [`model::lease`](crate::leader_election::rules) for the
//! rules. Those who do not lead watch it, so that one that was given back is taken at once, and know
//! from it where the leader is asked.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures::stream::StreamExt;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::core::ObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use tokio::sync::watch;

use super::resilient_watch;
use super::scale::{ApiError as RequestError, in_time};
use crate::leader_election::rules::{Candidate, LeaseRules, Record, Turn};
use crate::leader_election::{Leader, Term};
use crate::telemetry::lease::{LeadershipGained, LeadershipLost, LeaseFailed};

/// The longest that one request may take.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);

/// Nor may giving the Lease back, since the process is to end.
const GIVE_BACK_WITHIN: Duration = Duration::from_secs(1);

/// The annotation of the Lease that says where its holder is asked: host and port.
const ADDRESS: &str = "lagwise.dev/address";

/// What the keeper of the Lease works with.
#[allow(missing_debug_implementations, reason = "the client has none")]
pub struct LeaseOptions {
    /// The Kubernetes cluster; the Lease is in its own namespace.
    pub client: Client,
    /// The Lease's name.
    pub name: String,
    /// This daemon's name, which no other has.
    pub identity: String,
    /// Where the other daemons ask this one while it leads: host and port.
    pub address: String,
    /// How long things take.
    pub rules: LeaseRules,
    /// Where it is said whether this daemon leads.
    pub terms: watch::Sender<Option<Term>>,
    /// Where it is said which other one leads.
    pub leaders: watch::Sender<Option<Leader>>,
    /// The Lease as [`follow`] last saw it; without the right to watch it, nothing comes.
    pub seen: watch::Receiver<Option<Lease>>,
    /// Becomes true when it has to step down.
    pub stop: watch::Receiver<bool>,
}

/// Takes and renews the Lease until told to stop, and then gives it back, so that another leads at
/// once.
pub async fn keep(options: LeaseOptions) {
    let LeaseOptions {
        client,
        name,
        identity,
        address,
        rules,
        terms,
        leaders,
        mut seen,
        mut stop,
    } = options;
    let mut keeper = LeaseKeeper {
        api: Api::default_namespaced(client),
        name,
        address,
        rules,
        candidate: Candidate::new(identity),
        held: None,
        terms,
        leaders,
        failing: None,
    };
    loop {
        let took = keeper.turn().await;
        keeper.tell(took.err());
        // Whoever waits for the end of a Lease looks at that moment, and not up to a whole pause later.
        let over = keeper.candidate.over_in(Instant::now());
        let retry = rules.retry();
        let pause = over
            .filter(|over| !over.is_zero())
            .map_or(retry, |over| over.min(retry));
        let pause = tokio::time::sleep(pause);
        tokio::select! {
            () = pause => {}
            () = keeper.is_open(&mut seen) => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    keeper.step_down().await;
}

struct LeaseKeeper {
    api: Api<Lease>,
    name: String,
    address: String,
    rules: LeaseRules,
    candidate: Candidate,
    /// The Lease as this daemon last wrote it.
    held: Option<Lease>,
    terms: watch::Sender<Option<Term>>,
    leaders: watch::Sender<Option<Leader>>,
    failing: Option<RequestError>,
}

/// Follows the Lease for ever: says which other daemon leads, and shows the Lease to its keeper.
///
/// Apart from the keeper, since who leads next counts also for one that has given the Lease back.
pub async fn follow(
    client: Client,
    name: String,
    identity: String,
    leaders: watch::Sender<Option<Leader>>,
    seen: watch::Sender<Option<Lease>>,
) {
    // A right by the object's name holds for a watch whose field selector names it.
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let api: Api<Lease> = Api::default_namespaced(client);
    let mut events = pin!(resilient_watch::events(
        api,
        config,
        "the Lease that says who leads"
    ));
    while let Some(event) = events.next().await {
        let lease = match event {
            Event::Init | Event::InitDone => continue,
            Event::InitApply(lease) | Event::Apply(lease) => Some(lease),
            Event::Delete(_) => None,
        };
        say(&leaders, lease.as_ref(), &identity);
        seen.send_replace(lease);
    }
}

/// Says who leads, if it is somebody else than `me`.
fn say(leaders: &watch::Sender<Option<Leader>>, lease: Option<&Lease>, me: &str) {
    let leader = lease.and_then(|lease| {
        let record = record_of(lease);
        let annotations = lease.metadata.annotations.as_ref();
        record.holder.filter(|holder| holder != me).map(|_| Leader {
            term: record.transitions.into(),
            address: annotations.and_then(|all| all.get(ADDRESS)).cloned(),
        })
    });
    leaders.send_if_modified(|known| {
        let differs = *known != leader;
        *known = leader;
        differs
    });
}

impl LeaseKeeper {
    /// Waits until the watch shows that the Lease is free, or taken from this daemon.
    async fn is_open(&mut self, seen: &mut watch::Receiver<Option<Lease>>) {
        loop {
            if seen.changed().await.is_err() {
                return std::future::pending().await;
            }
            let record = seen.borrow_and_update().as_ref().map(record_of);
            if self.held.is_none() && record.is_some() {
                // From when it was renewed, and not from when that was next asked about. One that the
                // watch shows late only makes this daemon wait for longer.
                self.candidate.see(record.clone(), Instant::now());
            }
            let held = self.held.as_ref().map(record_of);
            if record.is_some_and(|record| is_news(&record, held.as_ref())) {
                // Whatever it is, it is not what was last written: it has to be read.
                self.held = None;
                return;
            }
        }
    }

    async fn turn(&mut self) -> Result<(), RequestError> {
        let within = REQUEST_WITHIN.min(self.rules.term());
        let found = match self.held.take() {
            // Nobody else has written it, or else the renewal says so.
            Some(held) => Some(held),
            None => in_time(within, self.api.get_opt(&self.name)).await?,
        };
        let now = Instant::now();
        self.candidate.see(found.as_ref().map(record_of), now);
        say(&self.leaders, found.as_ref(), self.candidate.name());
        let Turn::Hold { term } = self.candidate.turn(now) else {
            self.publish(None);
            return Ok(());
        };
        let wanted = self.lease(found.as_ref(), term);
        let params = PostParams::default();
        // Counted from before the request: whenever it arrives, the Lease holds for longer than this.
        let asked = Instant::now();
        let written = match found {
            Some(_) => in_time(within, self.api.replace(&self.name, &params, &wanted)).await,
            None => in_time(within, self.api.create(&params, &wanted)).await,
        };
        let written = match written {
            // Somebody was quicker.
            Err(RequestError::Changed) => return Ok(()),
            other => other?,
        };
        self.candidate
            .see(Some(record_of(&written)), Instant::now());
        say(&self.leaders, Some(&written), self.candidate.name());
        self.held = Some(written);
        self.publish(Some(Term {
            number: term.into(),
            until: Some(asked + self.rules.term()),
        }));
        Ok(())
    }

    /// The Lease as it is to be, of the version that was found.
    fn lease(&self, found: Option<&Lease>, term: u32) -> Lease {
        let now = MicroTime(Timestamp::now());
        let before = found.and_then(|lease| lease.spec.clone());
        let before = before.unwrap_or_default();
        let is_mine = before.holder_identity.as_deref() == Some(self.candidate.name());
        let metadata = found.map(|lease| lease.metadata.clone());
        let mut metadata = metadata.unwrap_or_default();
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.insert(ADDRESS.to_owned(), self.address.clone());
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                ..metadata
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.candidate.name().to_owned()),
                lease_duration_seconds: i32::try_from(self.rules.duration.as_secs()).ok(),
                lease_transitions: i32::try_from(term).ok(),
                acquire_time: match is_mine {
                    true => before.acquire_time.clone(),
                    false => Some(now.clone()),
                },
                renew_time: Some(now),
                ..before
            }),
        }
    }

    fn publish(&self, term: Option<Term>) {
        let before = self.terms.send_replace(term);
        match (before.map(|t| t.number), term.map(|t| t.number)) {
            (was, Some(number)) if was != Some(number) => LeadershipGained { term: number }.emit(),
            (Some(number), None) => LeadershipLost { term: number }.emit(),
            _ => {}
        }
    }

    /// Gives the Lease back, if it is held.
    async fn step_down(&mut self) {
        self.publish(None);
        let Some(mut held) = self.held.take() else {
            return;
        };
        if let Some(spec) = &mut held.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        let params = PostParams::default();
        let given = in_time(
            GIVE_BACK_WITHIN,
            self.api.replace(&self.name, &params, &held),
        )
        .await;
        self.tell(given.err());
    }

    fn tell(&mut self, error: Option<RequestError>) {
        if let Some(reason) = error.as_ref().filter(|_| self.failing != error) {
            LeaseFailed {
                lease: &self.name,
                reason,
            }
            .emit();
        }
        // Nobody could renew it in time.
        if error.is_some() && !self.leads() {
            self.publish(None);
        }
        self.failing = error;
    }

    fn leads(&self) -> bool {
        let term = *self.terms.borrow();
        term.is_some_and(|term| term.left(Instant::now()).is_some())
    }
}

/// Whether a Lease that the watch shows is worth a look: it is free, or no longer `held`. A watch may be
/// late and show what was before this daemon took the Lease.
fn is_news(shown: &Record, held: Option<&Record>) -> bool {
    match held {
        None => shown.holder.is_none(),
        Some(held) => shown.holder != held.holder && shown.transitions >= held.transitions,
    }
}

fn record_of(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec
        .lease_duration_seconds
        .and_then(|n| u64::try_from(n).ok());
    Record {
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        transitions: spec
            .lease_transitions
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(0),
        renewed: spec.renew_time.map(|time| time.0.to_string()),
        duration: Duration::from_secs(seconds.unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(holder: Option<&str>, transitions: u32) -> Record {
        Record {
            holder: holder.map(str::to_owned),
            transitions,
            ..Record::default()
        }
    }

    #[test]
    fn a_lease_that_is_free_or_lost_is_news() {
        let mine = record(Some("me"), 4);
        for (shown, held, expected) in [
            (record(None, 4), None, true),
            (record(Some("other"), 4), None, false),
            (record(Some("me"), 4), Some(&mine), false),
            (record(Some("other"), 5), Some(&mine), true),
            (record(None, 4), Some(&mine), true),
            // From before it was taken.
            (record(None, 3), Some(&mine), false),
            (record(Some("other"), 3), Some(&mine), false),
        ] {
            assert_eq!(is_news(&shown, held), expected, "{shown:?} {held:?}");
        }
    }

    #[test]
    fn others_are_told_with_their_address_and_oneself_is_not() {
        let (leaders, told) = watch::channel(None);
        let lease = |holder: &str, address: Option<&str>| Lease {
            metadata: ObjectMeta {
                annotations: address.map(|to| [(ADDRESS.to_owned(), to.to_owned())].into()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                lease_transitions: Some(7),
                ..LeaseSpec::default()
            }),
        };
        for (shown, expected) in [
            (
                Some(lease("other", Some("10.0.0.1:6443"))),
                Some(Some("10.0.0.1:6443")),
            ),
            (Some(lease("other", None)), Some(None)),
            (Some(lease("me", Some("10.0.0.2:6443"))), None),
            (Some(lease("", Some("10.0.0.1:6443"))), None),
            (None, None),
        ] {
            say(&leaders, shown.as_ref(), "me");
            let leader = told.borrow().clone();
            let expected = expected.map(|address| Leader {
                term: 7,
                address: address.map(str::to_owned),
            });
            assert_eq!(leader, expected);
        }
    }
}
