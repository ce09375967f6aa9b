//! `lagwise run`: the daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{Config, SystemEnvironment};
use crate::daemon::{self, App, HpaSource};
use crate::telemetry::FindingRaised;

/// The configuration file of the daemon.
#[derive(Debug, Args)]
pub(super) struct ConfigFileArg {
    /// Configuration file
    #[arg(
        short,
        long,
        value_name = "FILE",
        env = "LAGWISE_CONFIG",
        default_value = "/etc/lagwise/lagwise.yaml"
    )]
    pub(super) config: PathBuf,
}

/// The arguments of `lagwise run`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lagwise run --config lagwise.yaml\n\n\
    SIGTERM and SIGINT shut it down within five seconds; a second signal ends it at once.")]
pub struct RunArgs {
    #[command(flatten)]
    file: ConfigFileArg,
}

/// Runs the daemon until a signal.
///
/// # Errors
/// Why it cannot start, or which part ended by itself.
pub async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.file.config)?;
    daemon::init_logging(&config.log);
    for finding in config.find_insecure_settings(&SystemEnvironment) {
        FindingRaised(&finding).emit();
    }
    let mut signals = Signals::new()?;
    let app = App::start(&config, HpaSource::Cluster).await?;
    app.run_until(async {
        signals.next().await;
        tokio::spawn(async move {
            signals.next().await;
            std::process::exit(130);
        });
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}

/// Signals that end the process.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot receive signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
