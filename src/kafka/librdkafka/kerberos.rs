//! Kerberos (GSSAPI): librdkafka runs a command, `kinit` by default, to get a ticket. That it failed
//! is no error to librdkafka, since an older ticket may do; what the command said is heard here.

use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::kafka::ClientSettings;
use crate::kafka::health::Health;
use crate::model::kafka::fault::Fault;

/// librdkafka's name for what it says of the command.
const FACILITY: &str = "SASLREFRESH";

/// How often the command is run, in milliseconds; 0 for never.
pub(super) const EVERY: &str = "sasl.kerberos.min.time.before.relogin";

/// The property with the command.
pub(super) const COMMAND: &str = "sasl.kerberos.kinit.cmd";

/// librdkafka's own.
const DEFAULT: &str = "kinit -R -t \"%{sasl.kerberos.keytab}\" -k %{sasl.kerberos.principal} || \
                       kinit -t \"%{sasl.kerberos.keytab}\" -k %{sasl.kerberos.principal}";

/// Before the exit code of a command that ended.
const ENDED: &str = "lagwise: ended with ";

/// What is sent through after the words of commands to know that they have been heard.
const MARK: &str = "lagwise: heard so far";

/// The longest line that is kept of a command.
const LINE: u64 = 500;

/// How long hearing what was said may take.
const LATE: Duration = Duration::from_millis(500);

/// Whether the properties ask for Kerberos, which is librdkafka's default for SASL.
pub(in crate::kafka) fn is_asked_for(settings: &ClientSettings) -> bool {
    let get = |name: &str| settings.properties.get(name);
    let protocol = get("security.protocol").map(|protocol| protocol.to_ascii_uppercase());
    let mechanism = get("sasl.mechanisms").or_else(|| get("sasl.mechanism"));
    protocol.is_some_and(|protocol| protocol.starts_with("SASL"))
        && mechanism.is_none_or(|mechanism| mechanism == "GSSAPI")
}

/// Hears what the commands of one client say, and holds a failure against the cluster's login.
pub(super) struct Words {
    /// Kept open for the commands, which open it by its place in `/proc`.
    pipe: PipeWriter,
    marks: Mutex<Receiver<()>>,
}

impl Words {
    /// Begins to listen; `None` where the system has no means for that.
    pub(super) fn listen(settings: &ClientSettings, health: &Arc<Health>) -> Option<Self> {
        let (heard, pipe) = std::io::pipe().ok()?;
        let (mark, marks) = sync_channel(1);
        let cluster = settings.name.clone();
        let health = Arc::clone(health);
        let mut told = String::new();
        let report = move |words: Option<&str>| {
            let Some(words) = words else {
                return told.clear();
            };
            let reason = format!("the command that gets a ticket of Kerberos failed: {words}");
            health.report(Fault::Login, &reason, Instant::now());
            if told != reason {
                // Once, while it stays the same.
                tracing::warn!(cluster = %cluster, "{reason}");
                told = reason;
            }
        };
        let named = thread::Builder::new().name("kinit".to_owned());
        named.spawn(move || listen(heard, &mark, report)).ok()?;
        Some(Self {
            pipe,
            marks: Mutex::new(marks),
        })
    }

    /// The command of these properties, or librdkafka's own, so that what it says is heard, and said
    /// as before where it cannot be. `None` where there is none.
    pub(super) fn command(&self, settings: &ClientSettings) -> Option<String> {
        let given = settings.properties.get(COMMAND);
        let command = given.map_or(DEFAULT, String::as_str);
        if command.trim().is_empty() {
            return None;
        }
        let (process, pipe) = (std::process::id(), self.pipe.as_raw_fd());
        // The command is in a shell of its own, since it may exit, and on lines of its own, since it
        // may end in a comment.
        Some(format!(
            "words=/proc/{process}/fd/{pipe}\n\
             if [ -w \"$words\" ]; then exec 3>\"$words\"; else exec 3>&2; fi\n\
             (\n{command}\n) 2>&3 3>&-\n\
             code=$?; echo \"{ENDED}$code\" >&3; exit $code"
        ))
    }

    /// Waits until all has been heard that commands have said so far.
    pub(super) fn hear(&self) {
        let Ok(marks) = self.marks.lock() else { return };
        // One that came too late is none of this time's, and only makes it short.
        let sent = writeln!(&self.pipe, "{MARK}");
        let _ = sent.map(|()| marks.recv_timeout(LATE));
    }
}

