//! What brokers say and how groups are named reaches people as text only: in the log, in `/metrics` and in answers.

use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use serde_json::json;

use super::iterations::fake::FakeCluster;
use crate::daemon::{Daemon, Options, cluster};
use crate::testbed::poll::{Hopeless, poll_until};
use crate::testbed::{Testbed, unique};

const WAIT_TIMEOUT: Duration = Duration::from_secs(30);
/// The beginning of what a broker says of a refused login, as it has to be shown.
const WORDS: &str = "not with this proof\\u{1b}[2J\\r\\n2026";

/// A broker refuses the login with words that clear the screen and forge a line of the log, and the name of a group of
/// another cluster turns the line around.
pub(crate) fn of_brokers_and_groups_are_only_text(testbed: &Testbed) -> Result<()> {
    let kafka = testbed.kafka()?;
    let (topic, group) = (
        unique("orders"),
        format!("{}\u{202e}txet", unique("turned")),
    );
    kafka.create_topic(&topic, 1)?;
    kafka.commit(&group, &topic, &[(0, 0)])?;
    let fake = FakeCluster::start(1);
    fake.topic("a", &[1]);
    fake.group("ga", 1, "a", &[Some(1)]);
    {
        let mut state = fake.state.lock().map_err(|_| anyhow!("poisoned"))?;
        state.scram_iterations = 4096;
    }
    let login = [
        ("bootstrap.servers", fake.bootstrap()),
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "SCRAM-SHA-256"),
        ("sasl.username", "u"),
        ("sasl.password", "hunter2"),
    ];
    let options = Options::main(&kafka.bootstrap());
    let options = Options {
        targets: vec![
            json!({"name": "turned", "cluster": "main", "group": group, "topics": [topic]}),
            json!({"name": "refused", "cluster": "refusing", "group": "ga", "topics": ["a"]}),
        ],
        clusters: [options.clusters.clone(), vec![cluster("refusing", &login)]].concat(),
        ..options
    };
    let daemon = Daemon::alone(testbed, &options)?;
    poll_until(WAIT_TIMEOUT, "both texts to be shown", || {
        let (log, metrics) = (daemon.process.log(), daemon.metrics()?);
        let answer = daemon.refusal("group=ga,topic=a,cluster=refusing", 503)?;
        for (place, text, shown) in [
            ("the log", &log, WORDS),
            ("the answer", &answer, WORDS),
            // The text format doubles the backslash.
            ("/metrics", &metrics, "\\\\u{202e}txet"),
        ] {
            let is_obeyed = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
            if text.contains(is_obeyed) {
                return Err(Hopeless(format!("{place}: {text:?}")).into());
            }
            ensure!(text.contains(shown), "no {shown} in {place}: {text}");
        }
        Ok(())
    })
}
