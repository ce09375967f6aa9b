//! Allocates TCP ports that no other run uses.

use std::fs::File;
use std::net::TcpListener;
use std::sync::{LazyLock, Mutex, PoisonError};

use anyhow::{Context, Result};

/// Below the range of ephemeral ports, so that no outgoing connection takes the port of a broker while it is down.
const FIRST: u16 = 20_000;
const BLOCK: u16 = 100;
const BLOCKS: u16 = 100;

/// Ports that this process may hand out, in blocks that a file lock reserves, so that two runs do not collide.
#[derive(Default)]
struct Held {
    blocks: Vec<(File, u16)>,
    unused: Vec<u16>,
}

/// Returns a free TCP port on 127.0.0.1. Each port is returned once per run.
pub(crate) fn free_port() -> Result<u16> {
    static HELD: LazyLock<Mutex<Held>> = LazyLock::new(Mutex::default);
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        while let Some(port) = held.unused.pop() {
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return Ok(port);
            }
        }
        let (lock, first) =
            next_block(&held).context("no block of 100 free ports between 20000 and 29999")?;
        held.unused.extend((first..first + BLOCK).rev());
        held.blocks.push((lock, first));
    }
}

fn next_block(held: &Held) -> Option<(File, u16)> {
    let folder = std::env::temp_dir().join("lagwise-testbed-ports");
    std::fs::create_dir_all(&folder).ok()?;
    (0..BLOCKS)
        .map(|block| FIRST + block * BLOCK)
        .filter(|first| held.blocks.iter().all(|(_, mine)| mine != first))
        .find_map(|first| {
            let lock = File::options()
                .create(true)
                .append(true)
                .open(folder.join(first.to_string()))
                .ok()?;
            lock.try_lock().ok()?;
            Some((lock, first))
        })
}
