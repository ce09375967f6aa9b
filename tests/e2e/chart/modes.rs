//! The rights of each mode of the chart are exactly those that the audit log shows in use.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Installed, InstalledDaemon, RELEASE, WAIT_TIMEOUT, chart, rights};
use crate::scale::workload;
use crate::testbed::control_plane::ControlPlane;
use crate::testbed::kafka::KafkaCluster;
use crate::testbed::keda::KedaKinds;
use crate::testbed::poll::poll_until;
use crate::testbed::{Testbed, unique};

/// The account of the job that undoes the daemon's writes.
const JOB: &str = "lagwise-release";

const PARTITIONS: i32 = 6;

pub(super) fn the_rights_of_each_mode_are_those_in_use(testbed: &Testbed) -> Result<()> {
    serve(testbed).context("the default mode")?;
    for mode in WRITE_MODES {
        write(testbed, mode).with_context(|| format!("{mode:?}"))?;
    }
    observe(testbed).context("mode: observe")
}

/// A mode in which the daemon writes.
#[derive(Clone, Copy, Debug)]
struct WriteMode {
    enforces: bool,
    zeroes: bool,
    place: Place,
}

/// Where the daemon may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Everywhere,
    /// In the namespace of the workload. It watches all.
    Listed,
    /// In the namespace of the workload, which is the only one that it watches.
    Watched,
}

const WRITE_MODES: &[WriteMode] = &[
    WriteMode {
        enforces: true,
        zeroes: true,
        place: Place::Listed,
    },
    WriteMode {
        enforces: true,
        zeroes: true,
        place: Place::Watched,
    },
    WriteMode {
        enforces: true,
        zeroes: false,
        place: Place::Everywhere,
    },
    WriteMode {
        enforces: false,
        zeroes: true,
        place: Place::Everywhere,
    },
];

/// A release in one namespace, and a workload in another.
struct Scene<'a> {
    testbed: &'a Testbed,
    plane: &'a ControlPlane,
    kafka: &'a KafkaCluster,
    /// The namespace of lagwise.
    own: String,
    /// The namespace of the workload.
    team: String,
    topic: String,
    group: String,
}

impl<'a> Scene<'a> {
    fn set(testbed: &'a Testbed) -> Result<Self> {
        let (kafka, plane) = (testbed.kafka()?, testbed.control_plane()?);
        let (topic, group) = (unique("orders"), unique("billing"));
        kafka.create_topic(&topic, PARTITIONS)?;
        let zeros: Vec<_> = (0..PARTITIONS).map(|partition| (partition, 0)).collect();
        kafka.commit(&group, &topic, &zeros)?;
        kafka.produce_to(&topic, &[(0, 900)])?;
        Ok(Self {
            testbed,
            plane,
            kafka,
            own: plane.namespace("chart")?,
            team: plane.namespace("team")?,
            topic,
            group,
        })
    }

    /// Runs Helm for the release, with these values in addition to the Kafka cluster; `kubernetes` is below `config`.
    fn helm(&self, command: &[&str], more: &Value) -> Result<String> {
        let mut values = json!({"config": {
            "clusters": [
                {"name": "main", "properties": {"bootstrap.servers": self.kafka.bootstrap()}},
            ],
            "poll": {"interval": "500ms"},
        }});
        for (key, value) in more.as_object().context("no values")? {
            match key.as_str() {
                "kubernetes" => values["config"][key] = value.clone(),
                _ => values[key] = value.clone(),
            }
        }
        let file = self.testbed.folder("modes")?.join("values.json");
        std::fs::write(&file, values.to_string())?;
        let (chart, file) = (chart(), file.to_string_lossy().into_owned());
        let of_release = [
            RELEASE,
            &*chart.to_string_lossy(),
            "--namespace",
            &self.own,
            "--values",
            &file,
        ];
        let (name, options) = command.split_first().context("no command")?;
        self.plane
            .helm(&[&[*name][..], &of_release, options].concat())
    }

