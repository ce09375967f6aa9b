//! Whether this process is the one that decides and writes. Of several daemons on one Kubernetes
//! cluster exactly one does; [`k8s`](crate::k8s) finds out which, and where the one that does is asked.

pub mod rules;

use std::time::{Duration, Instant};

use tokio::sync::watch;

/// A stretch of time in which this process leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// Its number: every later term of any process has a higher one.
    pub number: u64,
    /// When it ends unless it is renewed before, on this machine's monotonic clock; `None` = never.
    pub until: Option<Instant>,
}

impl Term {
    /// What is left of it at `now`: a write must be done by then, since another process may lead
    /// afterwards. `None` once it has ended.
    #[must_use]
    pub fn left(&self, now: Instant) -> Option<Duration> {
        match self.until {
            None => Some(Duration::MAX),
            Some(until) => until
                .checked_duration_since(now)
                .filter(|left| !left.is_zero()),
        }
    }
}

/// The process that leads, where that is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// The number of its term.
    pub term: u64,
    /// Where its external metrics API is asked: host and port. `None` where it does not say.
    pub address: Option<String>,
}

/// Tells whether this process leads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<Option<Term>>);

impl Leadership {
    /// What the channel's other end says. Should it be gone, the last term still ends by itself.
    #[must_use]
    pub fn new(terms: watch::Receiver<Option<Term>>) -> Self {
        Self(terms)
    }

    /// Of a process that has no other beside it.
    #[must_use]
    pub fn alone() -> Self {
        let only = Term {
            number: 0,
            until: None,
        };
        Self(watch::channel(Some(only)).1)
    }

    /// The term under way at `now`.
    #[must_use]
    pub fn term(&self, now: Instant) -> Option<Term> {
        (*self.0.borrow()).filter(|term| term.left(now).is_some())
    }

    /// The term under way at `now`, if it is this one: what was decided in another counts no more.
    #[must_use]
    pub fn holds(&self, number: u64, now: Instant) -> Option<Term> {
        self.term(now).filter(|term| term.number == number)
    }

    /// Waits until a term is under way, and says which.
    pub async fn begun(&mut self) -> Term {
        loop {
            if let Some(term) = self.term(Instant::now()) {
                return term;
            }
            self.changed().await;
        }
    }

    /// Waits until this term is over: handed on, or ended by itself because nobody renewed it in time.
    pub async fn over(&mut self, number: u64) {
        while let Some(term) = self.holds(number, Instant::now()) {
            let ended = async {
                match term.until {
                    Some(until) => tokio::time::sleep_until(until.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = ended => {}
                () = self.changed() => {}
            }
        }
    }

    /// Waits until the term is another one or has been renewed; for ever where that cannot be.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Who leads, as far as this process knows: itself, another, or nobody. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leading {
    /// Whether this process does.
    pub own: Leadership,
    /// Which other one does.
    pub others: watch::Receiver<Option<Leader>>,
}

impl Leading {
    /// Of a process that has no other beside it.
    #[must_use]
    pub fn alone() -> Self {
        Self {
            own: Leadership::alone(),
            others: watch::channel(None).1,
        }
    }

    /// A clone that takes everything known by now for seen.
    #[must_use]
    pub fn from_now_on(&self) -> Self {
        let mut clone = self.clone();
        clone.own.0.mark_unchanged();
        clone.others.mark_unchanged();
        clone
    }

    /// Waits until something about it has changed since it was last waited for.
    pub async fn changed(&mut self) {
        let others = async {
            if self.others.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = self.own.changed() => {}
            () = others => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_ends_by_itself() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let (terms, told) = watch::channel(None);
        let leadership = Leadership::new(told);
        assert_eq!(leadership.term(now), None);
        let term = Term {
            number: 3,
            until: Some(now + second),
        };
        terms.send_replace(Some(term));
        assert_eq!(leadership.term(now), Some(term));
        assert_eq!(term.left(now), Some(second));
        assert_eq!(leadership.term(now + second), None);
        assert_eq!(
            Leadership::alone().term(now + second).map(|t| t.number),
            Some(0)
        );
        assert_eq!(leadership.holds(3, now), Some(term));
        assert_eq!(leadership.holds(2, now), None);
    }

    #[tokio::test]
    async fn a_term_is_waited_for_and_so_is_its_end() {
        let (terms, told) = watch::channel(None);
        let mut leadership = Leadership::new(told);
        let second = Duration::from_secs(1);
        let term = |number, until| {
            Some(Term {
                number,
                until: Some(until),
            })
        };
        let waiting = async {
            let begun = leadership.begun().await;
            leadership.over(begun.number).await;
            begun.number
        };
        let now = Instant::now();
        let telling = async {
            tokio::task::yield_now().await;
            terms.send_replace(term(3, now + 600 * second));
            tokio::task::yield_now().await;
            // Renewed, which is not its end; handed on, which is.
            terms.send_replace(term(3, now + 1200 * second));
            tokio::task::yield_now().await;
            terms.send_replace(term(4, now + 1200 * second));
        };
        assert_eq!(tokio::join!(waiting, telling).0, 3);
        // One that nobody renews ends by itself.
        let mut alone = Leadership::new(watch::channel(term(5, now)).1);
        alone.over(5).await;
        let mut soon = Leadership::new(watch::channel(term(6, Instant::now() + second / 100)).1);
        soon.over(6).await;
        assert_eq!(soon.term(Instant::now()), None);
    }
}
