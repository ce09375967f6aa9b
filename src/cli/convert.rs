//! `lagwise convert`: turns KEDA's ScaledObjects into HPAs and configuration, and says what differs.

mod diff;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::kube_args::KubeArgs;
use super::manifest_files::{NAMESPACE, parse_documents, read_texts};
use super::{Output, error_text, print_error, write_stdout, wrong_usage};
use crate::k8s::client::server_version;
use crate::k8s::keda_manifests::list_keda_objects;
use crate::model::keda::convert::note::NoteKind;
use crate::model::keda::convert::{
    Conversion, ConvertOptions, ConvertedForm, ConvertedObject, convert,
};
use crate::model::keda::manifests::KedaManifests;
use crate::model::units::kubernetes_version::KubernetesVersion;
use crate::model::units::names;
use crate::model::units::untrusted_text::Printable;

/// Exit code if a file cannot be read.
const UNREAD: u8 = 2;

/// Address of the external scaler if the chart is installed as its guide says.
const SCALER_ADDRESS: &str = "lagwise.lagwise.svc:9443";

/// The arguments of `lagwise convert`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    lagwise convert -f scaledobjects/ > hpas.yaml\n  \
    lagwise convert -f scaledobjects/ --print config > lagwise.yaml\n  \
    lagwise convert -A > hpas.yaml\n  \
    lagwise convert -n shop --diff\n  \
    lagwise convert -f scaledobjects/ --to external-scaler | kubectl diff -f -\n  \
    lagwise convert -f orders.yaml -o json | jq '.objects[].notes'\n\n\
    With -f the command reads only the files. Without it, it lists KEDA's objects in the cluster that kubectl would \
    use, for which you need the rights to list ScaledObjects and, for logins, TriggerAuthentications; it reads no \
    Secrets. It changes nothing. It converts triggers kafka, apache-kafka, cpu and memory, and leaves secrets \
    where they are. Comments above each object, and standard error, say what has no equivalent, what to do, and what \
    works in another way.\n\n\
    Exit code: 0 if everything was converted, 1 if an object or option has no equivalent, 2 for wrong usage or if a \
    file or the cluster could not be read.")]
pub struct ConvertArgs {
    /// Manifests to convert: a file, a folder, or - for standard input; may be repeated [default: the objects of the
    /// cluster]
    #[arg(short, long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// What to convert Kafka triggers to
    #[arg(long, value_enum, default_value_t = ConvertTo::Hpa)]
    to: ConvertTo,
    /// Address at which KEDA reaches lagwise's external scaler, for --to external-scaler [default:
    /// lagwise.lagwise.svc:9443]
    #[arg(long, value_name = "HOST:PORT", value_parser = scaler_address)]
    scaler_address: Option<String>,
    /// Show how each result differs from the object of the same kind and name in the cluster
    #[arg(long, conflicts_with_all = ["print", "output"])]
    diff: bool,
    /// Part of the result to print; -o json and -o yaml have both
    #[arg(long, value_enum, default_value_t = Print::Hpas)]
    print: Print,
    /// The namespace of manifests that set none, or to list [default: default, or that of the context]
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// List the objects of all namespaces
    #[arg(short = 'A', long, conflicts_with_all = ["file", "namespace"])]
    all_namespaces: bool,
    /// Version of Kubernetes that the HPAs are for, such as 1.34
    #[arg(long, value_name = "VERSION")]
    kubernetes: Option<KubernetesVersion>,
    /// Output format: manifests, or everything including the notes
    #[arg(short, long, value_enum, default_value_t = Format::Manifests)]
    output: Format,
    #[command(flatten)]
    kube: KubeArgs,
    /// Timeout of each request to Kubernetes
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = super::timeout)]
    timeout: Duration,
}

/// What Kafka triggers become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ConvertTo {
    /// Metrics of an HPA, without KEDA
    Hpa,
    /// Triggers of the same ScaledObject that ask lagwise's external scaler
    ExternalScaler,
}

