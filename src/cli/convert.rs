//! `lagwise convert`: turns KEDA's ScaledObjects into HPAs and configuration, and says what differs.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::manifest_files::{NAMESPACE, parse_documents, read_texts};
use super::{Output, error_text, print_error, write_stdout};
use crate::model::keda::convert::note::NoteKind;
use crate::model::keda::convert::{Conversion, ConvertOptions, ConvertedObject, convert};
use crate::model::keda::scaled_object::KedaManifests;
use crate::model::units::kubernetes_version::KubernetesVersion;
use crate::model::units::untrusted_text::Printable;

/// Exit code if a file cannot be read.
const UNREAD: u8 = 2;

/// The arguments of `lagwise convert`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    lagwise convert -f scaledobjects/ > hpas.yaml\n  \
    lagwise convert -f scaledobjects/ --print config > lagwise.yaml\n  \
    kubectl get scaledobject,triggerauthentication -A -o yaml | lagwise convert -f - | kubectl diff -f -\n  \
    lagwise convert -f orders.yaml -o json | jq '.objects[].notes'\n\n\
    The command reads only the files. It converts triggers kafka, apache-kafka, cpu and memory, and leaves secrets \
    where they are. Comments above each HPA, and standard error, say what has no equivalent, what to do, and what \
    works in another way.\n\n\
    Exit code: 0 if everything was converted, 1 if an object or option has no equivalent, 2 for wrong usage or if a \
    file could not be read.")]
pub struct ConvertArgs {
    /// Manifests to convert: a file, a folder, or - for standard input; may be repeated
    #[arg(short, long, value_name = "FILE", required = true)]
    file: Vec<PathBuf>,
    /// Part of the result to print; -o json and -o yaml have both
    #[arg(long, value_enum, default_value_t = Print::Hpas)]
    print: Print,
    /// The namespace of manifests that set none
    #[arg(short, long, value_name = "NAME", default_value = NAMESPACE)]
    namespace: String,
    /// Version of Kubernetes that the HPAs are for, such as 1.34
    #[arg(long, value_name = "VERSION")]
    kubernetes: Option<KubernetesVersion>,
    /// Output format: manifests, or everything including the notes
    #[arg(short, long, value_enum, default_value_t = Format::Manifests)]
    output: Format,
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

/// Runs `lagwise convert`.
///
/// # Errors
/// The output cannot be written.
pub fn run(args: &ConvertArgs) -> anyhow::Result<ExitCode> {
    let manifests = match read(args) {
        Ok(manifests) => manifests,
        Err(error) => {
            print_error(&error_text(&error));
            return Ok(ExitCode::from(UNREAD));
        }
    };
    let options = ConvertOptions {
        namespace: args.namespace.clone(),
        kubernetes: args.kubernetes,
    };
    let conversion = convert(&manifests, &options);
    let text = match args.output {
        Format::Manifests => Some(render(&conversion, args.print)?),
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

fn read(args: &ConvertArgs) -> anyhow::Result<KedaManifests> {
    let mut manifests = KedaManifests::default();
    for file in &args.file {
        for (name, text) in read_texts(file)? {
            for document in parse_documents(&text).with_context(|| name.clone())? {
                let added = manifests.add(&document, &name, &args.namespace);
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
    if let Some(hpa) = &object.hpa {
        text += &Output::Yaml.serialize(hpa)?.unwrap_or_default();
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
    let converted = all.iter().filter(|object| object.hpa.is_some()).count();
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
        let result = match &object.hpa {
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
