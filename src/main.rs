//! The binary: parses the command line, runs the command, and sets the exit code.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use lagwise::cli::{Cli, error_text, print_error};

/// Its settings are compiled in from `.cargo/config.toml`, so only builds inside this repository have them.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let outcome = runtime.block_on(cli.run());
    // A blocking read of Kafka may still wait for its deadline; do not wait for it.
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome.unwrap_or_else(|error| fail(&error))
}

/// Two threads suffice. With one per core the allocator would keep memory for each.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(2));
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
}

fn fail(error: &anyhow::Error) -> ExitCode {
    print_error(&error_text(error));
    ExitCode::FAILURE
}
