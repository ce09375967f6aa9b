//! A real Kafka cluster: one or three brokers on loopback, in KRaft mode, or with ZooKeeper where they are that old.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::artifacts::Artifacts;
use super::broker::{Listener, Port, Ports, broker_properties, zookeeper_properties};
use super::pki::Authority;
use super::poll::{at_once, poll_until};
use super::process::Process;
use super::tokens::Issuer;

/// How long brokers may take to be up, on two busy cores.
const START: Duration = Duration::from_secs(90);

/// Which Kafka the brokers are. Its tools are always the current ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Version {
    #[default]
    Current,
    /// With ZooKeeper, since KRaft was no more than a preview.
    V2_8,
    V3_9,
    V4_3,
}

/// Options of a cluster. The default suits most tests.
#[derive(Clone, Debug)]
pub(crate) struct KafkaOptions {
    /// 1 or 3; in KRaft mode every one is broker and controller.
    pub(crate) brokers: u16,
    /// Lines added to every broker's properties; a later line wins over an earlier one.
    pub(crate) properties: Vec<(String, String)>,
    /// Listeners besides those that every broker has.
    pub(crate) listeners: Vec<Listener>,
    /// Arguments added to `kafka-storage format`, such as users for SCRAM.
    pub(crate) format: Vec<String>,
    pub(crate) version: Version,
    /// The most heap one broker may take, in MB.
    pub(crate) heap_mb: u32,
    /// Arguments added to every broker's `java`.
    pub(crate) java: Vec<String>,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self {
            brokers: 1,
            properties: Vec::new(),
            listeners: Vec::new(),
            format: Vec::new(),
            version: Version::Current,
            heap_mb: 512,
            java: Vec::new(),
        }
    }
}

struct Broker {
    ports: Ports,
    properties: PathBuf,
    process: Mutex<Option<Process>>,
}

/// A running cluster. Its brokers are killed when it is dropped. Brokers are numbered from 1.
pub(crate) struct KafkaCluster {
    pub(super) name: String,
    pub(super) artifacts: Artifacts,
    folder: PathBuf,
    /// Folder with the jars of the brokers, which may be older or newer than the tools.
    pub(super) jars: PathBuf,
    heap_mb: u32,
    java: Vec<String>,
    authority: Authority,
    issuer: Issuer,
    brokers: Vec<Broker>,
    /// ZooKeeper, for versions of Kafka that need it.
    zookeeper: Option<Process>,
}

