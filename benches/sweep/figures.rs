//! Resources that a contender used, as counted by the operating system.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// Medians over the rounds, and the process's state after them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) wall_ms: f64,
    pub(crate) cpu_ms: f64,
    pub(crate) resident_mb: f64,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    pub(crate) requests_per_round: Option<u64>,
    pub(crate) bytes_per_round: Option<u64>,
}

/// Measures wall and CPU time of rounds.
pub(crate) struct Meter {
    ports: Vec<u16>,
    wall: Vec<Duration>,
    began_cpu: Duration,
}

impl Meter {
    /// A meter of rounds whose brokers are at `bootstrap`.
    pub(crate) fn start(bootstrap: &str) -> Result<Self> {
        let port = |address: &str| -> Result<u16> {
            let (_, port) = address.rsplit_once(':').context("no port")?;
            Ok(port.parse()?)
        };
        Ok(Self {
            ports: bootstrap.split(',').map(port).collect::<Result<_>>()?,
            wall: Vec::new(),
            began_cpu: cpu("self")?,
        })
    }

    pub(crate) fn begin(&self) -> Result<Instant> {
        Ok(Instant::now())
    }

    pub(crate) fn finish(&mut self, begun: Instant) -> Result<()> {
        self.wall.push(begun.elapsed());
        Ok(())
    }

    pub(crate) fn round(&mut self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let begun = self.begin()?;
        work()?;
        self.finish(begun)
    }

    pub(crate) fn end(mut self) -> Result<Figures> {
        // The mean: work that a round leaves to background tasks counts as well.
        let spent =
            cpu("self")?.saturating_sub(self.began_cpu) / u32::try_from(self.wall.len().max(1))?;
        self.wall.sort();
        let median = self.wall.get(self.wall.len() / 2).context("no round")?;
        Ok(Figures {
            wall_ms: median.as_secs_f64() * 1000.0,
            cpu_ms: spent.as_secs_f64() * 1000.0,
            resident_mb: resident_mb("self")?,
            connections: connections(&self.ports)?,
            threads: usize::try_from(status("self", "Threads:")?)?,
            requests_per_round: None,
            bytes_per_round: None,
        })
    }
}

/// CPU time of a process's threads, except those that have ended.
pub(crate) fn cpu(process: &str) -> Result<Duration> {
    let mut nanos = 0;
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let stat = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        let ran = stat.split(' ').next().context("no field")?;
        nanos += ran.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanos))
}

/// Resident memory of a process.
pub(crate) fn resident_mb(process: &str) -> Result<f64> {
    Ok(status(process, "VmRSS:")? as f64 / 1024.0)
}

/// Resident pages of files: code and constants. The kernel maps 16 pages around each that is used, and can drop them.
pub(crate) fn resident_mb_of_files(process: &str) -> Result<f64> {
    Ok(status(process, "RssFile:")? as f64 / 1024.0)
}

fn status(process: &str, key: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status
        .lines()
        .find(|line| line.starts_with(key))
        .context("no such line")?;
    line.split_whitespace()
        .nth(1)
        .context("no number")?
        .parse()
        .context("no number")
}

/// Number of this process's connections to these ports.
fn connections(ports: &[u16]) -> Result<usize> {
    let mut own = std::collections::HashSet::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        if let Ok(link) = std::fs::read_link(entry?.path())
            && let Some(inode) = link
                .to_string_lossy()
                .strip_prefix("socket:[")
                .and_then(|rest| rest.strip_suffix(']'))
        {
            own.insert(inode.to_owned());
        }
    }
    let remotes: Vec<String> = ports.iter().map(|port| format!(":{port:04X}")).collect();
    let is_broker = |remote: &str| remotes.iter().any(|port| remote.ends_with(port.as_str()));
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"].map(std::fs::read_to_string);
    let lines: Vec<String> = tables
        .into_iter()
        .flatten()
        .flat_map(|t| t.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let is_ours = |line: &&String| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // rem_address, st (01: established), inode.
        matches!(fields.as_slice(), [_, _, rem, "01", _, _, _, _, _, inode, ..] if is_broker(rem) && own.contains(*inode))
    };
    Ok(lines.iter().filter(is_ours).count())
}

/// Prints figures with their bounds, and counts those that exceed them.
#[derive(Default)]
pub(crate) struct Bounds {
    beyond: usize,
}

impl Bounds {
    pub(crate) fn check(&mut self, what: &str, figure: f64, most: f64) {
        let verdict = if figure <= most {
            "within the bound"
        } else {
            self.beyond += 1;
            "TOO MUCH"
        };
        println!("{what:<44} {figure:>7.2} of {most:>5.2}  {verdict}");
    }

    /// Fails if a figure was beyond its bound.
    pub(crate) fn finish(self) -> Result<()> {
        ensure!(
            self.beyond == 0,
            "{} figures beyond their bounds",
            self.beyond
        );
        Ok(())
    }
}

/// Prints the table, with ratios to the first row, the limit.
pub(crate) fn print(table: &[(&str, Figures)]) {
    println!(
        "{:<12} {:>10} {:>7} {:>10} {:>7} {:>9} {:>6} {:>8} {:>9} {:>10}",
        "",
        "wall ms",
        "ratio",
        "CPU ms",
        "ratio",
        "RSS MB",
        "conns",
        "threads",
        "requests",
        "bytes"
    );
    let Some((_, limit)) = table.first() else {
        return;
    };
    for (name, row) in table {
        let shown =
            |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
        println!(
            "{name:<12} {:>10.1} {:>7.2} {:>10.1} {:>7.2} {:>9.1} {:>6} {:>8} {:>9} {:>10}",
            row.wall_ms,
            row.wall_ms / limit.wall_ms,
            row.cpu_ms,
            row.cpu_ms / limit.cpu_ms,
            row.resident_mb,
            row.connections,
            row.threads,
            shown(row.requests_per_round),
            shown(row.bytes_per_round),
        );
    }
}
