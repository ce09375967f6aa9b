//! The Lease by which one of several daemons leads: see [`model::lease`](crate::model::lease) for the
//! rules.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::core::ObjectMeta;
use kube::{Api, Client};
use tokio::sync::watch;

use super::scale::{ScaleError as RequestError, in_time};
use crate::leading::Term;
use crate::model::lease::{Candidate, LeaseRules, Record, Turn};
use crate::telemetry::lease::{LeadershipGained, LeadershipLost, LeaseFailed};

/// The longest that one request may take.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);

/// What the keeper of the Lease works with.
#[allow(missing_debug_implementations, reason = "the client has none")]
pub struct LeaseOptions {
    /// The Kubernetes cluster; the Lease is in its own namespace.
    pub client: Client,
    /// The Lease's name.
    pub name: String,
    /// This daemon's name, which no other has.
    pub identity: String,
    /// How long things take.
    pub rules: LeaseRules,
    /// Where it is said whether this daemon leads.
    pub terms: watch::Sender<Option<Term>>,
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
        rules,
        terms,
        mut stop,
    } = options;
    let mut keeper = LeaseKeeper {
        api: Api::default_namespaced(client),
        name,
        rules,
        candidate: Candidate::new(identity),
        held: None,
        terms,
        failing: None,
    };
    loop {
        let took = keeper.turn().await;
        keeper.tell(took.err());
        let pause = tokio::time::sleep(rules.retry());
        tokio::select! {
            () = pause => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    keeper.step_down().await;
}

struct LeaseKeeper {
    api: Api<Lease>,
    name: String,
    rules: LeaseRules,
    candidate: Candidate,
    /// The Lease as this daemon last wrote it.
    held: Option<Lease>,
    terms: watch::Sender<Option<Term>>,
    failing: Option<RequestError>,
}

impl LeaseKeeper {
    async fn turn(&mut self) -> Result<(), RequestError> {
        let within = REQUEST_WITHIN.min(self.rules.term());
        let found = match self.held.take() {
            // Nobody else has written it, or else the renewal says so.
            Some(held) => Some(held),
            None => in_time(within, self.api.get_opt(&self.name)).await?,
        };
        let now = Instant::now();
        self.candidate.see(found.as_ref().map(record_of), now);
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
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                ..found
                    .map(|lease| lease.metadata.clone())
                    .unwrap_or_default()
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
        let within = REQUEST_WITHIN.min(Duration::from_secs(2));
        let params = PostParams::default();
        let given = in_time(within, self.api.replace(&self.name, &params, &held)).await;
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
        self.failing = error;
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
