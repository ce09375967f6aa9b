//! The binary: the allocator, and the command line of the library.

use std::process::ExitCode;

/// Its settings are compiled in from `.cargo/config.toml`, so only builds inside this repository have them.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    lagwise::cli::main()
}