    fn install(&self, values: &Value) -> Result<(Installed<'_>, InstalledDaemon)> {
        let installed = Installed {
            plane: self.plane,
            namespace: &self.own,
        };
        self.helm(&["install"], values)?;
        let kubeconfig = self.plane.account_kubeconfig(&self.own, RELEASE)?;
        let daemon = installed.start_daemon(self.testbed, &kubeconfig)?;
        Ok((installed, daemon))
    }

    fn apply_workload(&self, max: u32, annotations: &Value) -> Result<()> {
        let selector = [("group", &*self.group), ("topic", &*self.topic)];
        let mut list: Value = serde_json::from_str(&workload("billing", &selector))?;
        list["items"][1]["spec"]["maxReplicas"] = json!(max);
        list["items"][1]["metadata"]["annotations"] = annotations.clone();
        self.plane.apply(&self.team, &list.to_string())
    }

    /// Waits until the daemon has sent this request.
    fn wait_until_requested(&self, verb: &str, resource: &str) -> Result<()> {
        poll_until(WAIT_TIMEOUT, &format!("{verb} {resource}"), || {
            let requests = self.plane.requests(&self.own, RELEASE)?;
            let mut requests = requests.iter();
            let is_requested =
                requests.any(|request| request.verb == verb && request.resource == resource);
            ensure!(is_requested, "not requested yet");
            Ok(())
        })
    }

    /// Waits until a number of the workload or its HPA is this.
    fn wait_until_number(&self, of: &str, path: &str, expected: u64) -> Result<()> {
        poll_until(WAIT_TIMEOUT, &format!("{path} {expected} of {of}"), || {
            let found = self.plane.get(of, "billing", Some(&self.team))?;
            let number = found.pointer(path).and_then(Value::as_u64);
            ensure!(number == Some(expected), "{number:?}");
            Ok(())
        })
    }
}

/// The default mode reads HPAs by lists and watches only, and writes nothing to them.
fn serve(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed)?;
    let (installed, mut daemon) = scene.install(&json!({}))?;
    installed.reach(daemon.api_port)?;
    installed.wait_until_available()?;
    // A misspelled setting, which is an event.
    scene.apply_workload(20, &json!({"lagwise.dev/consumer-grup": "billing"}))?;
    scene.wait_until_requested("create", "events")?;
    // The HPA controller asks for the metric.
    scene.wait_until_requested("create", "subjectaccessreviews")?;
    daemon.process.stop(Duration::from_secs(10))?;
    rights::check_granted_are_used(scene.plane, &scene.own, RELEASE, rights::UNUSED_BY_SERVERS)
}

