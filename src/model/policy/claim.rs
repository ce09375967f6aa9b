//! Claims: replicas that something other than the policy keeps, such as another metric of the HPA, and that the policy
//! needs as well.
//!
//! While there are more replicas than the policy wants, no message is late, so no step up raises its number. Without a
//! claim, the replicas would fall to an outdated number as soon as the other metric releases them.

use super::decision::RateDecision;
use super::{RatePolicy, Situation};

/// Seconds in which there have to be more replicas than the policy wants: a rollout has them for some minutes.
const KEPT_FOR: f64 = 600.0;

impl RatePolicy {
    /// The number of replicas to ask for, if something else has kept more than the policy wants for a while and the
    /// arrivals need some of them. A claim costs no rebalance, since the replicas are running.
    pub(super) fn consider_claim(
        &mut self,
        situation: &Situation,
        decision: &RateDecision,
    ) -> Option<u32> {
        let Situation {
            now, output, terms, ..
        } = *situation;
        let present = situation.status_replicas.min(terms.members);
        if present <= output || situation.is_supposed {
            self.kept_since = None;
            return None;
        }
        let kept_since = *self.kept_since.get_or_insert(now);
        let is_blocked = now < self.learned.blocked_until;
        if now - kept_since < KEPT_FOR || !terms.is_capacity_known || is_blocked {
            return None;
        }
        let down = decision.down.as_ref()?;
        let needed = down.mean.replicas.max(down.peak.replicas).min(present);
        let claimed = needed.clamp(self.bounds.0, self.bounds.1);
        (claimed > output).then_some(claimed)
    }
}
