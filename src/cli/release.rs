//! `lagwise release`: undoes what lagwise has written to HPAs.

use std::process::ExitCode;

use anyhow::Context;
use clap::{ArgGroup, Args};

use super::kube_args::KubeArgs;
use super::text_table::{TableColumn, TextTable};
use super::{Output, print_error, print_output};
use crate::k8s::release::{LedgerChoice, Release, Released};
use crate::k8s::zero_ledger::LedgerKey;
use crate::model::units::counted::counted;
use crate::model::units::hpa_key::HpaKey;

/// The arguments of `lagwise release`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").required(true).args(["all", "hpa"])))]
#[command(after_help = "Examples:\n  \
    lagwise release --all --dry-run\n  \
    lagwise release --all --namespace shop --namespace pay\n  \
    lagwise release shop/billing\n\n\
    Restores the user's maxReplicas, wakes workloads that lagwise has recorded as scaled to zero, and removes the \
    annotations that lagwise has written. A running daemon caps an HPA again if its annotation lagwise.dev/cap, or \
    cap.default of the configuration, is enforce: set it to advise, or stop the daemon first.\n\n\
    Exit code: 0 on success, 1 if some HPA could not be released, 2 for wrong usage.")]
pub struct ReleaseArgs {
    /// Release every HPA that lagwise has changed
    #[arg(long)]
    all: bool,
    /// The HPAs to release
    #[arg(value_name = "NAMESPACE/HPA")]
    hpa: Vec<HpaKey>,
    /// With --all: only the HPAs of these namespaces. Needs no access to the others
    #[arg(long, value_name = "NAMESPACE", conflicts_with = "hpa")]
    namespace: Vec<String>,
    /// ConfigMap that records what lagwise has scaled to zero. Default: SERVICE-zero in the namespace of SERVICE, the
    /// Service of the APIService v1beta1.external.metrics.k8s.io
    #[arg(long, value_name = "NAMESPACE/CONFIGMAP")]
    ledger: Option<LedgerKey>,
    /// Start no workload, and do not look for the record of what lagwise has scaled to zero
    #[arg(long, conflicts_with = "ledger")]
    no_ledger: bool,
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
/// The Kubernetes API is unreachable, or the ledger or the HPAs cannot be read.
pub async fn run(args: ReleaseArgs) -> anyhow::Result<ExitCode> {
    let client = args.kube.connect().await?;
    let ledger = match &args.ledger {
        Some(key) => LedgerChoice::Named(key.clone()),
        None if args.no_ledger => LedgerChoice::None,
        None => LedgerChoice::OfRegisteredApi,
    };
    let release = Release::new(client, ledger, args.dry_run).await;
    let mut release = release.context("cannot look up the ledger of scale to zero")?;
    let hpas = match args.all {
        true => release
            .hpas_to_release(&args.namespace)
            .await
            .context("cannot list the HPAs")?,
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
    if args.all
        && !failed
        && let Err(error) = release.delete_empty_ledger().await
    {
        // All HPAs are released, and an empty ledger has no effect, so this is not a failure.
        print_error(&format!("the empty ledger of scale to zero stays: {error}"));
    }
    let printed = print_output(args.output, &render(&released, failed, &args)?)?;
    Ok(if failed { ExitCode::FAILURE } else { printed })
}

fn render(released: &[Released], failed: bool, args: &ReleaseArgs) -> anyhow::Result<String> {
    Ok(match args.output.serialize(&released)? {
        Some(text) => text,
        None if released.is_empty() && failed => "no HPA was released\n".into(),
        None if released.is_empty() => format!("{}\n", describe_unchanged(args)),
        None => table(released, args.dry_run),
    })
}

/// Says that lagwise has changed none of the HPAs that were looked at.
fn describe_unchanged(args: &ReleaseArgs) -> &'static str {
    match (args.namespace.as_slice(), args.hpa.as_slice()) {
        (_, [_]) => "lagwise has not changed this HPA",
        (_, [_, ..]) => "lagwise has changed none of these HPAs",
        ([_], []) => "lagwise has changed no HPA in this namespace",
        ([_, ..], []) => "lagwise has changed no HPA in these namespaces",
        ([], []) => "lagwise has changed no HPA",
    }
}

fn table(released: &[Released], dry_run: bool) -> String {
    let mut table = TextTable::new([
        TableColumn::text("NAMESPACE"),
        TableColumn::text("HPA"),
        TableColumn::number("MAX-BEFORE"),
        TableColumn::number("MAX-AFTER"),
        TableColumn::number("WOKEN"),
        TableColumn::text("NOTE"),
    ]);
    for one in released {
        let again = one.asks_again.then_some("still requests cap: enforce");
        let unrecorded = one
            .not_recorded
            .then_some("not woken: no record that lagwise has scaled it to zero");
        let notes: Vec<_> = again.into_iter().chain(unrecorded).collect();
        let woken = one.woken_replicas;
        table.add_row([
            one.namespace.clone(),
            one.name.clone(),
            one.max_replicas.to_string(),
            one.user_max_replicas.to_string(),
            woken.map_or_else(|| "-".to_owned(), |replicas| replicas.to_string()),
            notes.join("; "),
        ]);
    }
    let done = if dry_run {
        "would be released"
    } else {
        "released"
    };
    let hpas = counted(released.len(), "HPA");
    format!("{}\n{hpas} {done}\n", table.render())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct ReleaseCli {
        #[command(flatten)]
        release: ReleaseArgs,
    }

    fn parsed(args: &str) -> ReleaseArgs {
        let args = ["release"].into_iter().chain(args.split(' '));
        ReleaseCli::try_parse_from(args).unwrap().release
    }

    fn one(name: &str, woken_replicas: Option<u32>, asks_again: bool) -> Released {
        Released {
            namespace: "shop".into(),
            name: name.into(),
            max_replicas: 6,
            user_max_replicas: 20,
            woken_replicas,
            not_recorded: name == "pages",
            asks_again,
        }
    }

    #[test]
    fn names_what_was_looked_at_if_nothing_was_changed() {
        for (args, failed, expected) in [
            ("--all", false, "lagwise has changed no HPA\n"),
            ("--all", true, "no HPA was released\n"),
            (
                "--all --namespace shop",
                false,
                "lagwise has changed no HPA in this namespace\n",
            ),
            (
                "--all --namespace shop --namespace pay",
                false,
                "lagwise has changed no HPA in these namespaces\n",
            ),
            ("shop/mail", false, "lagwise has not changed this HPA\n"),
            (
                "shop/mail shop/pages",
                false,
                "lagwise has changed none of these HPAs\n",
            ),
            ("shop/mail -o json", false, "[]\n"),
        ] {
            let printed = render(&[], failed, &parsed(args)).unwrap();
            assert_eq!(printed, expected, "{args}");
        }
    }

    #[test]
    fn counts_released_hpas() {
        let hpas = [one("mail", None, false), one("pages", None, false)];
        for (args, hpas, expected) in [
            ("--all", &hpas[..], "2 HPAs released"),
            ("--all", &hpas[..1], "1 HPA released"),
            ("--all --dry-run", &hpas[..], "2 HPAs would be released"),
            ("--all --dry-run", &hpas[1..], "1 HPA would be released"),
        ] {
            let printed = render(hpas, false, &parsed(args)).unwrap();
            assert_eq!(printed.lines().last(), Some(expected), "{args}");
        }
    }

    #[test]
    fn prints_a_table() {
        let printed = table(
            &[
                one("billing", None, true),
                one("mail", Some(2), false),
                one("pages", None, false),
            ],
            false,
        );
        let expected = [
            " NAMESPACE  HPA      MAX-BEFORE  MAX-AFTER  WOKEN  NOTE",
            " shop       billing           6         20      -  still requests cap: enforce",
            " shop       mail              6         20      2",
            " shop       pages             6         20      -  not woken: no record that lagwise has scaled it to zero",
            "",
            "3 HPAs released",
        ];
        assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
    }
}
