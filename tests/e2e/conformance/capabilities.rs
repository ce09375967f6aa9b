//! Facts that a Kafka client cannot see by design. Before a case compares what a client reads, the expected lines are
//! reduced to what this table says the client can see. So a case fails if a client sees more or less than that.

use lagwise::kafka::ClientKind;

/// Facts that clients may or may not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    /// Groups beyond the client's limit.
    AnyNumberOfGroups,
    /// Whether a topic was recreated, where its offsets do not show it.
    TopicIds,
    /// A group's kind, state, assignor and members.
    Descriptions,
    /// Start offsets of a share group.
    ShareOffsets,
}

/// A fact that a client cannot see.
pub(crate) struct BlindSpot {
    pub(crate) client: ClientKind,
    pub(crate) fact: Fact,
    /// The result that it reports instead.
    pub(crate) instead: &'static str,
    pub(crate) why: &'static str,
}

pub(crate) const BLIND_SPOTS: &[BlindSpot] = &[
    BlindSpot {
        client: ClientKind::Librdkafka,
        fact: Fact::AnyNumberOfGroups,
        instead: "too_many_groups for those beyond max_groups",
        why: "it needs a client for each group",
    },
    BlindSpot {
        client: ClientKind::Librdkafka,
        fact: Fact::TopicIds,
        instead: "no ID: a recreated topic is only detected by its offsets",
        why: "its metadata API does not return topic IDs",
    },
    BlindSpot {
        client: ClientKind::Librdkafka,
        fact: Fact::Descriptions,
        instead: "unsupported",
        why: "DescribeConsumerGroups may crash the process; listing groups with members asks every broker for every group, \
              fails if one broker fails, and reports groups of newer protocols as dead",
    },
    BlindSpot {
        client: ClientKind::Librdkafka,
        fact: Fact::ShareOffsets,
        instead: "no commit, as brokers answer OffsetFetch for such a group",
        why: "it has no request for them, and does not know the kind of a group",
    },
];

/// Describes the facts that the client cannot see, for the message of a failed case.
pub(crate) fn describe_blind_spots(client: ClientKind) -> String {
    let spots = BLIND_SPOTS.iter().filter(|spot| spot.client == client);
    let lines = spots.map(
        |BlindSpot {
             fact, instead, why, ..
         }| { format!("  {client:?} cannot see {fact:?}: {instead}, since {why}\n") },
    );
    lines.collect()
}

/// Whether the client can see this fact.
pub(crate) fn sees(client: ClientKind, fact: Fact) -> bool {
    !BLIND_SPOTS
        .iter()
        .any(|spot| spot.client == client && spot.fact == fact)
}

/// Reduces the expected lines, in the format of [`crate::sources::seen`], to what the client can see.
pub(crate) fn visible_to(client: ClientKind, expected: &str) -> String {
    let lines = expected.lines().map(str::trim);
    // GROUP is STATE share ...
    let is_share = |line: &&str| line.contains(" is ") && line.contains(" share");
    let shares: Vec<_> = lines
        .clone()
        .filter(is_share)
        .filter_map(|line| line.split(' ').next())
        .collect();
    let seen = lines.filter_map(|line| {
        let mut words = line.split(' ');
        let (subject, verb) = (words.next()?, words.next().unwrap_or_default());
        if !sees(client, Fact::Descriptions) && matches!(verb, "is" | "member" | "has" | "runs") {
            return None;
        }
        if !sees(client, Fact::ShareOffsets) && shares.contains(&subject) {
            return Some(format!("{subject} {verb}{}", " -".repeat(words.count())));
        }
        Some(line.to_owned())
    });
    seen.collect::<Vec<_>>().join("\n")
}
