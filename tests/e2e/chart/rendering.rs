//! Rendering of the chart: all sets of values render valid manifests, mistakes are rejected, and values have their
//! effect.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use regex::Regex;
use serde_json::{Value, json};

use super::chart;
use crate::testbed::Testbed;
use crate::testbed::pki::Authority;

/// The sets of values in a folder of the chart, in order.
fn sets_of_values(folder: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(chart().join(folder))?;
    let mut sets: Vec<_> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    sets.sort();
    Ok(sets)
}

pub(super) fn every_set_of_values_renders(testbed: &Testbed) -> Result<()> {
    let plane = testbed.control_plane()?;
    let chart = chart();
    let folder = chart.to_string_lossy();
    let place = testbed.folder("configurations")?;
    let certificates = Certificates::make(&place)?;
    let (sets, examples) = (sets_of_values("ci")?, sets_of_values("examples")?);
    ensure!(sets.len() >= 6, "only {} sets of values", sets.len());
    ensure!(examples.len() >= 20, "only {} examples", examples.len());
    let mut known = Vec::new();
    for (values, is_linted) in sets
        .iter()
        .map(|set| (set, true))
        .chain(examples.iter().map(|set| (set, false)))
    {
        let name = values.file_name().context("no name")?.to_string_lossy();
        let values = values.to_string_lossy();
        if is_linted {
            plane.helm(&["lint", "--strict", &folder, "--values", &values])?;
        }
        let rendered = plane.helm(&[
            "template",
            "lw",
            &folder,
            "--values",
            &values,
            "--namespace",
            "shop",
        ])?;
        let config = configuration(&rendered, &certificates).with_context(|| name.to_string())?;
        let file = place.join(&*name);
        fs::write(&file, config)?;
        let checked = testbed
            .lagwise(&["config", "check", &file.to_string_lossy()])
            .output()?;
        let stderr = String::from_utf8_lossy(&checked.stderr);
        ensure!(checked.status.success(), "{stderr}");
        known.extend(documents(&rendered).filter_map(|document| {
            // Kinds that the API server does not know.
            let unknown = ["cert-manager.io/v1", "monitoring.coreos.com/v1"];
            let is_known = !unknown.iter().any(|kind| document.contains(kind));
            is_known.then(|| document.to_owned())
        }));
    }
    // Validate with the API server's own schemas.
    plane.kubectl_with_input(
        &["apply", "--dry-run=client", "--validate=strict", "-f", "-"],
        &known.join("\n---\n"),
    )?;
    // The daemon reads the former key of server.metrics too.
    let first = sets.first().context("no set of values")?;
    let first = first.to_string_lossy();
    for key in ["metrics", "http"] {
        let set = format!("config.server.{key}.auth=kubernetes");
        let command = [
            "template", "lw", &*folder, "--values", &*first, "--set", &set,
        ];
        let rendered = plane.helm(&command)?;
        ensure!(
            rendered.contains("-metrics-reader"),
            "{set}: nobody may scrape"
        );
    }
    // By default the chart grants no right to write HPAs. A configuration that enforces the cap is rejected without it.
    let defaults = chart.join("ci/default-values.yaml");
    let defaults = defaults.to_string_lossy();
    let command = ["template", "lw", &*folder, "--values", &*defaults];
    let rendered = plane.helm(&command)?;
    let hpas = rendered.split("resources: [horizontalpodautoscalers]\n");
    let verbs: Vec<_> = hpas.skip(1).map(|rest| rest.lines().next()).collect();
    ensure!(
        verbs == [Some("    verbs: [list, watch]")],
        "{verbs:?} of {rendered}"
    );
    let default_mode = ["--set", "config.cap.default=enforce"];
    let refused = plane.helm(&[&command[..], &default_mode].concat());
    let refused = refused.err().context("rendered without the right")?;
    ensure!(refused.to_string().contains("enforce.enabled"), "{refused}");
    // Whoever may view one namespace could read the metrics of all groups without tenancy.
    let tenants = chart.join("examples/several-tenants.yaml");
    let tenants = tenants.to_string_lossy();
    let with_tenancy = plane.helm(&["template", "lw", &folder, "--values", &tenants])?;
    for (rendered, may_view) in [(rendered, false), (with_tenancy, true)] {
        ensure!(
            rendered.contains("aggregate-to-view") == may_view,
            "{rendered}"
        );
    }
    // A configuration without a Kafka cluster is rejected.
    let missing = plane.helm(&["template", "lw", &folder]);
    let error = missing
        .err()
        .context("rendered without a Kafka cluster")?
        .to_string();
    ensure!(error.contains("config.clusters"), "{error}");
    // With the default service account, any pod of the namespace would count as a replica of lagwise.
    let with_account = |create: bool, name: &str| {
        let create = format!("serviceAccount.create={create}");
        let name = format!("serviceAccount.name={name}");
        plane.helm(&[
            "template", "lw", &folder, "--values", &first, "--set", &create, "--set", &name,
        ])
    };
    for (create, name) in [(false, ""), (false, "default"), (true, "default")] {
        let error = with_account(create, name).err();
        let error =
            error.with_context(|| format!("rendered with create {create} and name {name:?}"))?;
        let error = error.to_string();
        ensure!(error.contains("serviceAccount.name"), "{error}");
    }
    let rendered = with_account(false, "metrics")?;
    ensure!(
        rendered.contains("serviceAccountName: metrics") && !rendered.contains("name: default"),
        "{rendered}"
    );
    Ok(())
}

