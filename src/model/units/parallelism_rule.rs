//! The rules that limit useful parallelism.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The rule by which a useful parallelism was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParallelismRule {
    /// One topic: its partitions.
    OneTopic,
    /// Several topics that are assigned one by one, each from the same first member on (`range`): the
    /// partitions of the largest topic.
    LargestTopic,
    /// Several topics and an assignor that was never seen, or is not known to lagwise: as with `range`,
    /// the default of every client.
    AssignorUnknown,
    /// Several topics that are assigned together: all their partitions.
    AllTopics,
    /// A group that commits and never had a member (`assign()`): the partitions with a commit.
    ManualAssignment,
    /// A streams group: its tasks.
    Tasks,
    /// A share group: its members share partitions, so that there is no limit.
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
