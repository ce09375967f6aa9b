//! Slow and greedy scrapers of the plain HTTP listeners: the memory that they hold, and the effect on other callers.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::background::{BackgroundTasks, TaskControl, apart};
use crate::bystander::Bystander;
use crate::daemon::{Daemon, Options, metric_path};
use crate::latencies::Latencies;
use crate::probes::Probes;
use crate::testbed::poll::{poll_until, poll_until_async};
use crate::testbed::{Testbed, unique};

/// Maximum memory of the daemon: the memory limit of the chart.
const MAX_MEMORY_KB: u64 = 256 * 1024;
/// Maximum memory that the scrapers may add.
const MAX_GROWTH_KB: u64 = 64 * 1024;
const CROWD: usize = 400;
const FOR: Duration = Duration::from_secs(6);
/// Pause of a scraper after its connection was cut.
const BEFORE_RECONNECT: Duration = Duration::from_secs(2);
/// Time after [`FOR`] within which a scraper that reads must have a complete response.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum median response time of the API during the scrapes. Other scenarios share the cores, so it only shows that
/// requests are not blocked; the figures are printed with those of the API alone.
const MAX_P50: Duration = Duration::from_secs(1);

const SCRAPE: &[u8] = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n";

/// 400 scrapers that never read.
pub(super) fn that_do_not_read(testbed: &Testbed) -> Result<()> {
    beside_a_crowd(testbed, |stream, control| async move {
        let mut stream = stream;
        let _ = stream.write_all(SCRAPE).await;
        // Empty lines before the next request, which is never sent. They fail once the daemon has closed the
        // connection.
        while !control.is_stopped() && stream.write_all(b"\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
}

/// 400 scrapers that read a little from time to time.
pub(super) fn that_trickle(testbed: &Testbed) -> Result<()> {
    beside_a_crowd(testbed, |stream, control| async move {
        let mut stream = stream;
        let _ = stream.write_all(SCRAPE).await;
        let mut little = [0; 512];
        while !control.is_stopped() && !matches!(stream.read(&mut little).await, Ok(0) | Err(_)) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
}

/// Twenty scrapers that read everything and start again at once.
pub(super) fn that_never_rest(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed)?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let usual = scene.beside(Duration::from_secs(1)).await?;
        let bystander = Bystander::start(usual.answers.p50())?;
        let alone = scene.beside(Duration::from_secs(3)).await?;
        let (bystander_alone, cpu) = (bystander.take(), scene.daemon.process.cpu()?);
        let scrapers = BackgroundTasks::start(20, |_, control| {
            let url = scene.scrape_url();
            async move {
                let client = reqwest::Client::new();
                while !control.is_stopped() {
                    let answer = client.get(&url).send().await?.error_for_status()?;
                    // One that has waited too long for its turn is cut.
                    if answer.bytes().await.is_ok() {
                        control.count_round();
                    }
                }
                Ok(())
            }
        });
        bystander.take();
        let crowded = apart(scene.beside(FOR))?;
        let (bystander, cpu) = (bystander.take(), scene.daemon.process.cpu()? - cpu);
        // On a busy machine no scrape may be complete by now.
        poll_until_async(SCRAPE_TIMEOUT, "a scrape to be complete", || async {
            ensure!(scrapers.rounds() > 0, "none is");
            Ok(())
        })
        .await?;
        let scrapes = scrapers.stop().await?;
        println!(
            "alone {alone}; beside {scrapes} scrapes in {FOR:?} {crowded}, {:.1} s of CPU; API {}",
            cpu.as_secs_f64(),
            crowded
                .answers
                .beside_bystander(&alone.answers, (&bystander, &bystander_alone))?
        );
        ensure!(crowded.answers.p50() < MAX_P50, "{crowded}");
        ensure!(crowded.resident_kb < MAX_MEMORY_KB, "{crowded}");
        crowded.probes.check()
    })
}

/// More idle connections on each port than the listener accepts: probes still get responses.
pub(super) fn probes_answer_despite_idle_connections(testbed: &Testbed) -> Result<()> {
    probed_beside(testbed, b"")
}

/// The same with requests that never end.
pub(super) fn probes_answer_despite_unfinished_requests(testbed: &Testbed) -> Result<()> {
    probed_beside(testbed, b"GET /livez HTTP/1.1\r\nhost: x\r\nslow: ")
}

fn probed_beside(testbed: &Testbed, begun: &'static [u8]) -> Result<()> {
    let daemon = Daemon::alone(testbed, &Options::main("127.0.0.1:1"))?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let mut probes = Probes::default();
        for (name, port) in [
            ("probes", daemon.probe_port),
            ("metrics", daemon.http_port),
            ("admin", daemon.admin_port),
            ("API", daemon.api_port),
        ] {
            let mut open = Vec::new();
            for _ in 0..1100 {
                let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
                let _ = stream.write_all(begun).await;
                open.push(stream);
            }
            for _ in 0..10 {
                let took = probe(daemon.probe_port).await;
                let took = took.with_context(|| format!("beside 1100 connections to {name}"))?;
                probes.add(took);
            }
            drop(open);
        }
        println!("{probes}");
        probes.check()
    })
}