pub(super) fn documents(rendered: &str) -> impl Iterator<Item = &str> {
    let documents = rendered.split("\n---\n");
    documents.filter(|document| document.contains("kind:"))
}

/// The object of this kind.
pub(super) fn object(rendered: &str, kind: &str) -> Result<Value> {
    let line = format!("\nkind: {kind}\n");
    let mut found = documents(rendered).filter(|document| document.contains(&line));
    let document = found.next().with_context(|| format!("no {kind}"))?;
    Ok(serde_saphyr::from_str(document)?)
}

/// Files in place of those that are mounted into pods.
struct Certificates {
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Certificates {
    fn make(folder: &Path) -> Result<Self> {
        let authority = Authority::new("mounted")?;
        let (certificate, key) = authority.client("lagwise", None)?.write(folder, "client")?;
        let file = folder.join("ca.pem");
        fs::write(&file, &authority.pem)?;
        Ok(Self {
            authority: file,
            certificate,
            key,
        })
    }

    fn file(&self, property: &str) -> Option<&Path> {
        match property {
            "ssl.ca.location" => Some(&self.authority),
            "ssl.certificate.location" => Some(&self.certificate),
            "ssl.key.location" => Some(&self.key),
            _ => None,
        }
    }
}

/// The daemon's configuration.
fn daemon_configuration(rendered: &str) -> Result<Value> {
    let maps = documents(rendered).filter(|document| document.contains("\n  lagwise.yaml: |"));
    let map: Value = serde_saphyr::from_str(maps.last().context("no configuration")?)?;
    let text = map["data"]["lagwise.yaml"].as_str().context("no text")?;
    Ok(serde_saphyr::from_str(text)?)
}

/// The daemon's configuration, with placeholders for secrets and certificates, which do not exist here.
fn configuration(rendered: &str, certificates: &Certificates) -> Result<String> {
    let mut config = daemon_configuration(rendered)?;
    config["server"]["external_metrics"]["tls"] = Value::Null;
    if let Some(scaler) = config["server"].get_mut("external_scaler") {
        *scaler = Value::Null;
    }
    for cluster in config["clusters"].as_array_mut().into_iter().flatten() {
        let properties = cluster["properties"].as_object_mut();
        for (name, file) in properties.context("no properties")? {
            if let Some(here) = certificates.file(name) {
                *file = json!(here);
            }
        }
    }
    let reference = Regex::new(r"\$\{(env|file):[^}]*\}")?;
    let text = config.to_string();
    Ok(reference.replace_all(&text, "secret").into_owned())
}

/// Mistakes that the schema detects, each with the text that the error must contain. All are made at once.
const IN_SCHEMA: &[(&str, &str)] = &[
    ("config.pol.interval=1s", "'pol'"),
    ("config.poll.intervall=1s", "'intervall'"),
    ("config.poll.interval=5", "/config/poll/interval"),
    ("config.lag.residual_max=many", "/config/lag/residual_max"),
    ("config.cap.default=enforced", "/config/cap/default"),
    (
        "config.clusters[0].bootstrapServers=kafka:9092",
        "'bootstrapServers'",
    ),
    (
        "config.clusters[0].properties.saslMechanism=PLAIN",
        "'saslMechanism'",
    ),
    (
        "config.clusters[0].token.aws_msk_iam.regoin=eu-west-1",
        "'regoin'",
    ),
    ("config.targets[0].consumerGroup=g", "'consumerGroup'"),
    ("config.server.http.prot=1", "'prot'"),
    ("image.digest=latest", "/image/digest"),
    ("image.tag=7", "/image/tag"),
    ("replicas=2", "'replicas'"),
    ("replicaCount=two", "/replicaCount"),
    ("config.server.metrics.port=8080", "'port'"),
    (
        "serviceAccount.annotations.a=true",
        "/serviceAccount/annotations/a",
    ),
    ("tls.type=cert-manager", "/tls/type"),
    ("enforce=true", "/enforce"),
    ("scaletozero.enabled=true", "'scaletozero'"),
    ("existingSecret.mountPath=etc", "/existingSecret/mountPath"),
    (
        "networkPolicy.kafkaPorts={9092x}",
        "/networkPolicy/kafkaPorts",
    ),
    // As after --reuse-values, which lacks keys that the previous version of the chart did not have.
    ("releaseJob=null", "'releaseJob'"),
    ("podIdentity.awsRoleArn=lagwise", "/podIdentity/awsRoleArn"),
];

/// Renders each configuration of `mistakes.txt` as `config` of the values: the error names the wrong key, if the chart
/// can detect it.
pub(super) fn mistakes_in_the_configuration_are_rejected(testbed: &Testbed) -> Result<()> {
    let plane = testbed.control_plane()?;
    let values = testbed.folder("mistakes")?.join("values.yaml");
    let chart = chart();
    let (folder, file) = (chart.to_string_lossy(), values.to_string_lossy());
    let command = ["template", "lw", &*folder, "--values", &*file];
    let (mut problems, mut refused) = (Vec::new(), 0);
    for case in include_str!("../../config/mistakes.txt")
        .split("### ")
        .skip(1)
    {
        let mut parts = case.splitn(4, '\n');
        let mut next = || parts.next().context("name, check:, helm: and the file");
        let (name, _, helm, text) = (next()?, next()?, next()?, next()?);
        let named = helm.strip_prefix("helm: ").context("helm:")?;
        if named.starts_with("no: ") {
            continue;
        }
        let indented: Vec<_> = text.lines().map(|line| format!("  {line}")).collect();
        fs::write(&values, format!("config:\n{}\n", indented.join("\n")))?;
        match plane.helm(&command) {
            Ok(_) => problems.push(format!("{name}: accepted")),
            Err(error) => {
                refused += 1;
                let error = error.to_string();
                // The error begins with the command.
                let error = error.split("Error:").nth(1).unwrap_or(&error);
                if !error.contains(named) {
                    problems.push(format!("{name}: no {named} in {error}"));
                }
            }
        }
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    ensure!(refused >= 40, "only {refused} mistakes");
    Ok(())
}

/// Mistakes that a template detects, each with texts that the error must contain: the key, the value and the remedy.
const IN_TEMPLATES: &[(&str, &[&str])] = &[
    ("tls.type=certManager", &["tls.certManager.issuerRef"]),
    (
        "podMonitor.enabled=true,serviceMonitor.enabled=true",
        &["serviceMonitor.enabled"],
    ),
    (
        "podMonitor.enabled=true,config.server.metrics.auth=kubernetes",
        &["serviceMonitor.enabled"],
    ),
    (
        "prometheusRule.enabled=true,prometheusRule.disabled={LagwiseNone}",
        &["LagwiseNone"],
    ),
    (
        "enforce.enabled=true,enforce.namespaces={pay},config.kubernetes.namespaces={shop}",
        &["config.kubernetes.namespaces"],
    ),
    (
        "config.server.probes.listen=127.0.0.1:8081",
        &[
            "config.server.probes.listen: 127.0.0.1:8081",
            "kubelet",
            "0.0.0.0:8081",
        ],
    ),
    (
        "config.server.external_metrics.listen=[::1]:7443",
        &[
            "config.server.external_metrics.listen: [::1]:7443",
            "API server",
            "0.0.0.0:7443",
        ],
    ),
    (
        "config.server.external_scaler.listen=127.0.0.2:9443,config.server.external_scaler.auth=none",
        &[
            "config.server.external_scaler.listen: 127.0.0.2:9443",
            "KEDA",
            "0.0.0.0:9443",
        ],
    ),
    (
        "config.server.metrics.listen=[::ffff:127.0.0.1]:8080,podMonitor.enabled=true",
        &[
            "config.server.metrics.listen: [::ffff:127.0.0.1]:8080",
            "Prometheus",
            "0.0.0.0:8080",
        ],
    ),
    (
        "config.server.metrics.listen=0.0.0.0:6443",
        &[
            "config.server.metrics.listen: 0.0.0.0:6443",
            "config.server.external_metrics.listen",
        ],
    ),
    (
        "config.server.http.listen=[::]:8081",
        &[
            "config.server.probes.listen: 0.0.0.0:8081",
            "config.server.metrics.listen",
            "another port",
        ],
    ),
    (
        "tls.existingSecret=own",
        &[
            "tls.existingSecret",
            "selfSigned",
            "tls.type=existingSecret",
        ],
    ),
    (
        "tls.certManager.issuerRef.name=ca",
        &[
            "tls.certManager.issuerRef",
            "selfSigned",
            "tls.type=certManager",
        ],
    ),
    (
        "tls.type=helm,tls.caBundle=CA",
        &["tls.caBundle", "helm", "tls.type=existingSecret"],
    ),
    (
        "tls.type=existingSecret,tls.existingSecret=own",
        &["tls.caBundle"],
    ),
    (
        "serviceAccount.create=false,serviceAccount.name=own,podIdentity.gcpServiceAccount=lw@shop",
        &[
            "serviceAccount.create",
            "account own",
            "\"iam.gke.io/gcp-service-account\":\"lw@shop\"",
        ],
    ),
    (
        "serviceAccount.create=false,serviceAccount.name=own,serviceAccount.annotations.team=shop",
        &["serviceAccount.create", "account own", "\"team\":\"shop\""],
    ),
    (
        r"config.clusters[0].properties.security\.protocol=SASL_SSL,config.clusters[0].properties.sasl\.mechanism=PLAIN,config.clusters[0].properties.sasl\.username=lagwise,config.clusters[0].properties.sasl\.password=${file:/etc/lagwise/kafka/password}",
        &[
            "existingSecret.name",
            "/etc/lagwise/kafka/password",
            "with the key password",
        ],
    ),
    (
        r"config.clusters[0].properties.security\.protocol=SSL,config.clusters[0].properties.ssl\.ca\.location=/login/ca.crt,existingSecret.mountPath=/login/,volumes[0].name=more,volumeMounts[0].name=more,volumeMounts[0].mountPath=/log",
        &["existingSecret.name", "/login/ca.crt", "volumeMounts"],
    ),
    (
        "image.repository=localhost:5000/lagwise:1.2",
        &[
            "image.repository",
            "localhost:5000/lagwise:1.2",
            "image.repository=localhost:5000/lagwise,",
        ],
    ),
    (
        "image.repository=lagwise@sha256:0",
        &["image.repository", "lagwise@sha256:0", "image.digest"],
    ),
    (
        "mode=observe,config.server.metrics.auth=kubernetes",
        &[
            "config.server.metrics.auth=kubernetes",
            "observe",
            "mode=serve",
        ],
    ),
    (
        "mode=observe,config.server.http.auth=kubernetes",
        &["auth=kubernetes", "observe", "mode=serve"],
    ),
    (
        "mode=observe,config.server.external_scaler.listen=0.0.0.0:9443",
        &[
            "config.server.external_scaler.listen=0.0.0.0:9443",
            "observe",
            "mode=serve",
        ],
    ),
    (
        "mode=observe,config.leader.lease=own",
        &["config.leader.lease=own", "observe", "mode=serve"],
    ),
    (
        "mode=observe,config.state.config_map=own",
        &["config.state.config_map=own", "observe", "mode=serve"],
    ),
];

/// Values that look like these mistakes, and are none.
const NO_MISTAKES: &[&str] = &[
    "config.server.admin.listen=127.0.0.1:9082",
    "config.server.metrics.listen=127.0.0.1:8080",
    "mode=observe,config.server.external_metrics.listen=127.0.0.1:6443",
    "mode=observe,config.server.metrics.listen=0.0.0.0:6443",
    "mode=observe,tls.existingSecret=own",
    "apiService.create=false,replicaCount=1,config.server.external_metrics.listen=127.0.0.1:6443",
    "serviceAccount.create=false,serviceAccount.name=own,podIdentity.azureClientId=id",
    "mode=observe,config.server.metrics.auth=none,config.state.file=/var/lib/lagwise/state",
    "mode=observe,config.server.external_scaler.listen=null,config.leader.lease=null",
    "tls.type=existingSecret,tls.existingSecret=own,apiService.create=false",
    "serviceAccount.create=false,serviceAccount.name=own",
    "image.repository=localhost:5000/lagwise",
    r"config.clusters[0].properties.security\.protocol=SSL,config.clusters[0].properties.ssl\.ca\.location=/etc/lagwise/kafka/ca.crt,existingSecret.name=login",
    r"config.clusters[0].properties.security\.protocol=SSL,config.clusters[0].properties.ssl\.ca\.location=/etc/lagwise/kafka/ca.crt,volumes[0].name=more,volumeMounts[0].name=more,volumeMounts[0].mountPath=/etc/lagwise/kafka/ca.crt",
];

pub(super) fn errors_of_mistakes_name_the_key(testbed: &Testbed) -> Result<()> {
    let all: Vec<&str> = IN_SCHEMA.iter().map(|(mistake, _)| *mistake).collect();
    let error = render(testbed, &all.join(","), &[]).err();
    let error = error.context("all mistakes were accepted")?.to_string();
    // The error begins with the command.
    let error = error.split("schema(s)").nth(1).context(error.clone())?;
    for (mistake, named) in IN_SCHEMA {
        ensure!(error.contains(named), "{mistake}: no {named} in {error}");
    }
    for (mistake, named) in IN_TEMPLATES {
        let error = render(testbed, mistake, &[]).err();
        let error = error.with_context(|| format!("{mistake} was accepted"))?;
        let error = error.to_string();
        let error = error
            .split("execution error")
            .nth(1)
            .context(error.clone())?;
        for named in *named {
            ensure!(error.contains(named), "{mistake}: no {named} in {error}");
        }
    }
    for values in NO_MISTAKES {
        render(testbed, values, &[]).with_context(|| format!("{values} was refused"))?;
    }
    Ok(())
}

/// Renders with the default values and these.
pub(super) fn render(testbed: &Testbed, set: &str, more: &[&str]) -> Result<String> {
    let chart = chart();
    let (folder, values) = (
        chart.to_string_lossy(),
        chart.join("ci/default-values.yaml"),
    );
    let values = values.to_string_lossy();
    let command = [&*folder, "--values", &*values, "--set", set];
    testbed.helm_template("lw", &[&command[..], more].concat())
}

/// The daemon knows from `ca_bundle` whether the chart registers it, whatever certificate it has.
pub(super) fn the_configuration_says_whether_the_chart_registers_it(
    testbed: &Testbed,
) -> Result<()> {
    const TYPES: [&str; 4] = [
        "selfSigned",
        "helm",
        "existingSecret,tls.existingSecret=own,tls.caBundle=CA",
        "certManager,tls.certManager.issuerRef.name=ca",
    ];
    for (tls, create) in TYPES.iter().flat_map(|tls| [(tls, true), (tls, false)]) {
        let set = format!("apiService.create={create},tls.type={tls}");
        let config = daemon_configuration(&render(testbed, &set, &[])?)?;
        let found = &config["server"]["external_metrics"]["ca_bundle"];
        ensure!(*found == create, "{set}: ca_bundle is {found}");
    }
    Ok(())
}

/// Alerts that would always fire, or never, are left out.
pub(super) fn alerts_that_the_mode_makes_meaningless_are_left_out(testbed: &Testbed) -> Result<()> {
    let alerts = |set: &str| -> Result<BTreeSet<String>> {
        let set = format!("prometheusRule.enabled=true,{set}");
        let rule = object(&render(testbed, &set, &[])?, "PrometheusRule")?;
        let groups = rule["spec"]["groups"].as_array().context("no groups")?;
        let rules = groups.iter().filter_map(|group| group["rules"].as_array());
        let names = rules.flatten().filter_map(|rule| rule["alert"].as_str());
        Ok(names.map(str::to_owned).collect())
    };
    const API: &str = "LagwiseApiUnavailable";
    const NOT_ASKED: &str = "LagwiseNotAsked";
    let all = alerts("mode=serve")?;
    for (set, omitted) in [
        (
            "mode=observe",
            &[
                API,
                "LagwiseCapFought",
                "LagwiseCertificateExpiring",
                "LagwiseNoLeader",
                NOT_ASKED,
                "LagwiseSeveralLeaders",
            ][..],
        ),
        ("apiService.create=false", &[API, NOT_ASKED]),
        // What is left out already may be named too.
        (
            "mode=observe,prometheusRule.disabled={LagwiseNoLeader,LagwiseNoValue}",
            &[
                API,
                "LagwiseCapFought",
                "LagwiseCertificateExpiring",
                "LagwiseNoLeader",
                "LagwiseNoValue",
                NOT_ASKED,
                "LagwiseSeveralLeaders",
            ],
        ),
    ] {
        let rendered = alerts(set)?;
        let missing: Vec<&str> = all.difference(&rendered).map(String::as_str).collect();
        ensure!(missing == omitted, "{set}: without {missing:?}");
    }
    Ok(())
}

pub(super) fn values_have_their_effect(testbed: &Testbed) -> Result<()> {
    let rendered = render(
        testbed,
        "image.digest=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef,\
         extraArgs={--later},existingSecret.name=login,podIdentity.azureClientId=id,\
         podLabels.team=a,prometheusRule.enabled=true,prometheusRule.lagSecondsMax=60,\
         prometheusRule.kminionNames=true,config.poll=null,config.cap=null",
        &[
            "--set-json",
            "prometheusRule.runbookBaseUrl=\"https://docs.example.com/\"",
        ],
    )?;
    let deployment = object(&rendered, "Deployment")?;
    let pod = &deployment["spec"]["template"];
    let labels = &pod["metadata"]["labels"];
    ensure!(
        labels["team"] == "a" && labels["azure.workload.identity/use"] == "true",
        "{labels}"
    );
    let container = &pod["spec"]["containers"][0];
    let image = container["image"].as_str().context("no image")?;
    ensure!(image.starts_with("lagwise@sha256:0123"), "{image}");
    ensure!(
        container["args"] == json!(["run", "--config", "/etc/lagwise/lagwise.yaml", "--later"]),
        "{container}"
    );
    let mounts = container["volumeMounts"].as_array().context("no mounts")?;
    let mount = json!({"name": "kafka", "mountPath": "/etc/lagwise/kafka", "readOnly": true});
    ensure!(mounts.contains(&mount), "{mounts:?}");
    let selector = &deployment["spec"]["selector"];
    for constraint in pod["spec"]["topologySpreadConstraints"]
        .as_array()
        .context("no constraints")?
    {
        ensure!(constraint["labelSelector"] == *selector, "{constraint}");
    }
    // The pod of helm test has the mounts and environment of the daemon, but receives no requests for it.
    let test = object(&rendered, "Pod")?;
    let (checks, runs) = (&test["spec"], &pod["spec"]);
    for key in ["serviceAccountName", "volumes", "securityContext"] {
        ensure!(
            checks[key] == runs[key] && !runs[key].is_null(),
            "{key}: {checks}"
        );
    }
    for key in ["image", "env", "envFrom", "volumeMounts", "securityContext"] {
        let check = &checks["containers"][0];
        ensure!(check[key] == container[key], "{key}: {check}");
    }
    let selected = selector["matchLabels"].as_object().context("no labels")?;
    let labels = &test["metadata"]["labels"];
    let is_selected = selected.iter().all(|(key, value)| labels[key] == *value);
    ensure!(
        !is_selected,
        "the Service selects the pod of helm test: {labels}"
    );
    // The rules are those of the file, with the links and the limit of the values.
    let rule = object(&rendered, "PrometheusRule")?;
    let file = fs::read_to_string(chart().join("files/alerts.yaml"))?;
    let mut alerts: Value = serde_saphyr::from_str(&file)?;
    for group in alerts["groups"].as_array_mut().context("no groups")? {
        for rule in group["rules"].as_array_mut().context("no rules")? {
            let url = &mut rule["annotations"]["runbook_url"];
            *url = json!(format!(
                "https://docs.example.com/{}",
                url.as_str().context("no link")?
            ));
            let query = rule["expr"].as_str().context("no query")?.trim().to_owned();
            if rule["alert"] == "LagwiseLagTooOld" {
                let query = query.strip_suffix("> 300").context(query.clone())?;
                rule["expr"] = json!(format!("{query}> 60"));
            }
        }
    }
    let groups = alerts["groups"].as_array_mut().context("no groups")?;
    let file = fs::read_to_string(chart().join("files/kminion-names.yaml"))?;
    let mut kminion: Value = serde_saphyr::from_str(&file)?;
    groups.append(kminion["groups"].as_array_mut().context("no groups")?);
    ensure!(
        rule["spec"]["groups"] == alerts["groups"],
        "{}\nis not\n{}",
        rule["spec"]["groups"],
        alerts["groups"]
    );
    // Where no HPA asks lagwise, no alert says so.
    for unasked in ["mode=observe", "apiService.create=false"] {
        let set = format!("prometheusRule.enabled=true,{unasked}");
        let rule = object(&render(testbed, &set, &[])?, "PrometheusRule")?.to_string();
        let is_left_out = !rule.contains("LagwiseNotAsked") && rule.contains("LagwiseLagUnknown");
        ensure!(is_left_out, "{unasked}: {rule}");
    }
    let rendered = render(
        testbed,
        "dashboard.enabled=true,podMonitor.enabled=true",
        &[],
    )?;
    let map = documents(&rendered).find(|document| document.contains("grafana_dashboard"));
    let map: Value = serde_saphyr::from_str(map.context("no dashboard")?)?;
    let text = map["data"]["lagwise.json"].as_str().context("no JSON")?;
    let dashboard: Value = serde_json::from_str(text)?;
    ensure!(dashboard["title"] == "lagwise", "{dashboard}");
    let monitor = object(&rendered, "PodMonitor")?;
    ensure!(
        monitor["spec"]["podMetricsEndpoints"][0]["honorLabels"] == true,
        "{monitor}"
    );
    Ok(())
}

pub(super) fn kustomize_sets_partitions_and_replicas_from_one_number(
    testbed: &Testbed,
) -> Result<()> {
    let plane = testbed.control_plane()?;
    let app = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples/gitops/app");
    let rendered = plane.kubectl(&["kustomize", &app.to_string_lossy()])?;
    let topic = object(&rendered, "KafkaTopic")?;
    let hpa = object(&rendered, "HorizontalPodAutoscaler")?;
    let (partitions, replicas) = (&topic["spec"]["partitions"], &hpa["spec"]["maxReplicas"]);
    ensure!(
        partitions == replicas && *replicas == 12,
        "{partitions} partitions for {replicas} replicas"
    );
    plane.kubectl_with_input(
        &["apply", "--dry-run=client", "--validate=strict", "-f", "-"],
        &hpa.to_string(),
    )?;
    Ok(())
}

/// The default port is 9092, also for addresses that end with digits.
pub(super) fn network_policy_has_the_ports_of_all_broker_addresses(
    testbed: &Testbed,
) -> Result<()> {
    let plane = testbed.control_plane()?;
    let (chart, values) = (chart(), testbed.folder("ports")?.join("values.json"));
    let render = |config: Value| -> Result<String> {
        let given = json!({"config": config, "networkPolicy": {"enabled": true}});
        std::fs::write(&values, given.to_string())?;
        plane.helm(&[
            "template",
            "lw",
            &chart.to_string_lossy(),
            "--values",
            &values.to_string_lossy(),
            "--show-only",
            "templates/networkpolicy.yaml",
        ])
    };
    let of_servers =
        |servers: &str| json!([{"name": "main", "properties": {"bootstrap.servers": servers}}]);
    let ports = |servers: &str| -> Result<Vec<String>> {
        let rendered = render(json!({"clusters": of_servers(servers)}))?;
        let rules = rendered.lines().map(str::trim);
        let ports = rules.filter_map(|rule| rule.strip_prefix("- {port: "));
        Ok(ports
            .filter_map(|rule| Some(rule.split_once(',')?.0.to_owned()))
            .collect())
    };
    for (servers, expected) in [
        ("kafka1", &["9092"][..]),
        ("10.0.0.12", &["9092"]),
        ("2001:db8::7", &["9092"]),
        ("[2001:db8::7]", &["9092"]),
        ("SSL://kafka1", &["9092"]),
        ("kafka1:9093", &["9093"]),
        ("[2001:db8::7]:9096", &["9096"]),
        (
            "kafka1, SSL://kafka2:9094,10.0.0.12:9095",
            &["9092", "9094", "9095"],
        ),
    ] {
        let found = ports(servers)?;
        ensure!(found == expected, "{servers}: {found:?}, not {expected:?}");
    }
    for (endpoint, port) in [
        ("http://collector:4318", "4318"),
        ("https://[2001:db8::7]:4319/otlp", "4319"),
        ("https://otlp.example.com", "443"),
        ("http://[2001:db8::7]/", "80"),
    ] {
        let config = json!({"clusters": of_servers("kafka1"), "otlp": {"endpoint": endpoint}});
        let rendered = render(config)?;
        let rule = format!("- ports: [{{port: {port}, protocol: TCP}}]");
        ensure!(rendered.contains(&rule), "{endpoint}: {rendered}");
    }
    Ok(())
}
