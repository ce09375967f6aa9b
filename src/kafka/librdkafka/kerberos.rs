//! Kerberos (GSSAPI): librdkafka runs a command, by default `kinit`, to get a ticket. It does not
//! report a failing command as an error, since an older ticket may still work, so this module reads
//! the command's output itself.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::kafka::ClientSettings;
use crate::kafka::health::ConnectionHealth;
use crate::model::kafka::fault::Fault;
use crate::telemetry::failure_log::FailureLog;

/// librdkafka's log facility for the command.
const FACILITY: &str = "SASLREFRESH";

/// How often the command runs, in milliseconds; 0 for never.
pub(super) const RELOGIN_INTERVAL: &str = "sasl.kerberos.min.time.before.relogin";

/// The property that holds the command.
pub(super) const COMMAND: &str = "sasl.kerberos.kinit.cmd";

/// librdkafka's default.
const DEFAULT: &str = "kinit -R -t \"%{sasl.kerberos.keytab}\" -k %{sasl.kerberos.principal} || \
                       kinit -t \"%{sasl.kerberos.keytab}\" -k %{sasl.kerberos.principal}";

/// Precedes the exit code of a command that ended.
const ENDED: &str = "lagwise: ended with ";

/// Written to the pipe to learn when everything before it has been read.
const MARK: &str = "lagwise: heard so far";

/// Maximum length of a line that is kept of a command's output, in bytes.
const MAX_LINE_BYTES: u64 = 500;

/// How long to wait for pending output.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// Whether the properties select Kerberos, which is librdkafka's default for SASL.
pub(in crate::kafka) fn is_selected(settings: &ClientSettings) -> bool {
    let get = |name: &str| settings.properties.get(name);
    let protocol = get("security.protocol").map(|protocol| protocol.to_ascii_uppercase());
    let mechanism = get("sasl.mechanisms").or_else(|| get("sasl.mechanism"));
    protocol.is_some_and(|protocol| protocol.starts_with("SASL"))
        && mechanism.is_none_or(|mechanism| mechanism == "GSSAPI")
}

/// Whether the properties select Kerberos without naming it.
pub(in crate::kafka) fn is_by_default(settings: &ClientSettings) -> bool {
    let mut names = settings.properties.keys();
    let is_named =
        |name: &String| name.starts_with("sasl.mechanism") || name.starts_with("sasl.kerberos.");
    is_selected(settings) && !names.any(is_named)
}

/// Makes the command end before it does anything; librdkafka still checks its variables.
pub(super) fn disarm(properties: &mut BTreeMap<String, String>) {
    let given = properties.get(COMMAND).map_or(DEFAULT, String::as_str);
    if !given.trim().is_empty() {
        // The shell reads a line at a time.
        let disarmed = format!("exit 0\n{given}");
        properties.insert(COMMAND.to_owned(), disarmed);
    }
}

/// Reads the output of a client's ticket commands and reports a failure as a login problem of the
/// cluster.
pub(super) struct KinitOutput {
    /// Kept open for the commands, which open it through `/proc`.
    pipe: PipeWriter,
    marks: Mutex<Receiver<()>>,
}

impl KinitOutput {
    /// Starts reading; `None` if the system does not support pipes like this.
    pub(super) fn start(settings: &ClientSettings, health: &Arc<ConnectionHealth>) -> Option<Self> {
        let (output, pipe) = std::io::pipe().ok()?;
        let (mark, marks) = sync_channel(1);
        let cluster = settings.name.clone();
        let health = Arc::clone(health);
        let mut failures = FailureLog::default();
        let report = move |words: Option<&str>| {
            let Some(words) = words else {
                failures.record_success();
                return;
            };
            let reason = format!("the Kerberos ticket command (kinit) failed: {words}");
            health.report(Fault::Login, &reason, Instant::now());
            if let Some(reason) = failures.record_failure(reason) {
                tracing::warn!(cluster = %cluster, "{reason}");
            }
        };
        let named = thread::Builder::new().name("kinit".to_owned());
        named
            .spawn(move || read_output(output, &mark, report))
            .ok()?;
        Some(Self {
            pipe,
            marks: Mutex::new(marks),
        })
    }

