//! Reads the files of traces.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, bail, ensure};

use crate::simulate::trace::MAX_TRACE_BYTES;

/// The text of a file, or of standard input for `-`. A character that is cut off at the end is left out.
///
/// # Errors
/// A file that cannot be read, or is no text.
pub(super) fn read_trace_text(path: &Path) -> anyhow::Result<String> {
    match path == Path::new("-") {
        true => read_bounded(io::stdin().lock()),
        false => read_bounded(File::open(path)?),
    }
}

fn read_bounded(from: impl Read) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    from.take(MAX_TRACE_BYTES.saturating_add(1))
        .read_to_end(&mut bytes)
        .context("cannot be read")?;
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    ensure!(
        length <= MAX_TRACE_BYTES,
        "larger than {MAX_TRACE_BYTES} bytes; split it by time"
    );
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let is_cut = error.utf8_error().error_len().is_none();
            let mut bytes = error.into_bytes();
            bytes.truncate(valid);
            let text = String::from_utf8(bytes).unwrap_or_default();
            if !is_cut {
                bail!("line {}: not UTF-8 text", text.lines().count().max(1));
            }
            Ok(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_that_is_cut_is_left_out_and_binary_is_refused() {
        let read = |bytes: &[u8]| read_bounded(bytes).map_err(|error| error.to_string());
        assert_eq!(read("a\ngrö".as_bytes()).unwrap(), "a\ngrö");
        assert_eq!(read(b"a\ngr\xc3").unwrap(), "a\ngr");
        assert_eq!(read(b"a\nb\xff\n").unwrap_err(), "line 2: not UTF-8 text");
        assert_eq!(read(b"\x1f\x8b\x08").unwrap_err(), "line 1: not UTF-8 text");
    }
}
