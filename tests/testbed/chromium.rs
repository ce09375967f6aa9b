//! A headless Chromium, driven by its DevTools protocol.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use super::Testbed;
use super::poll::poll_until;
use super::process::Process;

/// How long the browser may take for one command.
const COMMAND: Duration = Duration::from_secs(60);

/// A browser with one page; ended when dropped.
pub(crate) struct Browser {
    socket: WebSocket<TcpStream>,
    session: Option<String>,
    commands: u64,
    /// Addresses that were requested.
    requested: BTreeSet<String>,
    /// Errors of scripts, of the console and of the security policy.
    complaints: Vec<String>,
    _process: Process,
}

impl Browser {
    /// Starts it with an empty page.
    pub(crate) fn start(testbed: &Testbed) -> Result<Self> {
        let artifacts = testbed.artifacts()?;
        let program = artifacts.chromium.as_ref();
        let program = program.context("no Chromium; tests/run brings it into the testbed")?;
        let folder = testbed.folder("chromium")?;
        let profile = folder.join("profile");
        let mut command = Command::new(program);
        command
            .args(["--headless=new", "--no-sandbox", "--disable-gpu"])
            .args([
                "--no-first-run",
                "--disable-background-networking",
                "--hide-scrollbars",
            ])
            .args(["--disable-dev-shm-usage", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank")
            .env("HOME", &folder);
        let mut process = Process::start("chromium", &folder, &command)?;
        let listens = profile.join("DevToolsActivePort");
        let (port, path) = poll_until(Duration::from_secs(30), "Chromium to listen", || {
            process.expect_running()?;
            let text = std::fs::read_to_string(&listens)?;
            let (port, path) = text.split_once('\n').context("no path yet")?;
            Ok((port.parse::<u16>()?, path.trim().to_owned()))
        })?;
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        let connected = tungstenite::client(format!("ws://127.0.0.1:{port}{path}"), stream);
        let (socket, _) = connected.map_err(|error| anyhow!("connecting to Chromium: {error}"))?;
        socket
            .get_ref()
            .set_read_timeout(Some(Duration::from_millis(100)))?;
        let mut browser = Self {
            socket,
            session: None,
            commands: 0,
            requested: BTreeSet::new(),
            complaints: Vec::new(),
            _process: process,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach)?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        Ok(browser)
    }

    /// Sends a command and waits for its result.
    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.commands += 1;
        let id = self.commands;
        let mut command = json!({"id": id, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(command.to_string()))?;
        let deadline = Instant::now() + COMMAND;
        while Instant::now() < deadline {
            let Some(message) = self.read()? else {
                continue;
            };
            if message["id"] == id {
                ensure!(message["error"].is_null(), "{method}: {}", message["error"]);
                return Ok(message["result"].clone());
            }
        }
        bail!("{method}: no answer of Chromium within {COMMAND:?}")
    }

    /// The next message, after a short wait at most. Events are noted.
    fn read(&mut self) -> Result<Option<Value>> {
        let message = match self.socket.read() {
            Ok(Message::Text(text)) => serde_json::from_str(text.as_str())?,
            Ok(_) => return Ok(None),
            Err(tungstenite::Error::Io(error))
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        self.note(&message);
        Ok(Some(message))
    }

    fn note(&mut self, message: &Value) {
        let event = &message["params"];
        match message["method"].as_str().unwrap_or_default() {
            "Network.requestWillBeSent" => {
                let url = event["request"]["url"].as_str().unwrap_or_default();
                self.requested.insert(url.to_owned());
            }
            "Runtime.exceptionThrown" => self.complaints.push(event.to_string()),
            "Runtime.consoleAPICalled" if event["type"] == "error" => {
                self.complaints.push(event.to_string());
            }
            // Violations of the content security policy are among these.
            "Log.entryAdded" if event["entry"]["level"] == "error" => {
                self.complaints.push(event["entry"].to_string());
            }
            _ => {}
        }
    }

    /// Opens an address.
    pub(crate) fn open(&mut self, url: &str) -> Result<()> {
        let opened = self.call("Page.navigate", json!({"url": url}))?;
        ensure!(opened["errorText"].is_null(), "{url}: {opened}");
        self.wait_for("document.readyState === 'complete'")
    }

    /// The value of an expression on the page.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let parameters =
            json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let done = self.call("Runtime.evaluate", parameters)?;
        ensure!(done["exceptionDetails"].is_null(), "{expression}: {done}");
        Ok(done["result"]["value"].clone())
    }

    /// Waits until an expression on the page is true.
    pub(crate) fn wait_for(&mut self, expression: &str) -> Result<()> {
        poll_until(Duration::from_secs(20), expression, || {
            let value = self.evaluate(expression)?;
            ensure!(value == true, "it is {value}");
            Ok(())
        })
    }

    /// Presses a key, such as `j` or `Enter`.
    pub(crate) fn press(&mut self, key: &str) -> Result<()> {
        self.press_with(key, 0)
    }

    /// Presses a key while Shift is held.
    pub(crate) fn press_with_shift(&mut self, key: &str) -> Result<()> {
        self.press_with(key, 8)
    }

    fn press_with(&mut self, key: &str, modifiers: u8) -> Result<()> {
        let mut down = json!({"type": "keyDown", "key": key, "modifiers": modifiers});
        if key.chars().count() == 1 {
            down["text"] = json!(key);
        }
        if key == "Enter" {
            down["text"] = json!("\r");
        }
        self.call("Input.dispatchKeyEvent", down)?;
        self.call(
            "Input.dispatchKeyEvent",
            json!({"type": "keyUp", "key": key, "modifiers": modifiers}),
        )?;
        Ok(())
    }

    /// Drags the mouse over an element, from one part of its width to another.
    pub(crate) fn drag(&mut self, selector: &str, from: f64, to: f64) -> Result<()> {
        let script = format!(
            "(() => {{ const element = document.querySelector('{selector}'); \
             element.scrollIntoView({{block: 'center', behavior: 'instant'}}); \
             const {{x, y, width, height}} = element.getBoundingClientRect(); return [x, y, width, height]; }})()"
        );
        let place = self.evaluate(&script)?;
        let number = |place: &Value| place.as_f64().context("no number");
        let (x, y) = (number(&place[0])?, number(&place[1])?);
        let (width, height) = (number(&place[2])?, number(&place[3])?);
        for (kind, part, buttons) in [
            ("mousePressed", from, 1),
            ("mouseMoved", from.midpoint(to), 1),
            ("mouseMoved", to, 1),
            ("mouseReleased", to, 0),
        ] {
            self.call(
                "Input.dispatchMouseEvent",
                json!({
                    "type": kind, "x": x + width * part, "y": y + height / 2.0,
                    "button": "left", "buttons": buttons, "clickCount": 1,
                }),
            )?;
        }
        Ok(())
    }

    /// Runs axe-core, whose script this is, and returns its serious and critical issues of the page.
    pub(crate) fn accessibility_issues(&mut self, axe: &str) -> Result<Vec<String>> {
        self.evaluate(&format!("{axe}; null"))?;
        let found = self.evaluate(
            "axe.run(document, {resultTypes: ['violations']}).then(({violations}) => violations \
             .filter(({impact}) => impact === 'serious' || impact === 'critical') \
             .flatMap(({id, nodes}) => nodes.map(({html, any}) => \
             `${id}: ${html.slice(0, 300)} ${any.map(({message}) => message).join('; ')}`)))",
        )?;
        let issues = found.as_array().context("no list of issues")?;
        Ok(issues
            .iter()
            .map(|issue| issue.as_str().unwrap_or_default().to_owned())
            .collect())
    }

    /// Sets the size of the window and the colour scheme of the system; the scheme `print` is paper.
    pub(crate) fn set_window(&mut self, width: u32, height: u32, scheme: &str) -> Result<()> {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size)?;
        let scheme = match scheme {
            "print" => json!({"media": "print", "features": []}),
            scheme => {
                json!({"media": "", "features": [{"name": "prefers-color-scheme", "value": scheme}]})
            }
        };
        self.call("Emulation.setEmulatedMedia", scheme)?;
        Ok(())
    }

    /// Writes a picture of the window into a file.
    pub(crate) fn screenshot(&mut self, file: &Path) -> Result<()> {
        let taken = self.call("Page.captureScreenshot", json!({"format": "png"}))?;
        let data = taken["data"].as_str().context("no picture")?;
        std::fs::write(file, BASE64_STANDARD.decode(data)?)?;
        Ok(())
    }

    /// Errors so far, and addresses requested outside of `origin`.
    pub(crate) fn complaints(&mut self, origin: &str) -> Result<Vec<String>> {
        self.take_in()?;
        let is_own =
            |url: &str| url.starts_with(origin) || url.starts_with("data:") || url == "about:blank";
        let others = self.requested.iter().filter(|url| !is_own(url));
        let others = others.map(|url| format!("requested {url}"));
        Ok(self.complaints.iter().cloned().chain(others).collect())
    }

    /// Processes events that are still in progress.
    fn take_in(&mut self) -> Result<()> {
        while self.read()?.is_some() {}
        Ok(())
    }

    /// Keeps requests to such addresses from being sent, or no more with an empty list.
    pub(crate) fn block(&mut self, patterns: &[&str]) -> Result<()> {
        self.call("Network.setBlockedURLs", json!({"urls": patterns}))?;
        Ok(())
    }
}