    /// The configured or default command, wrapped so that its stderr goes to the pipe, or stays
    /// where it was if the pipe cannot be opened. `None` if the command is empty.
    pub(super) fn command(&self, settings: &ClientSettings) -> Option<String> {
        let given = settings.properties.get(COMMAND);
        let command = given.map_or(DEFAULT, String::as_str);
        if command.trim().is_empty() {
            return None;
        }
        let (process, pipe) = (std::process::id(), self.pipe.as_raw_fd());
        // The command runs in a subshell because it may call `exit`, and on separate lines because it may end in a
        // comment.
        Some(format!(
            "words=/proc/{process}/fd/{pipe}\n\
             if [ -w \"$words\" ]; then exec 3>\"$words\"; else exec 3>&2; fi\n\
             (\n{command}\n) 2>&3 3>&-\n\
             code=$?; echo \"{ENDED}$code\" >&3; exit $code"
        ))
    }

    /// Waits until all output written so far has been processed.
    pub(super) fn drain(&self) {
        let Ok(marks) = self.marks.lock() else { return };
        // A mark left over from a timed-out wait only makes this wait shorter.
        let sent = writeln!(&self.pipe, "{MARK}");
        let _ = sent.map(|()| marks.recv_timeout(DRAIN_TIMEOUT));
    }
}

/// Reads until the last writer has closed the pipe. Reports each command that ended: its last line of output if it
/// failed, or its exit code if it printed nothing; `None` if it succeeded.
fn read_output(output: PipeReader, mark: &SyncSender<()>, mut report: impl FnMut(Option<&str>)) {
    let (mut output, mut last) = (BufReader::new(output), String::new());
    while let Some(line) = next_line(&mut output) {
        if line == MARK {
            // The waiter may have given up.
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

/// Reads the next line, cut at the maximum length; `None` at the end.
fn next_line(output: &mut impl BufRead) -> Option<String> {
    let mut line = Vec::new();
    match output
        .by_ref()
        .take(MAX_LINE_BYTES)
        .read_until(b'\n', &mut line)
    {
        Ok(1..) => Some(String::from_utf8_lossy(&line).trim().to_owned()),
        _ => None,
    }
}

/// librdkafka's message without the command line, which may contain a password.
pub(super) fn without_command<'a>(facility: &str, message: &'a str) -> &'a str {
    match message.split_once(": ") {
        Some((what, _)) if facility == FACILITY => what,
        _ => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::ClientKind;
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
            allowed_hosts: Vec::new(),
            client: ClientKind::Librdkafka,
        }
    }

    /// As librdkafka does it.
    fn run(command: &str) -> Option<i32> {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", command]).status().unwrap().code()
    }

    #[test]
    fn kerberos_is_the_default_sasl_mechanism() {
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
                is_selected(&settings(properties)),
                expected,
                "{properties:?}"
            );
        }
    }

    #[test]
    fn a_failed_command_reports_its_last_line_and_exit_code() {
        for (command, code, expected) in [
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
            let words = KinitOutput::start(&all, &health).unwrap();
            assert_eq!(run(&words.command(&all).unwrap()), Some(code), "{command}");
            words.drain();
            let fault = health.record_silence("k", Moment::now());
            assert_eq!(fault.kind, Fault::Login);
            assert!(fault.reason.ends_with(expected), "{}", fault.reason);
        }
    }

    #[test]
    fn output_of_a_successful_command_is_no_failure() {
        let (all, health) = (settings(&[(COMMAND, "echo well >&2")]), Arc::default());
        let words = KinitOutput::start(&all, &health).unwrap();
        assert_eq!(run(&words.command(&all).unwrap()), Some(0));
        words.drain();
        assert_eq!(
            health.record_silence("k", Moment::now()).kind,
            Fault::NoAnswer
        );
        let all = settings(&[(COMMAND, "exit 2")]);
        assert_eq!(run(&words.command(&all).unwrap()), Some(2));
        words.drain();
        let reason = health.record_silence("k", Moment::now()).reason;
        assert!(reason.ends_with("exit code 2"), "{reason}");
        assert!(words.command(&settings(&[(COMMAND, " ")])).is_none());
        assert!(words.command(&settings(&[])).unwrap().contains(DEFAULT));
    }

    #[test]
    fn command_lines_are_not_logged() {
        for message in [
            "Kerberos ticket refresh failed: echo hunter2: exited with code 1",
            "Refreshing Kerberos ticket with command: echo hunter2",
            "Slow Kerberos ticket refresh: 6000ms: echo hunter2",
        ] {
            let message = without_command(FACILITY, message);
            assert!(
                !message.is_empty() && !message.contains("hunter2"),
                "{message}"
            );
        }
    }
}
