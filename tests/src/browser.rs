//! A real browser without a window.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{admin, free_port, skip::skip_without_tool, until};

/// Generous: the machine may be building something else.
const PATIENCE: Duration = Duration::from_secs(60);

const ARGUMENTS: &[&str] = &[
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    // A microphone that beeps, and nobody who has to allow it.
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
];

/// A headless Chromium, and the driver that leads it. Both end when this is dropped.
#[derive(Debug)]
pub struct Browser {
    driver: Driver,
    /// What leads it.
    pub client: Client,
    downloads: TempDir,
}

impl Browser {
    /// Starts one whose pages are `width` by `height` pixels. `None`, with a message, if none is installed.
    pub async fn start(width: u32, height: u32) -> Option<Self> {
        let driver = Driver::start().await?;
        let downloads = tempfile::tempdir().expect("a folder can be made");
        let capabilities = json!({
            "goog:chromeOptions": {
                "args": ARGUMENTS,
                // Windows of their own are never as narrow as a phone.
                "mobileEmulation": { "deviceMetrics": { "width": width, "height": height, "mobile": false, "touch": false } },
                "prefs": { "download.default_directory": downloads.path(), "download.prompt_for_download": false },
            },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let Value::Object(capabilities) = capabilities else { unreachable!("the literal is an object") };
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://{}", driver.address))
            .await
            .expect("the browser starts");
        Some(Self { driver, client, downloads })
    }

    /// Runs `script` in the page, as the body of a function, and returns what it returns.
    pub async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Waits until `script` returns something that is neither null, false nor empty.
    pub async fn until(&self, what: &str, script: &str) -> Value {
        until(what, PATIENCE, async || {
            let value = self.run(script).await;
            let nothing = [Value::Null, Value::Bool(false), Value::String(String::new())];
            (!nothing.contains(&value)).then_some(value)
        })
        .await
    }

    /// What the page wrote to its console since this was last asked, with what the browser had to say: errors of scripts, files
    /// that could not be loaded, violations of the content security policy.
    pub async fn console(&self) -> Vec<String> {
        let entries = self.ask("se/log", &json!({ "type": "browser" })).await;
        let entries = entries.as_array().expect("a list of entries").iter();
        entries.map(|entry| format!("{} {}", entry["level"], entry["message"])).collect()
    }

    /// What is in the window, as WebP.
    pub async fn picture(&self) -> Vec<u8> {
        let parameters = json!({ "format": "webp", "quality": 84 });
        let command = json!({ "cmd": "Page.captureScreenshot", "params": parameters });
        let answer = self.ask("goog/cdp/execute", &command).await;
        STANDARD.decode(answer["data"].as_str().expect("a picture")).expect("the picture is in base64")
    }

    /// Gives the driver a command that only Chromium's has.
    async fn ask(&self, command: &str, parameters: &Value) -> Value {
        let session = self.client.session_id().await.expect("the session has an id").expect("there is a session");
        let path = format!("/session/{session}/{command}");
        let (status, answer) =
            admin::post(self.driver.address, &path, &parameters.to_string()).expect("the driver answers");
        assert_eq!(status, 200, "{answer}");
        let mut answer: Value = serde_json::from_str(&answer).expect("the driver answers in JSON");
        answer["value"].take()
    }

    /// Where downloads go.
    #[must_use]
    pub fn downloads(&self) -> &Path {
        self.downloads.path()
    }
}

/// A `chromedriver` on a free port. It ends, with its browsers, when this is dropped.
#[derive(Debug)]
struct Driver {
    child: Child,
    address: SocketAddr,
}

impl Driver {
    async fn start() -> Option<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let spawned = Command::new("chromedriver")
            .arg(format!("--port={}", address.port()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match spawned {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                skip_without_tool("chromedriver", "apt-get install chromium chromium-driver");
                return None;
            }
            Err(error) => panic!("chromedriver: {error}"),
        };
        let driver = Self { child, address };
        until("chromedriver answers", PATIENCE, async || admin::get(address, "/status").ok()).await;
        Some(driver)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Killed at once, it would leave its browsers behind.
        let pid = i32::try_from(self.child.id()).expect("a process id fits");
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}