impl KafkaCluster {
    /// Formats and starts the brokers in a new folder, and waits until each of them knows all others.
    pub(crate) fn start(
        name: &str,
        folder: &Path,
        artifacts: &Artifacts,
        options: &KafkaOptions,
    ) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let authority = Authority::new("lagwise testbed Kafka CA")?;
        std::fs::write(folder.join("ca.crt"), &authority.pem)?;
        let issuer = Issuer::new()?;
        issuer.write_keys(&folder.join("jwks.json"))?;
        let mut cluster = Self {
            name: name.to_owned(),
            artifacts: artifacts.clone(),
            folder: folder.to_owned(),
            jars: jars(artifacts, options.version)?,
            heap_mb: options.heap_mb,
            java: options.java.clone(),
            authority,
            issuer,
            brokers: Vec::new(),
            zookeeper: None,
        };
        for id in 1..=options.brokers {
            cluster.brokers.push(Broker {
                ports: Ports::free(options)?,
                properties: folder.join(format!("broker-{id}.properties")),
                process: Mutex::new(None),
            });
        }
        for (id, broker) in (1..).zip(&cluster.brokers) {
            let identity = cluster.authority.server(&["127.0.0.1", "localhost"])?;
            std::fs::write(
                folder.join(format!("broker-{id}.pem")),
                identity.key + &identity.certificate,
            )?;
            std::fs::write(
                &broker.properties,
                broker_properties(id, &cluster.ports(), folder, options),
            )?;
        }
        if options.version == Version::V2_8 {
            cluster.zookeeper = Some(cluster.start_zookeeper()?);
        } else {
            cluster.format(options)?;
        }
        cluster.start_all()?;
        Ok(cluster)
    }

    /// `host:port,...` of the listeners without login or encryption.
    pub(crate) fn bootstrap(&self) -> String {
        self.listener_bootstrap("PLAINTEXT")
    }

    /// `host:port,...` of the SASL_PLAINTEXT listeners: PLAIN with `broker::SASL_USER` and `SASL_PASSWORD`.
    pub(crate) fn sasl_bootstrap(&self) -> String {
        self.listener_bootstrap("SASL")
    }

    /// `host:port,...` of the SSL listeners, whose certificates [`Self::ca_file`] signed.
    pub(crate) fn ssl_bootstrap(&self) -> String {
        self.listener_bootstrap("SSL")
    }

    /// `host:port,...` that the brokers advertise for this listener.
    pub(crate) fn listener_bootstrap(&self, listener: &str) -> String {
        let ports = self.brokers.iter().filter_map(|broker| {
            let port = broker.ports.by_listener.get(listener)?;
            Some(format!("127.0.0.1:{}", port.advertised))
        });
        ports.collect::<Vec<_>>().join(",")
    }

    /// The number of brokers, running or not.
    pub(crate) fn brokers(&self) -> usize {
        self.brokers.len()
    }

    /// Port on which this broker listens, and the one that it advertises.
    pub(super) fn port(&self, id: usize, listener: &str) -> Result<Port> {
        let ports = &self.broker(id)?.ports.by_listener;
        let port = ports.get(listener);
        port.copied()
            .with_context(|| format!("there is no listener {listener}"))
    }

    /// The authority that signed the brokers' certificates.
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The issuer of the tokens that brokers accept.
    pub(crate) fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// A folder for files of this cluster.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The authority's certificate (PEM) for the SSL listeners.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// Kills one broker (SIGKILL). Its data stays.
    pub(crate) fn stop_broker(&self, id: usize) -> Result<()> {
        if let Some(mut process) = self.process(id)?.take() {
            process.kill();
        }
        Ok(())
    }

    /// Starts a stopped broker on its old ports and data, and waits until the whole running cluster knows it.
    pub(crate) fn start_broker(&self, id: usize) -> Result<()> {
        self.launch(id)?;
        self.wait_until_up()
    }

    /// Kills all brokers (SIGKILL).
    pub(crate) fn stop_all(&self) -> Result<()> {
        (1..=self.brokers.len()).try_for_each(|id| self.stop_broker(id))
    }

    /// Starts every broker that is not running, on the old ports and data.
    pub(crate) fn start_all(&self) -> Result<()> {
        for id in 1..=self.brokers.len() {
            self.launch(id)?;
        }
        self.wait_until_up()
    }

    /// Continues stopped brokers and starts killed ones.
    pub(crate) fn restore(&self) -> Result<()> {
        let mut whole = true;
        for id in 1..=self.brokers.len() {
            let mut process = self.process(id)?;
            let running = match process.as_mut() {
                Some(running) => running.exited()?.is_none() && running.signal("CONT").is_ok(),
                None => false,
            };
            if !running {
                *process = None;
                whole = false;
            }
        }
        if whole { Ok(()) } else { self.start_all() }
    }

    /// Sends a signal to one broker: `STOP` makes it hang with its connections open, `CONT` wakes it up.
    pub(crate) fn signal_broker(&self, id: usize, signal: &str) -> Result<()> {
        self.process(id)?
            .as_ref()
            .with_context(|| format!("broker {id} is not running"))?
            .signal(signal)
    }

    /// A client configuration with the plaintext listeners; its requests never create a topic.
    pub(crate) fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.bootstrap())
            .set("allow.auto.create.topics", "false");
        config
    }

    /// Runs a program from Kafka's jars with a small heap and returns its output; its failure is an error.
    pub(super) fn java(&self, class: &str, args: &[&str]) -> Result<String> {
        self.java_of(&self.artifacts.kafka_jars, class, args)
    }

    pub(super) fn java_of(&self, jars: &Path, class: &str, args: &[&str]) -> Result<String> {
        let mut command = self.java_command(jars, 256, "warn");
        let output = command
            .arg(class)
            .args(args)
            .output()
            .context("running java")?;
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        ensure!(
            output.status.success(),
            "{class} {args:?} failed ({}): {out}{err}",
            output.status
        );
        Ok(out.into_owned())
    }

    pub(super) fn java_command(&self, jars: &Path, heap_mb: u32, log_level: &str) -> Command {
        let mut command = Command::new(&self.artifacts.java);
        // The first compiler only and the serial collector: brokers live for minutes and share two cores.
        command
            .args([
                &format!("-Xmx{heap_mb}m"),
                "-XX:TieredStopAtLevel=1",
                "-XX:+UseSerialGC",
            ])
            .arg(format!(
                "-Dorg.slf4j.simpleLogger.defaultLogLevel={log_level}"
            ))
            .args([
                "-Dorg.slf4j.simpleLogger.showDateTime=true",
                "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
            ])
            .arg("-cp")
            .arg(jars.join("*"));
        if jars == self.artifacts.kafka_jars {
            let classes = self.artifacts.kafka_classes.display();
            command.arg(format!("-XX:SharedArchiveFile={classes}"));
        }
        command
    }

    fn ports(&self) -> Vec<Ports> {
        self.brokers
            .iter()
            .map(|broker| broker.ports.clone())
            .collect()
    }

    fn broker(&self, id: usize) -> Result<&Broker> {
        let index = id.checked_sub(1).context("brokers are numbered from 1")?;
        self.brokers
            .get(index)
            .with_context(|| format!("there is no broker {id}"))
    }

    fn process(&self, id: usize) -> Result<MutexGuard<'_, Option<Process>>> {
        Ok(self
            .broker(id)?
            .process
            .lock()
            .unwrap_or_else(PoisonError::into_inner))
    }

    fn launch(&self, id: usize) -> Result<()> {
        let mut process = self.process(id)?;
        if process.is_none() {
            let mut command = self.java_command(&self.jars, self.heap_mb, "info");
            // Brokers read keys of tokens only from where this says.
            command.arg(format!(
                "-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=file:{}",
                self.folder.join("jwks.json").display()
            ));
            command
                .args(&self.java)
                .arg("kafka.Kafka")
                .arg(&self.broker(id)?.properties);
            *process = Some(Process::start(
                &format!("{}-{id}", self.name),
                &self.folder,
                &command,
            )?);
        }
        Ok(())
    }

    /// Waits until the metadata of each running broker lists exactly the running brokers.
    fn wait_until_up(&self) -> Result<()> {
        let mut running = Vec::new();
        for id in 1..=self.brokers.len() {
            if self.process(id)?.is_some() {
                running.push(id);
            }
        }
        for &id in &running {
            let address = format!("127.0.0.1:{}", self.port(id, "PLAINTEXT")?.listens);
            let client: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", &address)
                .create()?;
            poll_until(
                START,
                &format!("{} broker {id} to be up", self.name),
                || {
                    if let Some(process) = self.process(id)?.as_mut() {
                        process.expect_running()?;
                    }
                    let metadata = client.fetch_metadata(None, Duration::from_secs(2));
                    let known = metadata.map(|metadata| metadata.brokers().len())?;
                    ensure!(
                        known >= running.len(),
                        "it knows {known} of {} brokers",
                        running.len()
                    );
                    Ok(())
                },
            )?;
        }
        Ok(())
    }

    /// Starts the ZooKeeper that `broker_properties` names. Brokers connect again and again until it is up.
    fn start_zookeeper(&self) -> Result<Process> {
        let properties = self.folder.join("zookeeper.properties");
        std::fs::write(
            &properties,
            zookeeper_properties(&self.ports(), &self.folder),
        )?;
        let mut command = self.java_command(&self.jars, 128, "warn");
        command
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(&properties);
        Process::start(&format!("{}-zookeeper", self.name), &self.folder, &command)
    }

    /// Writes the metadata of the brokers' data folders. Kafka's tool does so only where it has more to write than
    /// IDs, since it is a start of a JVM for every broker.
    fn format(&self, options: &KafkaOptions) -> Result<()> {
        static CLUSTERS: AtomicU64 = AtomicU64::new(0);
        let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        // 22 characters of base64 whose unused last bits are zero: an ID that Kafka accepts.
        let cluster_id = format!("lagwise{number:014}A");
        if options.version == Version::Current && options.format.is_empty() {
            return (1..=self.brokers.len()).try_for_each(|id| {
                let data = self.folder.join(format!("data-{id}"));
                std::fs::create_dir_all(&data)?;
                let properties = format!(
                    "version=1\ncluster.id={cluster_id}\nnode.id={id}\ndirectory.id=data{id:017}A\n"
                );
                std::fs::write(data.join("meta.properties"), properties)?;
                let bootstrap = data.join("bootstrap.checkpoint");
                std::fs::copy(&self.artifacts.kafka_bootstrap, bootstrap)?;
                Ok(())
            });
        }
        at_once(&self.brokers, |broker| {
            let properties = broker.properties.to_string_lossy();
            let mut all = vec!["format", "-t", &cluster_id, "-c", &properties];
            all.extend(options.format.iter().map(String::as_str));
            self.java_of(&self.jars, "kafka.tools.StorageTool", &all)
                .map(drop)
        })
    }
}

/// The folder of the version's jars.
fn jars(artifacts: &Artifacts, version: Version) -> Result<PathBuf> {
    let [v2_8, v3_9] = &artifacts.old_kafka_jars;
    let old = match version {
        Version::Current => return Ok(artifacts.kafka_jars.clone()),
        Version::V2_8 => v2_8,
        Version::V3_9 => v3_9,
        Version::V4_3 => return Ok(artifacts.kafka_4_3_jars.clone()),
    };
    old.clone().with_context(|| {
        format!("{version:?} is not built; tests/testbed/build kafka_2_8 kafka_3_9 builds them")
    })
}