/// Endpoints that show all namespaces are not reachable for every client that reaches the pod.
pub(super) fn pages_of_all_namespaces_are_not_public(testbed: &Testbed) -> Result<()> {
    let daemon = Daemon::alone(testbed, &Options::main("127.0.0.1:1"))?;
    for port in [daemon.http_port, daemon.probe_port] {
        for path in [
            "/status",
            "/explain?group=billing",
            "/explain?namespace=a&hpa=b",
        ] {
            let (code, body) = crate::testbed::http::http_get(port, path)?;
            ensure!(code == 404, "{path} on port {port}: {code}: {body}");
        }
    }
    for path in ["/status", "/explain?group=billing"] {
        let (code, body) = crate::testbed::http::http_get(daemon.admin_port, path)?;
        ensure!(code == 200, "{path}: {code}: {body}");
    }
    // A web page whose name resolves to loopback cannot read them either, through a forwarded port.
    let request = "GET /status HTTP/1.0\r\nHost: rebound.example:8082\r\n\r\n";
    let mut stream = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, daemon.admin_port))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let is_refused = answer.split(' ').nth(1) == Some("421");
    ensure!(is_refused && !answer.contains("hpas"), "{answer}");
    // The address at which other pods would connect, if it were bound.
    let outside = std::net::UdpSocket::bind("0.0.0.0:0")?;
    outside.connect("192.0.2.1:9")?;
    let config = json!({
        "clusters": [crate::daemon::cluster("main", &[("bootstrap.servers", "127.0.0.1:1")])],
        "kubernetes": {"enabled": false},
        "server": {
            "external_metrics": {"auth": "none", "listen": "127.0.0.1:0"},
            "admin": {"listen": format!("{}:0", outside.local_addr()?.ip())},
        },
    });
    let file = testbed.folder("open")?.join("lagwise.yaml");
    std::fs::write(&file, config.to_string())?;
    let file = file.to_string_lossy();
    let output = testbed.lagwise(&["run", "--config", &file]).output()?;
    let stderr = String::from_utf8(output.stderr)?;
    ensure!(
        !output.status.success() && stderr.contains("server.admin.listen"),
        "{stderr}"
    );
    Ok(())
}

/// Latencies of other callers.
struct Noticed {
    answers: Latencies,
    probes: Probes,
    resident_kb: u64,
}

impl std::fmt::Display for Noticed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "API {}, {}, memory {} MiB",
            self.answers,
            self.probes,
            self.resident_kb / 1024
        )
    }
}

/// A daemon with a large `/metrics`.
struct Scene {
    daemon: Daemon,
    selector: String,
    length: usize,
}

impl Scene {
    fn set(testbed: &Testbed) -> Result<Self> {
        let kafka = testbed.kafka()?;
        let (topic, group) = (unique("orders"), unique("group"));
        kafka.create_topic(&topic, 200)?;
        let names = (0..300).map(|n| format!("{group}-{n}"));
        let target = |name: String| json!({"name": name, "group": name, "topics": [topic], "offset_reset": "earliest"});
        let options = Options {
            targets: names.map(target).collect(),
            interval: "2s",
            ..Options::main(&kafka.bootstrap())
        };
        let daemon = Daemon::alone(testbed, &options)?;
        let selector = format!("group={group}-0,topic={topic}");
        let length = poll_until(Duration::from_secs(30), "all groups to be read", || {
            daemon.lag(&selector)?;
            let metrics = daemon.metrics()?;
            ensure!(metrics.len() > 4 << 20, "{} bytes", metrics.len());
            Ok(metrics.len())
        })?;
        Ok(Self {
            daemon,
            selector,
            length,
        })
    }

    fn scrape_url(&self) -> String {
        format!("http://127.0.0.1:{}/metrics", self.daemon.http_port)
    }

    fn resident_kb(&self) -> Result<u64> {
        self.daemon.process.memory("VmRSS")
    }

