//! `lagwise topics`: compares the partitions of topics with the replicas of HPAs, and adds partitions.

mod compare;
mod grow;

use std::process::ExitCode;

use clap::{Args, Subcommand};

/// The arguments of `lagwise topics`.
#[derive(Debug, Args)]
pub struct TopicsArgs {
    #[command(subcommand)]
    command: TopicsCommand,
}

#[derive(Debug, Subcommand)]
enum TopicsCommand {
    /// Compare the partitions of topics with the replicas that HPAs may use and that the lag is worth
    Compare(compare::CompareArgs),
    /// Add partitions to a topic
    ///
    /// Shows what changes and asks before it does. Needs the right to alter the topic, which the daemon does not need.
    Grow(grow::GrowArgs),
}

/// Runs `lagwise topics`.
///
/// # Errors
/// What cannot be read or is refused.
pub async fn run(args: TopicsArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        TopicsCommand::Compare(args) => compare::run(args).await,
        TopicsCommand::Grow(args) => grow::run(args).await,
    }
}
