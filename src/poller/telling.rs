//! Says what is odd about groups and HPAs as they are: once, when it begins to be so.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use crate::model::finding::Finding;
use crate::model::query::Rules;
use crate::model::snapshot::LagSnapshot;
use crate::model::standing::{findings, standings};
use crate::model::target::HpaFacts;
use crate::model::types::Moment;
use crate::model::zero::{self, IdleSince};
use crate::telemetry::FindingRaised;

/// What has been told, and the rules by which requests are answered: what is odd about an answer is
/// told before anybody asks.
#[derive(Debug)]
pub(super) struct Telling {
    /// By hash: two that collide cost a line in the log, and the texts of thousands much memory.
    told: HashSet<u64>,
    rules: Rules,
}

impl Telling {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            told: HashSet::new(),
            rules,
        }
    }

    /// Rules for a poller that nobody gave any.
    pub(super) fn by_default(max_staleness: Duration) -> Self {
        Self::new(Rules {
            clamp: true,
            cap: crate::model::cap::CapMode::Advise,
            max_staleness,
            namespaces: Vec::new(),
        })
    }

    /// Since when HPAs that may be scaled to zero have had no work.
    pub(super) fn idle_since(&self, snapshot: &LagSnapshot) -> Arc<IdleSince> {
        let now = Moment::now();
        let sleepers = zero::sleepers(snapshot, &now, &self.rules);
        if sleepers.is_empty() && snapshot.idle.is_empty() {
            return Arc::clone(&snapshot.idle);
        }
        Arc::new(zero::idle_since(&snapshot.idle, &sleepers, &now))
    }

    /// Tells what is so now and was not before.
    pub(super) fn tell(&mut self, snapshot: &LagSnapshot, hpas: &[Arc<HpaFacts>]) {
        let standings = standings(&snapshot.targets, snapshot, &Moment::now(), &self.rules);
        let found = findings(snapshot, &standings, hpas);
        let hashed = found.iter().map(|finding| (hash(finding), finding));
        let mut told = HashSet::with_capacity(found.len());
        for (hash, finding) in hashed {
            if !self.told.contains(&hash) {
                FindingRaised(finding).emit();
            }
            told.insert(hash);
        }
        self.told = told;
    }
}

fn hash(finding: &Finding) -> u64 {
    let mut hasher = DefaultHasher::new();
    finding.hash(&mut hasher);
    hasher.finish()
}
