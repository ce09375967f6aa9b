//! Every kind of caller on every kind of path, directly and through the API server.

use anyhow::Result;

use super::callers::{Caller, Rank};
use super::{BASE, Scene};
use crate::testbed::Testbed;

/// A method, a path, and the expected status code for each kind of access, from invalid credentials to full rights.
type Row = (&'static str, String, [u16; 5]);

pub(super) fn every_caller_on_every_path(testbed: &Testbed) -> Result<()> {
    let scene = Scene::set(testbed, |_| {})?;
    let metric = scene.metric(&scene.namespace);
    // Paths that do not exist are 404 for every caller, without a review.
    let unknown = metric.replace("kafka_lag", "other");
    let rows: [Row; 14] = [
        ("GET", "/livez".to_owned(), [200; 5]),
        ("GET", "/readyz".to_owned(), [200; 5]),
        ("GET", "/healthz".to_owned(), [200; 5]),
        ("GET", "/openapi/v2".to_owned(), [404; 5]),
        ("GET", "/openapi/v3".to_owned(), [404; 5]),
        ("GET", "/version".to_owned(), [401, 200, 200, 200, 200]),
        ("GET", "/apis".to_owned(), [401, 403, 200, 200, 200]),
        ("GET", BASE.to_owned(), [401, 403, 200, 200, 200]),
        ("GET", metric.clone(), [401, 403, 403, 200, 200]),
        ("GET", scene.metric(&scene.other), [401, 403, 403, 403, 200]),
        ("GET", unknown.clone(), [404; 5]),
        (
            "GET",
            format!("{metric}&watch=true"),
            [401, 403, 403, 403, 405],
        ),
        ("DELETE", metric.clone(), [401, 403, 403, 403, 405]),
        ("GET", "/nothing".to_owned(), [404; 5]),
    ];
    let callers = scene.callers()?;
    let mut wrong = Vec::new();
    let mut cells = 0;
    let mut check = |caller: &Caller, method: &str, url: &str, expected: u16| -> Result<()> {
        let (code, body) = caller.send(method, url)?;
        cells += 1;
        let is_status =
            body.contains("\"kind\":\"Status\"") || body.contains("\"kind\": \"Status\"");
        if code != expected || (code >= 400 && !is_status) {
            wrong.push(format!(
                "{}: {method} {url}: {code}, not {expected}: {body}",
                caller.name
            ));
        }
        Ok(())
    };
    for caller in &callers {
        for (method, path, codes) in &rows {
            check(
                caller,
                method,
                &scene.daemon.url(path),
                codes[place(caller.rank)],
            )?;
        }
    }
    // Through the API server, which first authenticates and authorizes the callers itself, and then names them to
    // lagwise.
    let direct_only = ["front proxy", "the same", "user's certificate in"];
    for caller in callers
        .iter()
        .filter(|c| !direct_only.iter().any(|d| c.name.starts_with(d)))
    {
        for (method, path, codes) in &rows[7..13] {
            let code = match (*path == unknown, caller.rank) {
                (true, Rank::Invalid) => 401,
                (true, rank) if rank != Rank::Master => 403,
                (_, rank) => codes[place(rank)],
            };
            check(caller, method, &scene.through(path), code)?;
        }
    }
    println!("{cells} cells, {} wrong", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cells >= 60, "{cells} cells");
    Ok(())
}

fn place(rank: Rank) -> usize {
    [
        Rank::Invalid,
        Rank::Anonymous,
        Rank::Known,
        Rank::Reader,
        Rank::Master,
    ]
    .iter()
    .position(|r| *r == rank)
    .unwrap_or_default()
}
