//! TokenCache for Amazon MSK, with the credentials of a pod: each case is a separate process, with the environment that
//! the service sets, and a local server in place of the service that checks the requests.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]
#![cfg(feature = "aws-msk-iam")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use lagwise::kafka::login::{TokenCache, TokenSettings, TokenSource};

/// Environment variable of the processes that the tests start: the role to assume, or empty.
const CHILD: &str = "LAGWISE_TEST_ROLE";
const ROLE: &str = "arn:aws:iam::123456789012:role/lagwise";
const PLANTED: &str = "planted-secret";

/// Runs in a process that a test started: requests a token and prints it, or the error.
#[tokio::test]
async fn child() {
    let Ok(role) = std::env::var(CHILD) else {
        return;
    };
    let settings = TokenSettings::new(TokenSource::AwsMskIam {
        region: "eu-central-1".into(),
        role_arn: (!role.is_empty()).then_some(role),
    });
    let runtime = tokio::runtime::Handle::current();
    let tokens = TokenCache::start(&settings, &"main".into(), "b:9098", &runtime).unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    match tokens.wait(deadline).await {
        Ok(token) => {
            let left = token.remaining(SystemTime::now()).as_secs();
            println!("\ntoken={} left={left}", token.value());
        }
        Err(error) => println!("\nerror={error}"),
    }
}

/// A request, as text.
type ReceivedRequest = String;

/// Responds to each request with the result of `answer`, until the test process ends.
fn server(
    answer: impl Fn(&str) -> String + Send + 'static,
) -> (String, mpsc::Receiver<ReceivedRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (seen, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let request = read(&mut stream);
            let answer = answer(&request);
            if seen.send(request).is_err() {
                return;
            }
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (address, requests)
}

fn read(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                let is_length = key.eq_ignore_ascii_case("content-length");
                is_length.then(|| value.trim().parse::<usize>().unwrap())
            });
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        match stream.read(&mut buffer) {
            Ok(read) if read > 0 => bytes.extend_from_slice(&buffer[..read]),
            _ => return text,
        }
    }
}

fn response(status: u16, kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// Text that the child printed after `token=` or `error=`.
fn run(role: &str, environment: &[(&str, &str)]) -> Result<String, String> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        // Keep the SDK from finding credentials of this machine.
        .env("HOME", "/nonexistent")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env(CHILD, role)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let all = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!all.contains(PLANTED), "{all}");
    let line = |start: &str| text.lines().find_map(|line| line.strip_prefix(start));
    match (line("token="), line("error=")) {
        (Some(token), _) => Ok(token.to_owned()),
        (None, Some(error)) => Err(error.to_owned()),
        (None, None) => panic!("{all}"),
    }
}

/// The parts of the presigned URL that a token is.
fn query(token: &str) -> Vec<(String, String)> {
    let token = token.split(' ').next().unwrap();
    let url = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(token).unwrap()).unwrap();
    let (address, query) = url.split_once('?').unwrap();
    assert_eq!(address, "https://kafka.eu-central-1.amazonaws.com/");
    form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect()
}

fn value<'a>(pairs: &'a [(String, String)], name: &str) -> &'a str {
    let found = pairs.iter().find(|(key, _)| key == name);
    found.map_or("", |(_, value)| value)
}

/// The credentials that the security token service gives.
fn credentials(action: &str, key: &str) -> String {
    let body = format!(
        r#"<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result>
        <Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{PLANTED}</SecretAccessKey>
        <SessionToken>session-{key}</SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration></Credentials>
        <AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/lagwise/s</Arn><AssumedRoleId>A:s</AssumedRoleId></AssumedRoleUser>
        </{action}Result></{action}Response>"#
    );
    response(200, "text/xml", &body)
}

