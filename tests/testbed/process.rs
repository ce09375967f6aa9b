//! A process under test. It logs to a file and cannot outlive the tests.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::poll::DEADLINE_FACTOR;

/// A child process that is killed when this value is dropped, and by the kernel if the test process ends first.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with both outputs appended to `<log_dir>/<name>.out`.
    pub(crate) fn start(name: &str, log_dir: &Path, command: &Command) -> Result<Self> {
        let log = log_dir.join(format!("{name}.out"));
        let file = File::options().create(true).append(true).open(&log)?;
        let mut command = bound_to_the_tests(command);
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = spawn(command).with_context(|| format!("starting {name}"))?;
        live().push(child.id());
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The CPU time that the process has used.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        // After the name, which may have spaces: the state and 10 numbers, then ticks in user mode and in the kernel.
        let (_, fields) = stat.rsplit_once(')').context("no end of the name")?;
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(str::parse::<u64>).sum::<Result<_, _>>()?;
        // A hundredth of a second each, on every architecture that Linux still has.
        Ok(Duration::from_millis(ticks * 10))
    }

    /// A field of the memory of the process, such as `VmRSS`, in kB.
    pub(crate) fn memory(&self, field: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let mut fields = status.lines().filter_map(|line| line.split_once(':'));
        let found = fields.find(|(name, _)| *name == field);
        let number = found.and_then(|(_, value)| value.split_whitespace().next());
        let number = number.with_context(|| format!("no {field}"))?;
        Ok(number.parse()?)
    }

    /// How the process ended, or `None` while it runs.
    pub(crate) fn exited(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        if status.is_some() {
            live().retain(|pid| *pid != self.child.id());
        }
        Ok(status)
    }

    /// Returns an error that ends a wait, with the end of the log, if the process has exited. For use in a probe.
    pub(crate) fn expect_running(&mut self) -> Result<()> {
        match self.exited()? {
            None => Ok(()),
            Some(status) => {
                let what = format!(
                    "{} ended by itself ({status})\n{}",
                    self.name,
                    self.log_tail(40)
                );
                Err(super::poll::Hopeless(what).into())
            }
        }
    }

    /// Output of the process so far, with invalid UTF-8 replaced.
    pub(crate) fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The last `lines` lines of the log, under a heading that names it.
    pub(crate) fn log_tail(&self, lines: usize) -> String {
        tail_of(&self.log, lines)
    }

    /// Sends the signal of that name (`TERM`, `STOP`, `CONT`, ...).
    pub(crate) fn signal(&self, signal: &str) -> Result<()> {
        // The shell's own `kill` is on every machine; the standard library can send SIGKILL only.
        let status = Command::new("sh")
            .args([
                "-c",
                "kill -s \"$0\" \"$1\"",
                signal,
                &self.pid().to_string(),
            ])
            .stderr(Stdio::null())
            .status()?;
        if status.success() {
            Ok(())
        } else {
            bail!("{} cannot be sent {signal}: it is gone", self.name)
        }
    }

    /// Ends the process by SIGTERM and waits. After [`DEADLINE_FACTOR`] times `timeout` it is killed, and that is an
    /// error.
    pub(crate) fn stop(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let timeout = timeout * DEADLINE_FACTOR;
        if let Some(status) = self.exited()? {
            return Ok(status);
        }
        self.signal("TERM")?;
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            if let Some(status) = self.exited()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill();
        bail!(
            "{} did not end within {timeout:?} of SIGTERM\n{}",
            self.name,
            self.log_tail(20)
        )
    }

    /// Kills the process (SIGKILL) and waits until it has exited.
    pub(crate) fn kill(&mut self) {
        // Both fail only if the process has already ended, which is the goal.
        let _ = self.child.kill();
        let _ = self.child.wait();
        live().retain(|pid| *pid != self.child.id());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last lines of a log file, under a heading that names it.
pub(crate) fn tail_of(log: &Path, lines: usize) -> String {
    let text = std::fs::read(log)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    let tail = all[all.len().saturating_sub(lines)..].join("\n");
    format!("--- the end of {}\n{tail}", log.display())
}

/// Kills every process that was started here, for a test run that gets SIGINT or SIGTERM.
pub(crate) fn kill_all() {
    for pid in live().drain(..) {
        let _ = Command::new("sh")
            .args(["-c", "kill -s KILL \"$0\"", &pid.to_string()])
            .status();
    }
}

/// Process IDs that have not been waited for, so that the kernel has not reused them.
fn live() -> std::sync::MutexGuard<'static, Vec<u32>> {
    static LIVE: Mutex<Vec<u32>> = Mutex::new(Vec::new());
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wraps the command with `setpriv --pdeathsig KILL`, in its own process group: the kernel kills it when the tests are
/// killed, and Ctrl-C in the terminal only reaches the tests, which then stop it in order.
fn bound_to_the_tests(command: &Command) -> Command {
    use std::os::unix::process::CommandExt;
    let mut bound = Command::new("setpriv");
    bound
        .args(["--pdeathsig", "KILL", "--"])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(name, value),
            None => bound.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        bound.current_dir(folder);
    }
    bound.process_group(0);
    bound
}

/// A command to start, and where to send the child.
type Job = (Command, Sender<io::Result<Child>>);

/// Spawns on one thread that lives as long as the tests, because the kernel's parent-death signal fires when the
/// *thread* that spawned a process ends, and a test's own thread ends with the test.
fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: LazyLock<Mutex<Sender<Job>>> = LazyLock::new(|| {
        let (jobs, inbox) = channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(jobs)
    });
    let (answer, spawned) = channel();
    let gone = |_| io::Error::other("the spawning thread is gone");
    SPAWNER
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, answer))
        .map_err(|_| gone(()))?;
    spawned.recv().map_err(|_| gone(()))?
}
