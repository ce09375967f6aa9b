//! The rules that limit useful parallelism.

use std::fmt;

use serde::Serialize;

/// Which rule made a useful parallelism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ParallelismRule {
    /// One topic: its partitions.
    OneTopic,
    /// Several topics dealt out one by one, always beginning with the same members (`range`): the
    /// partitions of the largest.
    LargestTopic,
    /// Several topics and an assignor that was never seen, or is not known here: as with `range`,
    /// every client's default.
    AssignorUnknown,
    /// Several topics dealt out together: all their partitions.
    AllTopics,
    /// Commits, and never a member (`assign()`): the partitions with a commit.
    ManualAssignment,
    /// A streams group: its tasks.
    Tasks,
    /// A share group: partitions bound nothing.
    Shared,
    /// `by: lagging`: the partitions with lag.
    Lagging,
}

impl ParallelismRule {
    /// The rule's name, for labels.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            ParallelismRule::OneTopic => "one_topic",
            ParallelismRule::LargestTopic => "largest_topic",
            ParallelismRule::AssignorUnknown => "assignor_unknown",
            ParallelismRule::AllTopics => "all_topics",
            ParallelismRule::ManualAssignment => "manual_assignment",
            ParallelismRule::Tasks => "tasks",
            ParallelismRule::Shared => "shared",
            ParallelismRule::Lagging => "lagging",
        }
    }
}

impl fmt::Display for ParallelismRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ParallelismRule::OneTopic => "the topic's partitions",
            ParallelismRule::LargestTopic => "the largest topic's partitions, dealt out by range",
            ParallelismRule::AssignorUnknown => {
                "the largest topic's partitions, as by range, since the assignor is not known"
            }
            ParallelismRule::AllTopics => "all topics' partitions, dealt out together",
            ParallelismRule::ManualAssignment => {
                "the partitions with a commit, since the group never had a member"
            }
            ParallelismRule::Tasks => "the tasks of the streams topology",
            ParallelismRule::Shared => "a share group's members share partitions",
            ParallelismRule::Lagging => "the partitions with lag",
        })
    }
}