/// The cap or scale to zero, and the job that undoes what the daemon has written.
fn write(testbed: &Testbed, mode: &WriteMode) -> Result<()> {
    let scene = Scene::set(testbed)?;
    let of_mode = |is_enabled: bool| match mode.place {
        Place::Listed if is_enabled => json!({"enabled": true, "namespaces": [scene.team]}),
        _ => json!({"enabled": is_enabled}),
    };
    let mut values =
        json!({"enforce": of_mode(mode.enforces), "scaleToZero": of_mode(mode.zeroes)});
    if mode.place == Place::Watched {
        values["kubernetes"] = json!({"namespaces": [scene.team]});
    }
    let (installed, mut daemon) = scene.install(&values)?;
    installed.reach(daemon.api_port)?;
    installed.wait_until_available()?;
    if mode.enforces {
        scene.apply_workload(20, &json!({"lagwise.dev/cap": "enforce"}))?;
        scene.wait_until_number("hpa", "/spec/maxReplicas", 6)?;
    } else {
        // What is left of a cap is undone, for which it looks up whether the admission policy does so.
        let capped = json!({"lagwise.dev/ceiling": "6", "lagwise.dev/user-max-replicas": "30"});
        scene.apply_workload(6, &capped)?;
        scene.wait_until_number("hpa", "/spec/maxReplicas", 30)?;
    }
    if mode.zeroes {
        // With nothing to do it sleeps.
        let patch = r#"{"metadata":{"annotations":{"lagwise.dev/scale-to-zero":"true","lagwise.dev/cooldown":"2s"}}}"#;
        let args = ["patch", "hpa", "billing", "-n", &scene.team, "-p", patch];
        scene.plane.kubectl(&args)?;
        let ends: Vec<_> = (0..).zip(scene.kafka.end_offsets(&scene.topic)?).collect();
        scene.kafka.commit(&scene.group, &scene.topic, &ends)?;
        scene.wait_until_number("deployment", "/spec/replicas", 0)?;
    }
    scene.wait_until_requested("create", "events")?;
    scene.wait_until_requested("create", "subjectaccessreviews")?;
    daemon.process.stop(Duration::from_secs(10))?;
    let without_policy: &[_] = match mode.enforces {
        true => &[],
        false => rights::UNUSED_WITHOUT_POLICY,
    };
    let of_job = [rights::UNUSED_BY_RELEASE, without_policy].concat();
    let of_daemon = [&of_job[..], rights::UNUSED_BY_SERVERS].concat();
    rights::check_granted_are_used(scene.plane, &scene.own, RELEASE, &of_daemon)?;
    let job = JobAccount::create(&scene, &values)?;
    let kubeconfig = scene.plane.account_kubeconfig(&scene.own, JOB)?;
    let mut command: Vec<_> = job.arguments.iter().map(String::as_str).collect();
    let kubeconfig = kubeconfig.to_string_lossy();
    command.extend(["--kubeconfig", &*kubeconfig]);
    let released = testbed.lagwise(&command).output()?;
    let stderr = String::from_utf8_lossy(&released.stderr);
    ensure!(released.status.success(), "{stderr}");
    match mode.enforces {
        true => scene.wait_until_number("hpa", "/spec/maxReplicas", 20)?,
        false => scene.wait_until_number("deployment", "/spec/replicas", 1)?,
    }
    rights::check_granted_are_used(scene.plane, &scene.own, JOB, &of_job)
}

/// The account of the job with its rights, without the job, since no pod can run here.
struct JobAccount<'a> {
    plane: &'a ControlPlane,
    objects: String,
    /// Of the container of the job.
    arguments: Vec<String>,
}

impl<'a> JobAccount<'a> {
    fn create(scene: &Scene<'a>, values: &Value) -> Result<Self> {
        let only = ["template", "--show-only", "templates/release-job.yaml"];
        let rendered = scene.helm(&only, values)?;
        let is_job = |object: &&str| object.contains("kind: Job\n");
        let (jobs, objects): (Vec<_>, Vec<_>) = rendered.split("\n---\n").partition(is_job);
        let job: Value = serde_saphyr::from_str(jobs.first().context("no job")?)?;
        let arguments = &job["spec"]["template"]["spec"]["containers"][0]["args"];
        let created = Self {
            plane: scene.plane,
            objects: objects.join("\n---\n"),
            arguments: serde_json::from_value(arguments.clone())?,
        };
        let apply = ["apply", "-f", "-"];
        scene.plane.kubectl_with_input(&apply, &created.objects)?;
        Ok(created)
    }
}

impl Drop for JobAccount<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "--ignore-not-found", "-f", "-"];
        let _ = self.plane.kubectl_with_input(&delete, &self.objects);
    }
}

/// A daemon that observes lists and watches, and does nothing else.
fn observe(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed)?;
    let _kinds = KedaKinds::define(scene.plane)?;
    let (_installed, mut daemon) = scene.install(&json!({"mode": "observe"}))?;
    for resource in [
        "horizontalpodautoscalers",
        "scaledobjects",
        "scaledjobs",
        "triggerauthentications",
        "clustertriggerauthentications",
    ] {
        scene.wait_until_requested("watch", resource)?;
    }
    daemon.process.stop(Duration::from_secs(10))?;
    rights::check_granted_are_used(scene.plane, &scene.own, RELEASE, &[])
}
