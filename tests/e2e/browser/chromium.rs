//! A driver for headless Chromium over the DevTools protocol: start, open pages, evaluate, wait, take a picture.
//!
//! One WebSocket per page, one call at a time on each, so that pages can be used from several threads.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket};

const START_TIMEOUT: Duration = Duration::from_secs(60);
/// One call, `await`s in the page included.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks at a condition; every look is a round trip, so this is no measure of precision.
const POLL: Duration = Duration::from_millis(25);

const FLAGS: [&str; 16] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    // Several pages are open at once; the one in the background must be as quick as the other.
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--remote-debugging-port=0",
];

/// The browser to test with: `CHROMIUM`, or the usual place. Without one, `None` and a loud line, but a panic under CI.
pub(super) fn installed() -> Option<PathBuf> {
    let path = env::var_os("CHROMIUM").map_or_else(|| PathBuf::from("/usr/bin/chromium"), PathBuf::from);
    if path.exists() {
        return Some(path);
    }
    let missing = format!("no Chromium at {}: install it, or name it in CHROMIUM", path.display());
    assert!(env::var_os("CI").is_none_or(|ci| ci != "true"), "{missing}");
    eprintln!("\n*** SKIPPED: {missing} ***\n");
    None
}

/// One browser at a time: several would only slow each other down.
static BROWSER: Mutex<()> = Mutex::new(());

