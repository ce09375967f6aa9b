//! One plain HTTP request, for /metrics and the health endpoints.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};

/// GET from 127.0.0.1: the status code and the body.
pub(crate) fn http_get(port: u16, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    // HTTP/1.0 asks for an answer in one piece, ended by the connection's end.
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept: */*\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("no end of the headers")?;
    let code = head.split(' ').nth(1).context("no status line")?.parse()?;
    Ok((code, body.to_owned()))
}
