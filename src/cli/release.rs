//! `lagwise release`: undoes what lagwise has written to HPAs.

use std::process::ExitCode;

use anyhow::Context;
use clap::{ArgGroup, Args};
use comfy_table::{CellAlignment, Table, presets};

use super::kube_args::KubeArgs;
use super::{Output, print_error, print_output};
use crate::k8s::client::connect;
use crate::k8s::release::{Release, Released};
use crate::model::units::hpa_key::HpaKey;

/// The arguments of `lagwise release`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").required(true).args(["all", "hpa"])))]
#[command(after_help = "Examples:\n  \
    lagwise release --all --dry-run\n  \
    lagwise release shop/billing\n\n\
    Restores the user's maxReplicas, wakes workloads that lagwise has scaled to zero, and removes its \
    annotations. A running daemon enforces the cap again where it is still requested: set \
    lagwise.dev/cap: advise or stop the daemon first.\n\n\
    Exit code: 0 on success, 1 if some HPA could not be released, 2 for wrong usage.")]
pub struct ReleaseArgs {
    /// Release every HPA that lagwise has changed
    #[arg(long)]
    all: bool,
    /// The HPAs to release
    #[arg(value_name = "NAMESPACE/HPA")]
    hpa: Vec<HpaKey>,
    /// Only print what would be done
    #[arg(long)]
    dry_run: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    kube: KubeArgs,
}

/// Runs `lagwise release`.
///
/// # Errors
/// No cluster, or HPAs that cannot be listed.
pub async fn run(args: ReleaseArgs) -> anyhow::Result<ExitCode> {
    let client = connect(&args.kube.options()).await?;
    let release = Release::new(client, args.dry_run);
    let hpas = match args.all {
        true => release.marked().await.context("cannot list the HPAs")?,
        false => args.hpa.clone(),
    };
    let mut released = Vec::new();
    let mut failed = false;
    for hpa in hpas {
        match release.release(&hpa).await {
            Ok(done) => released.extend(done),
            Err(error) => {
                failed = true;
                print_error(&format!("HPA {hpa}: {error}"));
            }
        }
    }
    let printed = print_released(&released, args.output, args.dry_run)?;
    Ok(if failed { ExitCode::FAILURE } else { printed })
}

fn print_released(
    released: &[Released],
    output: Output,
    dry_run: bool,
) -> anyhow::Result<ExitCode> {
    let text = match output.serialize(&released)? {
        Some(text) => text,
        None if released.is_empty() => "lagwise has changed no HPA\n".into(),
        None => table(released, dry_run),
    };
    print_output(output, &text)
}

fn table(released: &[Released], dry_run: bool) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "NAMESPACE",
        "HPA",
        "MAX",
        "USER-MAX",
        "WOKEN",
        "NOTE",
    ]);
    for column in 2..5 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for one in released {
        let note = match one.asks_again {
            true => "still requests cap: enforce",
            false => "",
        };
        let woken = one.woken_replicas;
        table.add_row([
            one.namespace.clone(),
            one.name.clone(),
            one.max_replicas.to_string(),
            one.user_max_replicas.to_string(),
            woken.map_or_else(|| "-".to_owned(), |replicas| replicas.to_string()),
            note.to_owned(),
        ]);
    }
    let done = if dry_run {
        "would be released"
    } else {
        "released"
    };
    let lines: Vec<_> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    format!("{}\n\n{} {done}\n", lines.join("\n"), released.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_a_table() {
        let one = |name: &str, woken, asks_again| Released {
            namespace: "shop".into(),
            name: name.into(),
            max_replicas: 6,
            user_max_replicas: 20,
            woken_replicas: woken,
            asks_again,
        };
        let printed = table(
            &[one("billing", None, true), one("mail", Some(2), false)],
            false,
        );
        let expected = [
            " NAMESPACE  HPA      MAX  USER-MAX  WOKEN  NOTE",
            " shop       billing    6        20      -  still requests cap: enforce",
            " shop       mail       6        20      2",
            "",
            "2 released",
        ];
        assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
    }
}