#[test]
fn a_service_accounts_role_makes_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "federated.pod.token").unwrap();
    let (sts, requests) = server(|_| credentials("AssumeRoleWithWebIdentity", "ASIAWEB"));
    let environment = [
        ("AWS_ROLE_ARN", ROLE),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_str().unwrap()),
        ("AWS_ROLE_SESSION_NAME", "pod"),
        ("AWS_ENDPOINT_URL_STS", &sts),
    ];
    let token = run("", &environment).unwrap();
    let request = requests.recv().unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST / HTTP/1.1"), "{head}");
    // The exchange is not signed: the pod's token is the credential.
    assert!(!head.to_lowercase().contains("authorization:"), "{head}");
    let form: Vec<(String, String)> = form_urlencoded::parse(body.as_bytes())
        .into_owned()
        .collect();
    assert_eq!(value(&form, "Action"), "AssumeRoleWithWebIdentity");
    assert_eq!(value(&form, "Version"), "2011-06-15");
    assert_eq!(value(&form, "RoleArn"), ROLE);
    assert_eq!(value(&form, "RoleSessionName"), "pod");
    assert_eq!(value(&form, "WebIdentityToken"), "federated.pod.token");

    let pairs = query(&token);
    assert_eq!(value(&pairs, "Action"), "kafka-cluster:Connect");
    assert_eq!(value(&pairs, "X-Amz-Algorithm"), "AWS4-HMAC-SHA256");
    let scope = value(&pairs, "X-Amz-Credential");
    assert!(
        scope.starts_with("ASIAWEB/")
            && scope.ends_with("/eu-central-1/kafka-cluster/aws4_request"),
        "{scope}"
    );
    assert_eq!(value(&pairs, "X-Amz-Security-Token"), "session-ASIAWEB");
    assert_eq!(value(&pairs, "X-Amz-Expires"), "900");
    assert_eq!(value(&pairs, "X-Amz-SignedHeaders"), "host");
    assert_eq!(value(&pairs, "X-Amz-Signature").len(), 64);
    let left: u64 = token.split("left=").nth(1).unwrap().parse().unwrap();
    assert!((800..=900).contains(&left), "{left}");
}

#[test]
fn pod_identity_makes_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "pod-identity-token").unwrap();
    let (agent, requests) = server(|_| {
        let body = format!(
            r#"{{"AccessKeyId":"ASIAPOD","SecretAccessKey":"{PLANTED}","Token":"session","Expiration":"2999-01-01T00:00:00Z"}}"#
        );
        response(200, "application/json", &body)
    });
    let environment = [
        (
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            format!("{agent}/v1/credentials"),
        ),
        (
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            file.to_str().unwrap().to_owned(),
        ),
    ];
    let environment: Vec<_> = environment.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let token = run("", &environment).unwrap();
    let request = requests.recv().unwrap();
    assert!(
        request.starts_with("GET /v1/credentials HTTP/1.1"),
        "{request}"
    );
    assert!(
        request
            .to_lowercase()
            .contains("authorization: pod-identity-token"),
        "{request}"
    );
    assert!(value(&query(&token), "X-Amz-Credential").starts_with("ASIAPOD/"));
}

#[test]
fn a_role_is_taken_on() {
    let (sts, requests) = server(|_| credentials("AssumeRole", "ASIAROLE"));
    let environment = [
        ("AWS_ACCESS_KEY_ID", "AKIAPOD"),
        ("AWS_SECRET_ACCESS_KEY", PLANTED),
        ("AWS_ENDPOINT_URL_STS", &sts),
    ];
    let token = run(ROLE, &environment).unwrap();
    let request = requests.recv().unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(
        head.contains("Credential=AKIAPOD/") && head.contains("/eu-central-1/sts/aws4_request"),
        "{head}"
    );
    let form: Vec<(String, String)> = form_urlencoded::parse(body.as_bytes())
        .into_owned()
        .collect();
    assert_eq!(value(&form, "Action"), "AssumeRole");
    assert_eq!(value(&form, "RoleArn"), ROLE);
    assert_eq!(value(&form, "RoleSessionName"), "lagwise");
    assert!(value(&query(&token), "X-Amz-Credential").starts_with("ASIAROLE/"));
}

#[test]
fn each_failure_names_its_cause() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, PLANTED).unwrap();
    let refusal = r#"<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>
        <Code>AccessDenied</Code><Message>Not authorized to perform sts:AssumeRoleWithWebIdentity</Message></Error>
        <RequestId>1</RequestId></ErrorResponse>"#;
    for (answer, reason) in [
        (
            response(403, "text/xml", refusal),
            "Not authorized to perform",
        ),
        (response(200, "text/xml", "<garbage"), ""),
    ] {
        let (sts, _requests) = server(move |_| answer.clone());
        let environment = [
            ("AWS_ROLE_ARN", ROLE),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_str().unwrap()),
            ("AWS_ENDPOINT_URL_STS", &sts),
        ];
        let error = run("", &environment).unwrap_err();
        println!("{error}");
        assert!(
            error.starts_with("token source aws_msk_iam: ") && error.contains(reason),
            "{error}"
        );
    }
    let error = run("", &[]).unwrap_err();
    println!("{error}");
    assert!(error.contains("credentials"), "{error}");
}