    /// Requests a metric and probes until the time is over.
    async fn beside(&self, time: Duration) -> Result<Noticed> {
        let client = reqwest::Client::builder()
            .danger_accept_invalid_certs(true)
            .timeout(Duration::from_secs(30))
            .build()?;
        let url = self.daemon.url(&metric_path("default", &self.selector));
        let until = Instant::now() + time;
        let mut noticed = Noticed {
            answers: Latencies::default(),
            probes: Probes::default(),
            resident_kb: 0,
        };
        while Instant::now() < until {
            let began = Instant::now();
            let answer = client.get(&url).send().await?;
            ensure!(answer.status() == 200, "{}", answer.status());
            answer.bytes().await?;
            noticed.answers.add(began.elapsed());
            if noticed.answers.len().is_multiple_of(20) {
                noticed.probes.add(probe(self.daemon.probe_port).await?);
                noticed.resident_kb = noticed.resident_kb.max(self.resident_kb()?);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(noticed)
    }

    /// How long a scraper waits that reads its response and has a separate address.
    async fn scrape(&self) -> Result<Duration> {
        let began = Instant::now();
        let client = reqwest::Client::builder()
            .local_address(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)))
            .timeout(Duration::from_secs(30))
            .build()?;
        let answer = client.get(self.scrape_url()).send().await?;
        // An error if it is cut short.
        answer.error_for_status()?.bytes().await?;
        Ok(began.elapsed())
    }

    /// Scrapes until the time is over and one scrape is complete. Returns how many are, and how long the slowest of
    /// them took.
    async fn scrape_for(&self, time: Duration) -> Result<(usize, Duration)> {
        let until = Instant::now() + time;
        let (mut scrapes, mut slowest) = (0, Duration::ZERO);
        while Instant::now() < until || scrapes == 0 {
            match self.scrape().await {
                Ok(took) => {
                    scrapes += 1;
                    slowest = slowest.max(took);
                }
                // On a busy machine, one may wait too long for its turns and be cut.
                Err(error) if Instant::now() > until + SCRAPE_TIMEOUT => return Err(error),
                Err(error) => println!("a scrape: {error:#}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok((scrapes, slowest))
    }
}

/// How long the probe of liveness takes.
async fn probe(port: u16) -> Result<Duration> {
    let began = Instant::now();
    let answered = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream
            .write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
        Ok(())
    };
    tokio::time::timeout(Duration::from_secs(30), answered)
        .await
        .context("the probe is not answered")??;
    Ok(began.elapsed())
}

/// Makes a crowd of these scrapers reconnect whenever they are disconnected, and measures the effect on others.
fn beside_a_crowd<S, F>(testbed: &Testbed, scrape: S) -> Result<()>
where
    S: Fn(TcpStream, TaskControl) -> F + Copy + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let scene = Scene::set(testbed)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, scene.daemon.http_port));
    tokio::runtime::Runtime::new()?.block_on(async {
        let alone = scene.beside(Duration::from_secs(3)).await?;
        let alone_scrape = scene.scrape().await?;
        let crowd = BackgroundTasks::start(CROWD, |_, control| async move {
            while !control.is_stopped() {
                if let Ok(stream) = TcpStream::connect(address).await {
                    control.count_round();
                    scrape(stream, control.clone()).await;
                }
                tokio::time::sleep(BEFORE_RECONNECT).await;
            }
            Ok(())
        });
        let (crowded, (scrapes, slowest_scrape)) =
            apart(async { tokio::try_join!(scene.beside(FOR), scene.scrape_for(FOR)) })?;
        let later = scene.resident_kb()?;
        let (length, connected) = (scene.length, crowd.stop().await?);
        println!(
            "{CROWD} scrapers of {length} bytes, {connected} connections: alone {alone}, a scrape {alone_scrape:?}; \
             crowded {crowded}, the slowest of {scrapes} scrapes {slowest_scrape:?}, memory then {} MiB",
            later / 1024
        );
        let most = crowded.resident_kb.max(later);
        let grown = most.saturating_sub(alone.resident_kb);
        println!(
            "memory grew by {} MiB, at most {} MiB",
            grown / 1024,
            MAX_GROWTH_KB / 1024
        );
        ensure!(
            connected > CROWD,
            "the crowd connected {connected} times"
        );
        ensure!(grown < MAX_GROWTH_KB && most < MAX_MEMORY_KB, "memory {most} kB");
        crowded.probes.check()?;
        ensure!(crowded.answers.p50() < MAX_P50, "{crowded}");
        Ok(())
    })
}