/// Part of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Print {
    /// The HPAs, for kubectl
    Hpas,
    /// The configuration of lagwise
    Config,
}

/// Output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// YAML documents with comments
    Manifests,
    /// JSON
    Json,
    /// YAML
    Yaml,
}

fn scaler_address(text: &str) -> Result<String, String> {
    let address = names::address(text).map(str::to_owned);
    address.map_err(|why| format!("{why}; write HOST:PORT, such as {SCALER_ADDRESS}"))
}

impl ConvertArgs {
    /// What is wrong with the combination of arguments.
    fn problem(&self) -> Option<&'static str> {
        (self.scaler_address.is_some() && self.to != ConvertTo::ExternalScaler).then_some(
            "--scaler-address has no effect without --to external-scaler; add that, or remove it",
        )
    }
}

/// Runs `lagwise convert`.
///
/// # Errors
/// The output cannot be written.
pub async fn run(args: ConvertArgs) -> anyhow::Result<ExitCode> {
    if let Some(problem) = args.problem() {
        return Err(wrong_usage(problem));
    }
    let read = match args.file.as_slice() {
        [] => read_cluster(&args).await,
        _ => read(&args).map(|manifests| (manifests, args.kubernetes)),
    };
    let (manifests, kubernetes) = match read {
        Ok(read) => read,
        Err(error) => {
            print_error(&error_text(&error));
            return Ok(ExitCode::from(UNREAD));
        }
    };
    let conversion = convert(&manifests, &options(&args, kubernetes));
    let differences = match args.diff {
        true => Some(diff::diff(&conversion, &args.kube, args.timeout).await),
        false => None,
    };
    let text = match args.output {
        Format::Manifests => Some(match differences {
            Some(Ok(differences)) => differences,
            Some(Err(error)) => {
                print_error(&error_text(&error));
                return Ok(ExitCode::from(UNREAD));
            }
            None => render(&conversion, args.print)?,
        }),
        Format::Json => Output::Json.serialize(&conversion)?,
        Format::Yaml => Output::Yaml.serialize(&conversion)?,
    };
    write_stdout(text.unwrap_or_default().as_bytes())?;
    print_error(&summarize(&conversion, args.print));
    let is_complete = !conversion
        .objects
        .iter()
        .any(ConvertedObject::needs_attention);
    Ok(match is_complete {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn options(args: &ConvertArgs, kubernetes: Option<KubernetesVersion>) -> ConvertOptions {
    ConvertOptions {
        namespace: namespace(args).to_owned(),
        kubernetes,
        form: match args.to {
            ConvertTo::Hpa => ConvertedForm::Hpa,
            ConvertTo::ExternalScaler => ConvertedForm::ExternalScaler {
                address: args
                    .scaler_address
                    .clone()
                    .unwrap_or_else(|| SCALER_ADDRESS.to_owned()),
            },
        },
    }
}

/// The namespace of manifests that set none.
fn namespace(args: &ConvertArgs) -> &str {
    args.namespace.as_deref().unwrap_or(NAMESPACE)
}

/// Lists KEDA's objects in the cluster, and finds out its version.
async fn read_cluster(
    args: &ConvertArgs,
) -> anyhow::Result<(KedaManifests, Option<KubernetesVersion>)> {
    let client = args.kube.connect().await?;
    let own = client.default_namespace().to_owned();
    let namespace = args.namespace.as_deref().unwrap_or(&own);
    let namespace = (!args.all_namespaces).then_some(namespace);
    let listed = list_keda_objects(&client, namespace, args.timeout).await;
    let listed = listed.context("cannot list the ScaledObjects of the cluster")?;
    for unread in &listed.unread {
        print_error(unread);
    }
    let mut manifests = KedaManifests::default();
    for document in &listed.documents {
        let added = manifests.add(document, "the cluster", namespace.unwrap_or(NAMESPACE));
        // An invalid object of one user must not keep others from being converted.
        if let Err(error) = added {
            print_error(&error.to_string());
        }
    }
    anyhow::ensure!(
        !manifests.is_empty(),
        "there is no ScaledObject in {}",
        namespace.map_or("any namespace".to_owned(), |name| format!(
            "namespace {name}"
        ))
    );
    let version = match args.kubernetes {
        Some(version) => Some(version),
        // Without it the HPAs are for any version.
        None => server_version(&client, args.timeout).await.ok(),
    };
    Ok((manifests, version))
}

fn read(args: &ConvertArgs) -> anyhow::Result<KedaManifests> {
    let mut manifests = KedaManifests::default();
    for file in &args.file {
        for (name, text) in read_texts(file)? {
            for document in parse_documents(&text).with_context(|| name.clone())? {
                let added = manifests.add(&document, &name, namespace(args));
                added.with_context(|| name.clone())?;
            }
        }
    }
    anyhow::ensure!(
        !manifests.is_empty(),
        "the files have no ScaledObject of keda.sh/v1alpha1"
    );
    Ok(manifests)
}

/// Renders the HPAs, each with its notes as comments, or the configuration.
fn render(conversion: &Conversion, print: Print) -> anyhow::Result<String> {
    match print {
        Print::Hpas => {
            let documents = conversion.objects.iter().map(render_object);
            let documents = documents.collect::<anyhow::Result<Vec<_>>>()?;
            Ok(documents.join("---\n"))
        }
        Print::Config => render_config(conversion),
    }
}

fn render_object(object: &ConvertedObject) -> anyhow::Result<String> {
    let mut text = comment(&format!("{object} of {}", object.source));
    for note in &object.notes {
        text += &comment(&note.to_string());
    }
    if let Some(result) = object.result() {
        text += &Output::Yaml.serialize(result)?.unwrap_or_default();
    }
    Ok(text)
}

fn render_config(conversion: &Conversion) -> anyhow::Result<String> {
    let mut text = comment(
        "The Kafka clusters of the converted ScaledObjects. One login that may describe all groups is enough for each Kafka cluster.",
    );
    for object in &conversion.objects {
        let about_login = object.notes.iter().filter(|note| note.is_about_login());
        for note in about_login.filter(|note| note.kind != NoteKind::Unneeded) {
            text += &comment(&format!("{object}: {note}"));
        }
    }
    for need in &conversion.needs {
        text += &comment(&format!("to do: {need}"));
    }
    if let Some(config) = &conversion.config {
        text += &Output::Yaml.serialize(config)?.unwrap_or_default();
    }
    Ok(text)
}

/// A line of comment. Names in it may have line breaks, which would end it.
fn comment(text: &str) -> String {
    format!("# {}\n", Printable::unbounded(text))
}

/// Summarizes the result: the totals, then a line for each object.
fn summarize(conversion: &Conversion, print: Print) -> String {
    let all = &conversion.objects;
    let converted = all
        .iter()
        .filter(|object| object.result().is_some())
        .count();
    let config = conversion.config.as_ref();
    let clusters = config.and_then(|config| config.get("clusters")?.as_array());
    let clusters = match clusters.map_or(0, Vec::len) {
        1 => "1 Kafka cluster".to_owned(),
        count => format!("{count} Kafka clusters"),
    };
    let hint = match print {
        Print::Hpas if config.is_some() => ", which --print config prints",
        _ => "",
    };
    let mut text = format!(
        "{converted} of {} converted, with {clusters}{hint}",
        all.len()
    );
    for object in all {
        let result = match object.result() {
            Some(_) => "converted",
            None => "not converted",
        };
        let counted = NoteKind::ALL.iter().filter_map(|kind| {
            let of_kind = object.notes.iter().filter(|note| note.kind == *kind);
            let count = of_kind.count();
            (count > 0).then(|| format!("; {}: {count}", kind.label()))
        });
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n  {}: {result}{}",
            Printable::unbounded(&object.to_string()),
            String::from_iter(counted)
        );
    }
    text
}

#[cfg(test)]
mod tests;
