//! Terms of leadership: when this process leads, and who leads otherwise.

use std::time::{Duration, Instant};

use tokio::sync::watch;

/// A period in which this process leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// Its number. Every later term of any process has a higher one.
    pub number: u64,
    /// When it ends unless it is renewed before; `None` = never.
    pub until: Option<Instant>,
}

impl Term {
    /// The time left at `now`. Writes must end within it, since another process may lead afterwards. `None` once the
    /// term has ended.
    #[must_use]
    pub fn time_left(&self, now: Instant) -> Option<Duration> {
        match self.until {
            None => Some(Duration::MAX),
            Some(until) => until
                .checked_duration_since(now)
                .filter(|left| !left.is_zero()),
        }
    }
}

/// Another process that leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// The number of its term.
    pub term: u64,
    /// The host and port of its external metrics API; `None` if it did not publish them.
    pub address: Option<String>,
}

/// Whether this process leads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<Option<Term>>);

impl Leadership {
    /// Follows the terms in this channel. If its sender is dropped, the last term still ends by itself.
    #[must_use]
    pub fn new(terms: watch::Receiver<Option<Term>>) -> Self {
        Self(terms)
    }

    /// For a process that always leads, since no other can.
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
        (*self.0.borrow()).filter(|term| term.time_left(now).is_some())
    }

    /// The term under way at `now` if it is the one with this number. Decisions of another term must not be written.
    #[must_use]
    pub fn current_term(&self, number: u64, now: Instant) -> Option<Term> {
        self.term(now).filter(|term| term.number == number)
    }

    /// Waits until a term is under way.
    pub async fn wait_for_term(&mut self) -> Term {
        loop {
            if let Some(term) = self.term(Instant::now()) {
                return term;
            }
            self.changed().await;
        }
    }

    /// Waits until this term is over: released, or ended because it was not renewed in time.
    pub async fn wait_for_end(&mut self, number: u64) {
        while let Some(term) = self.current_term(number, Instant::now()) {
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

    /// Waits until another term begins or this one is renewed; forever if the sender of the terms is dropped.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The leader that this process knows of: itself, another one, or none. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leading {
    /// Whether this process leads.
    pub own: Leadership,
    /// Which other process leads.
    pub others: watch::Receiver<Option<Leader>>,
}

impl Leading {
    /// For a process that always leads, since no other can.
    #[must_use]
    pub fn alone() -> Self {
        Self {
            own: Leadership::alone(),
            others: watch::channel(None).1,
        }
    }

    /// A clone whose [`Self::changed`] waits for changes from now on.
    #[must_use]
    pub fn from_now_on(&self) -> Self {
        let mut clone = self.clone();
        clone.own.0.mark_unchanged();
        clone.others.mark_unchanged();
        clone
    }

    /// Waits for a change since the last call.
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
    fn term_expires() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let (terms, receiver) = watch::channel(None);
        let leadership = Leadership::new(receiver);
        assert_eq!(leadership.term(now), None);
        let term = Term {
            number: 3,
            until: Some(now + second),
        };
        terms.send_replace(Some(term));
        assert_eq!(leadership.term(now), Some(term));
        assert_eq!(term.time_left(now), Some(second));
        assert_eq!(leadership.term(now + second), None);
        assert_eq!(
            Leadership::alone().term(now + second).map(|t| t.number),
            Some(0)
        );
        assert_eq!(leadership.current_term(3, now), Some(term));
        assert_eq!(leadership.current_term(2, now), None);
    }

    #[tokio::test]
    async fn waits_for_a_term_and_for_its_end() {
        let (terms, receiver) = watch::channel(None);
        let mut leadership = Leadership::new(receiver);
        let second = Duration::from_secs(1);
        let term = |number, until| {
            Some(Term {
                number,
                until: Some(until),
            })
        };
        let waiting = async {
            let begun = leadership.wait_for_term().await;
            leadership.wait_for_end(begun.number).await;
            begun.number
        };
        let now = Instant::now();
        let announcing = async {
            tokio::task::yield_now().await;
            terms.send_replace(term(3, now + 600 * second));
            tokio::task::yield_now().await;
            // Renewed, which is not its end; handed on, which is.
            terms.send_replace(term(3, now + 1200 * second));
            tokio::task::yield_now().await;
            terms.send_replace(term(4, now + 1200 * second));
        };
        assert_eq!(tokio::join!(waiting, announcing).0, 3);
        // A term that is not renewed expires.
        let mut alone = Leadership::new(watch::channel(term(5, now)).1);
        alone.wait_for_end(5).await;
        let mut soon = Leadership::new(watch::channel(term(6, Instant::now() + second / 100)).1);
        soon.wait_for_end(6).await;
        assert_eq!(soon.term(Instant::now()), None);
    }
}
