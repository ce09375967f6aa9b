//! Table of what each client cannot see by design. The expectation of a case is adapted to the client by it, so a case
//! fails if a client sees more or less than the table says.

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

/// A client that cannot see something.
pub(crate) struct Blind {
    pub(crate) client: ClientKind,
    pub(crate) fact: Fact,
    /// The result that it reports instead.
    pub(crate) instead: &'static str,
    pub(crate) why: &'static str,
}

pub(crate) const BLIND: &[Blind] = &[
    Blind {
        client: ClientKind::Librdkafka,
        fact: Fact::AnyNumberOfGroups,
        instead: "too_many_groups for those beyond max_groups",
        why: "it takes a client for each group",
    },
    Blind {
        client: ClientKind::Librdkafka,
        fact: Fact::TopicIds,
        instead: "no ID: a topic made anew shows by its offsets alone",
        why: "its metadata has none",
    },
    Blind {
        client: ClientKind::Librdkafka,
        fact: Fact::Descriptions,
        instead: "unsupported",
        why: "DescribeConsumerGroups may crash the process; the list of groups with members asks every broker for \
              every group, fails whole where one broker does, and has groups of the newer protocols as dead",
    },
    Blind {
        client: ClientKind::Librdkafka,
        fact: Fact::ShareOffsets,
        instead: "no commit, as brokers answer OffsetFetch for such a group",
        why: "it has no request for them, and cannot tell what kind a group is",
    },
];

/// Note for failures: facts that the client cannot see.
pub(crate) fn known_of(client: ClientKind) -> String {
    let of = BLIND.iter().filter(|blind| blind.client == client);
    let lines = of.map(
        |Blind {
             fact, instead, why, ..
         }| { format!("  {client:?} cannot see {fact:?}: {instead}, since {why}\n") },
    );
    lines.collect()
}

/// Whether the client sees it.
pub(crate) fn sees(client: ClientKind, fact: Fact) -> bool {
    !BLIND
        .iter()
        .any(|blind| blind.client == client && blind.fact == fact)
}

/// The facts that the client has to see if these are true, in the lines of [`crate::sources::seen`].
pub(crate) fn adapted(client: ClientKind, truth: &str) -> String {
    let lines = truth.lines().map(str::trim);
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