/// A running browser with a profile of its own. Ends when dropped.
pub(super) struct Chromium {
    process: Child,
    control: Session,
    devtools: String,
    _profile: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Chromium {
    /// Starts the browser at `program` and waits until it can be driven.
    pub(super) fn start(program: &Path) -> Self {
        let turn = BROWSER.lock().unwrap_or_else(PoisonError::into_inner);
        let profile = tempfile::tempdir().expect("a directory for the profile");
        let mut process = Command::new(program)
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
        let stderr = process.stderr.take().expect("piped above");
        // Its messages must be read, or it blocks once the pipe is full.
        let messages = thread::spawn(move || BufReader::new(stderr).lines().map_while(Result::ok).last());
        let port_file = profile.path().join("DevToolsActivePort");
        let deadline = Instant::now() + START_TIMEOUT;
        let (port, path) = loop {
            if let Some((port, path)) =
                fs::read_to_string(&port_file).ok().as_deref().and_then(|text| text.split_once('\n'))
            {
                break (port.to_owned(), path.trim().to_owned());
            }
            if let Some(status) = process.try_wait().expect("the state of a child") {
                panic!("Chromium ended at once ({status}): {:?}", messages.join());
            }
            assert!(Instant::now() < deadline, "Chromium opened no DevTools port in {START_TIMEOUT:?}");
            thread::sleep(POLL);
        };
        let devtools = format!("127.0.0.1:{port}");
        let control = Session::connect(&devtools, &path);
        Self { process, control, devtools, _profile: profile, _turn: turn }
    }

    /// Opens `url` in a window of its own and returns once the document is loaded.
    pub(super) fn open(&mut self, url: &str) -> Page {
        let target = self.control.call("Target.createTarget", &json!({ "url": "about:blank", "newWindow": true }));
        let id = target["targetId"].as_str().expect("the id of the new target");
        let mut page = Page { session: Session::connect(&self.devtools, &format!("/devtools/page/{id}")) };
        page.session.call("Page.enable", &json!({}));
        page.navigate(url);
        page
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        self.control.tell("Browser.close");
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One open page.
pub(super) struct Page {
    session: Session,
}

impl Page {
    /// Loads another document.
    pub(super) fn navigate(&mut self, url: &str) {
        let answer = self.session.call("Page.navigate", &json!({ "url": url }));
        assert!(answer.get("errorText").is_none(), "{url} does not load: {}", answer["errorText"]);
        self.wait_for("document.readyState === 'complete'");
    }

    /// The value of a JavaScript expression; a promise is awaited.
    pub(super) fn evaluate(&mut self, expression: &str) -> Value {
        self.try_evaluate(expression).unwrap_or_else(|exception| panic!("{expression}: {exception}"))
    }

    fn try_evaluate(&mut self, expression: &str) -> Result<Value, Value> {
        let answer = self.session.try_call(
            "Runtime.evaluate",
            &json!({ "expression": expression, "awaitPromise": true, "returnByValue": true }),
        )?;
        match answer.get("exceptionDetails") {
            Some(exception) => Err(exception.clone()),
            None => Ok(answer["result"]["value"].clone()),
        }
    }

    /// Waits until the expression is truthy; gives its value. It may throw as long as the page isn't there yet.
    ///
    /// Panics after 30 s, with the page's text, so that a failing test shows what a person would have seen.
    pub(super) fn wait_for(&mut self, condition: &str) -> Value {
        const TIMEOUT: Duration = Duration::from_secs(30);
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let value = self.try_evaluate(condition);
            match &value {
                Ok(Value::Null | Value::Bool(false)) | Err(_) => {}
                Ok(value) => return value.clone(),
            }
            if Instant::now() >= deadline {
                let text = self.evaluate("document.body.innerText");
                panic!("not true after {TIMEOUT:?}: {condition}: {value:?}\nthe page shows: {text}");
            }
            thread::sleep(POLL);
        }
    }

    /// Presses and releases the Enter key, as a keyboard would: what has the focus is activated.
    pub(super) fn press_enter(&mut self) {
        let key =
            json!({ "type": "keyDown", "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r" });
        self.session.call("Input.dispatchKeyEvent", &key);
        self.session.call("Input.dispatchKeyEvent", &json!({ "type": "keyUp", "key": "Enter", "code": "Enter" }));
    }

    /// Sets size (in CSS pixels) and colour scheme.
    pub(super) fn emulate(&mut self, width: u32, height: u32, dark: bool) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.session.call("Emulation.setDeviceMetricsOverride", &metrics);
        let scheme = json!({ "name": "prefers-color-scheme", "value": if dark { "dark" } else { "light" } });
        self.session.call("Emulation.setEmulatedMedia", &json!({ "features": [scheme] }));
    }

    /// The visible part of the page as PNG.
    pub(super) fn screenshot(&mut self) -> Vec<u8> {
        let answer = self.session.call("Page.captureScreenshot", &json!({ "format": "png" }));
        let text = answer["data"].as_str().expect("a picture in base64");
        base64::Engine::decode(&base64::prelude::BASE64_STANDARD, text).expect("base64")
    }
}

/// One DevTools connection.
struct Session {
    socket: WebSocket<TcpStream>,
    calls: u64,
}

impl Session {
    fn connect(address: &str, path: &str) -> Self {
        let stream = TcpStream::connect(address).expect("Chromium's DevTools port answers");
        stream.set_read_timeout(Some(CALL_TIMEOUT)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        let (socket, _) = tungstenite::client(format!("ws://{address}{path}"), stream).expect("a DevTools WebSocket");
        Self { socket, calls: 0 }
    }

    /// Calls a method and waits for its result; events that come before are not needed.
    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.try_call(method, parameters).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// The result, or the error that Chromium answers with.
    fn try_call(&mut self, method: &str, parameters: &Value) -> Result<Value, Value> {
        self.calls += 1;
        let request = json!({ "id": self.calls, "method": method, "params": parameters });
        self.socket.send(Message::text(request.to_string())).expect("Chromium takes calls");
        loop {
            let message = self.socket.read().unwrap_or_else(|error| panic!("{method}: no answer: {error}"));
            let Message::Text(text) = message else { continue };
            let mut answer: Value = serde_json::from_str(&text).expect("DevTools speaks JSON");
            if answer["id"] == json!(self.calls) {
                return match answer.get("error") {
                    Some(error) => Err(error.clone()),
                    None => Ok(answer["result"].take()),
                };
            }
        }
    }

    /// Calls a method without an interest in its result.
    fn tell(&mut self, method: &str) {
        let request = json!({ "id": 0, "method": method });
        let _ = self.socket.send(Message::text(request.to_string()));
    }
}
