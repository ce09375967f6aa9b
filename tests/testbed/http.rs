//! One plain HTTP request, for /metrics and the health endpoints.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};

/// GET from 127.0.0.1: the status code and the body.
pub(crate) fn http_get(port: u16, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    // With HTTP/1.0, the response ends with the connection.
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

/// Parts of a scripted server: a runtime with one thread, and a listener on a free port of localhost, with its number.
pub(crate) fn runtime_and_listener() -> Result<(tokio::runtime::Runtime, std::net::TcpListener, u16)>
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    Ok((runtime, listener, port))
}
