//! A simple model of a group: messages are a fluid in one queue, which all members share.

/// A group that gets the arrivals that were measured, and processes them with members of the measured capacity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct FluidGroup {
    pub(super) members: u32,
    /// Unprocessed messages.
    pub(super) backlog: f64,
    /// Age of the oldest of them, in seconds.
    pub(super) age: f64,
}

/// Result of letting some seconds pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct FluidProgress {
    /// Messages processed.
    pub(super) processed: f64,
    /// Age of the oldest of them, in seconds.
    pub(super) age: f64,
}

impl FluidGroup {
    /// Lets `elapsed` seconds pass, in `working` of which the members work. `arrivals`, and `capacity` of a member, are
    /// in messages per second.
    pub(super) fn advance(
        &mut self,
        (elapsed, working): (f64, f64),
        arrivals: f64,
        capacity: f64,
    ) -> FluidProgress {
        self.backlog += arrivals * elapsed;
        let age = self.limit_age(self.age + elapsed, arrivals);
        let processed = (capacity * f64::from(self.members) * working).min(self.backlog);
        self.backlog -= processed;
        self.age = self.limit_age(age, arrivals);
        FluidProgress { processed, age }
    }

    /// Limits an age: the backlog took no longer to arrive than it would have at the current rate.
    fn limit_age(&self, age: f64, arrivals: f64) -> f64 {
        match self.backlog > 0.0 {
            true => age.min(self.backlog / arrivals.max(1e-3)),
            false => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backlog_is_estimated_from_arrivals_and_capacity() {
        for (members, works, processed, backlog, age) in [
            (2, 10.0, 2000.0, 0.0, 0.0),
            (1, 10.0, 1000.0, 1000.0, 5.0),
            (2, 5.0, 1000.0, 1000.0, 5.0),
            (9, 0.0, 0.0, 2000.0, 10.0),
        ] {
            let mut group = FluidGroup {
                members,
                backlog: 0.0,
                age: 0.0,
            };
            let progress = group.advance((10.0, works), 200.0, 100.0);
            assert_eq!((progress.processed, progress.age), (processed, 10.0));
            assert_eq!((group.backlog, group.age), (backlog, age), "{members}");
        }
    }

    #[test]
    fn messages_that_arrived_at_once_are_no_older_than_that() {
        let mut group = FluidGroup {
            members: 10,
            backlog: 0.0,
            age: 0.0,
        };
        group.advance((5.0, 5.0), 10_000.0, 100.0);
        assert_eq!(group.backlog, 45_000.0);
        let ages: Vec<f64> = (0..3)
            .map(|_| group.advance((5.0, 5.0), 10.0, 100.0).age)
            .collect();
        assert_eq!(ages, [9.5, 14.5, 19.5]);
    }
}
