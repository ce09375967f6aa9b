//! Partitions: the log of each, its committed offset, and the exact age of each message when it is processed.

use super::arrivals::Arrivals;

/// One partition. Offsets count messages from the beginning of the run.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimulatedPartition {
    pub end: i64,
    /// The next message that a consumer processes.
    pub position: i64,
    pub committed: i64,
    /// Messages before this offset were processed once; those that are processed again are not counted.
    counted: i64,
    /// The second in which the message at `counted` arrived, and how many of that second are counted.
    head: u32,
    taken: u32,
}

/// Ages of processed messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct AgeCounter {
    pub processed: u64,
    pub late: u64,
    /// Largest age in seconds.
    pub oldest: u32,
}

impl SimulatedPartition {
    #[must_use]
    pub fn unprocessed(&self) -> i64 {
        self.end - self.position
    }

    /// Processes this number of messages.
    pub fn process(
        &mut self,
        messages: u32,
        now: u32,
        slo: u32,
        partition: usize,
        arrivals: &Arrivals,
        ages: &mut AgeCounter,
    ) {
        self.position += i64::from(messages);
        let new = (self.position - self.counted).max(0);
        self.counted += new;
        let mut left = u32::try_from(new).unwrap_or(u32::MAX);
        while left > 0 {
            let available = arrivals.count(self.head, partition) - self.taken;
            if available == 0 {
                if self.head >= now {
                    break;
                }
                self.head += 1;
                self.taken = 0;
                continue;
            }
            let some = available.min(left);
            let age = now - self.head;
            ages.processed += u64::from(some);
            ages.oldest = ages.oldest.max(age);
            if age > slo {
                ages.late += u64::from(some);
            }
            self.taken += some;
            left -= some;
        }
    }

    /// Age in seconds of the first message that was never processed.
    #[must_use]
    pub fn age(&self, now: u32, partition: usize, arrivals: &Arrivals) -> u32 {
        let mut taken = self.taken;
        for second in self.head..=now {
            if arrivals.count(second, partition) > taken {
                return now - second;
            }
            taken = 0;
        }
        0
    }

    /// Counts the messages that are left at the end of a run, as if they were processed then.
    pub fn count_rest(
        &mut self,
        now: u32,
        slo: u32,
        partition: usize,
        arrivals: &Arrivals,
        ages: &mut AgeCounter,
    ) {
        self.position = self.position.max(self.counted);
        let rest = u32::try_from(self.end - self.position).unwrap_or(u32::MAX);
        self.process(rest, now, slo, partition, arrivals, ages);
    }

    /// Goes back to the committed offset, as a new owner does.
    pub fn reset_to_committed(&mut self) {
        self.position = self.committed;
    }
}

/// Takes this number of messages evenly from the backlogs, from each at most what it has. Returns the rest.
pub fn share_out(budget: u32, backlogs: &[u32], given: &mut Vec<u32>) -> u32 {
    given.clear();
    given.resize(backlogs.len(), 0);
    let mut left = budget;
    loop {
        let open = || {
            given
                .iter()
                .zip(backlogs)
                .filter(|(given, has)| given < has)
        };
        let count = u32::try_from(open().count()).unwrap_or(u32::MAX);
        if count == 0 || left == 0 {
            return left;
        }
        let each = (left / count).max(1);
        for (given, has) in given.iter_mut().zip(backlogs) {
            let some = each.min(has - *given).min(left);
            *given += some;
            left -= some;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shares_are_fair_and_complete(budget in 0u32..1000, backlogs in prop::collection::vec(0u32..200, 0..20)) {
            let mut given = Vec::new();
            let left = share_out(budget, &backlogs, &mut given);
            let sum: u32 = given.iter().sum();
            prop_assert_eq!(sum + left, budget);
            prop_assert_eq!(sum, budget.min(backlogs.iter().sum()));
            let open: Vec<u32> = given.iter().zip(&backlogs).filter(|(g, b)| g < b).map(|(g, _)| *g).collect();
            if let (Some(least), Some(most)) = (open.iter().min(), given.iter().max()) {
                prop_assert!(most - least <= 1);
            }
        }
    }
}
