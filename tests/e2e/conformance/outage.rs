//! One broker of three is gone.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::sources::{Sources, plan_of, seen_in_outage};
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::poll::poll_until;
use crate::testbed::unique;

/// Partitions that only one broker has are unknown while it is gone, and nothing else is; with it all is known again.
pub(crate) fn a_stopped_broker_makes_only_its_own_data_unknown(kafka: &KafkaCluster) -> Result<()> {
    let (spread, elsewhere) = (unique("spread"), unique("elsewhere"));
    kafka.create_topic_on(&spread, &[1, 2, 3])?;
    kafka.create_topic_on(&elsewhere, &[1, 3])?;
    kafka.produce_to(&spread, &[(0, 3), (1, 5), (2, 7)])?;
    kafka.produce_to(&elsewhere, &[(0, 2), (1, 2)])?;
    let (group, far) = (kafka.group_on(1)?, kafka.group_on(3)?);
    for group in [&group, &far] {
        kafka.commit(group, &spread, &[(0, 1), (1, 1), (2, 1)])?;
        kafka.commit(group, &elsewhere, &[(0, 1), (1, 1)])?;
    }
    let plan = plan_of(&[(&group, &[&spread, &elsewhere]), (&far, &[&spread])]);
    let rest = format!(
        "{elsewhere}: 0..2 0..2
{far} {spread}: 1 1 1
{group} {elsewhere}: 1 1
{group} {spread}: 1 1 1"
    );
    let all = format!("{rest}\n{spread}: 0..3 0..5 0..7");
    let mut sources = Sources::new(kafka)?;
    sources.expect(&plan, &all)?;

    kafka.stop_broker(2)?;
    // Start offsets that are known may be kept; the end may not.
    poll_until(
        Duration::from_secs(30),
        "the rest to be known without the broker",
        || {
            for (client, observation) in sources.sweep(&plan)? {
                let seen = seen_in_outage(&observation);
                let (without, kept) = (
                    format!("{spread}: 0..3 ?..? 0..7"),
                    format!("{spread}: 0..3 0..? 0..7"),
                );
                ensure!(
                    rest.lines().all(|line| seen.lines().any(|l| l == line))
                        && (seen.contains(&without) || seen.contains(&kept)),
                    "{client:?} sees\n{seen}"
                );
                ensure!(observation.connection.is_none(), "{client:?}: {seen}");
            }
            Ok(())
        },
    )?;
    for subject in &sources.each {
        let groups = &subject.known.groups;
        let known = &groups.get(group.as_str()).unwrap().topics;
        ensure!(
            known[spread.as_str()].fault().is_some() && known[elsewhere.as_str()].fault().is_none(),
            "{:?}: {known:?}",
            subject.client
        );
        // Complete readings are still there, and not smaller.
        let complete = known[spread.as_str()].complete.as_ref();
        let total = complete.map(|lag| lag.total());
        ensure!(
            matches!(total, Some(Ok(lag)) if lag.0 == 2 + 4 + 6),
            "{:?}: {total:?}",
            subject.client
        );
    }
    // A source that never saw the broker knows as much.
    for (client, observation) in Sources::new(kafka)?.sweep(&plan)? {
        let seen = seen_in_outage(&observation);
        ensure!(
            seen.contains(&format!("{spread}: 0..3 ?..? 0..7")),
            "{client:?} sees\n{seen}"
        );
    }

    kafka.start_broker(2)?;
    sources.wait_for(Duration::from_secs(20), "all of it again", &plan, &all)
}