/// Until the last writer is gone. Reports each command that ended: the last line that one said which
/// failed, or its exit code where it said nothing; `None` where it did not fail.
fn listen(heard: PipeReader, mark: &SyncSender<()>, mut report: impl FnMut(Option<&str>)) {
    let (mut heard, mut last) = (BufReader::new(heard), String::new());
    while let Some(line) = next_line(&mut heard) {
        if line == MARK {
            // Whoever waited may be gone.
            let _ = mark.try_send(());
            continue;
        }
        match line.strip_prefix(ENDED) {
            None if line.is_empty() => {}
            None => last = line,
            Some(code) => {
                let words = match (code, last.as_str()) {
                    ("0", _) => None,
                    (code, "") => Some(format!("exit code {code}")),
                    (_, last) => Some(last.to_owned()),
                };
                report(words.as_deref());
                last.clear();
            }
        }
    }
}

/// The next line without its end, or as much of it as is kept; `None` at the end of all.
fn next_line(heard: &mut impl BufRead) -> Option<String> {
    let mut line = Vec::new();
    match heard.by_ref().take(LINE).read_until(b'\n', &mut line) {
        Ok(1..) => Some(String::from_utf8_lossy(&line).trim().to_owned()),
        _ => None,
    }
}

/// What librdkafka says, without the command where it is of that: it may hold a password.
pub(super) fn without_command<'a>(facility: &str, message: &'a str) -> &'a str {
    match message.split_once(": ") {
        Some((what, _)) if facility == FACILITY => what,
        _ => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::Client;
    use crate::model::units::newtypes::Moment;

    fn settings(properties: &[(&str, &str)]) -> ClientSettings {
        ClientSettings {
            name: "main".into(),
            properties: properties
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            max_groups: 1,
            token: None,
            renew: None,
            client: Client::Librdkafka,
        }
    }

    /// As librdkafka does it.
    fn run(command: &str) -> Option<i32> {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", command]).status().unwrap().code()
    }

    #[test]
    fn kerberos_is_what_sasl_means_by_itself() {
        for (properties, expected) in [
            (&[][..], false),
            (&[("sasl.mechanism", "GSSAPI")], false),
            (&[("security.protocol", "sasl_ssl")], true),
            (
                &[
                    ("security.protocol", "SASL_PLAINTEXT"),
                    ("sasl.mechanisms", "GSSAPI"),
                ],
                true,
            ),
            (
                &[
                    ("security.protocol", "SASL_PLAINTEXT"),
                    ("sasl.mechanism", "PLAIN"),
                ],
                false,
            ),
        ] {
            assert_eq!(
                is_asked_for(&settings(properties)),
                expected,
                "{properties:?}"
            );
        }
    }

    #[test]
    fn a_commands_last_words_are_heard_and_its_code_is_kept() {
        for (command, code, told) in [
            ("echo first >&2; echo second >&2; exit 3", 3, "second"),
            ("echo '(' >&2; false # a comment", 1, "("),
            ("exit 7", 7, "exit code 7"),
            // More than a pipe holds.
            (
                "head -c 200000 /dev/zero >&2; echo >&2; echo full >&2; exit 1",
                1,
                "full",
            ),
        ] {
            let (all, health) = (settings(&[(COMMAND, command)]), Arc::default());
            let words = Words::listen(&all, &health).unwrap();
            assert_eq!(run(&words.command(&all).unwrap()), Some(code), "{command}");
            words.hear();
            let fault = health.silent("k", Moment::now());
            assert_eq!(fault.kind, Fault::Login);
            assert!(fault.reason.ends_with(told), "{}", fault.reason);
        }
    }

    #[test]
    fn what_a_command_says_by_the_way_is_no_failure() {
        let (all, health) = (settings(&[(COMMAND, "echo well >&2")]), Arc::default());
        let words = Words::listen(&all, &health).unwrap();
        assert_eq!(run(&words.command(&all).unwrap()), Some(0));
        words.hear();
        assert_eq!(health.silent("k", Moment::now()).kind, Fault::NoAnswer);
        let all = settings(&[(COMMAND, "exit 2")]);
        assert_eq!(run(&words.command(&all).unwrap()), Some(2));
        words.hear();
        let reason = health.silent("k", Moment::now()).reason;
        assert!(reason.ends_with("exit code 2"), "{reason}");
        assert!(words.command(&settings(&[(COMMAND, " ")])).is_none());
        assert!(words.command(&settings(&[])).unwrap().contains(DEFAULT));
    }

    #[test]
    fn commands_are_not_told() {
        for message in [
            "Kerberos ticket refresh failed: echo hunter2: exited with code 1",
            "Refreshing Kerberos ticket with command: echo hunter2",
            "Slow Kerberos ticket refresh: 6000ms: echo hunter2",
        ] {
            let told = without_command(FACILITY, message);
            assert!(!told.is_empty() && !told.contains("hunter2"), "{told}");
        }
    }
}
