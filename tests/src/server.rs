//! A serving process of the binary.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{Client, Handles, Memory, admin, binary::invocation, memory, until};

/// Generous: the machine may be building something else.
const START_PATIENCE: Duration = Duration::from_secs(60);
const END_PATIENCE: Duration = Duration::from_secs(60);

/// What a role's arguments have that is to serve no page.
const WITHOUT_HTTP: &str = "gateway.http.enabled=false";

/// A serving process on free ports. It is killed when this is dropped; if the test fails, its log is shown.
#[derive(Debug)]
pub struct Server {
    child: Child,
    role: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    endpoint: String,
    http: Option<String>,
    admin: SocketAddr,
    start_time: Duration,
    output: Arc<Output>,
}

/// What a process wrote so far.
#[derive(Debug, Default)]
struct Output {
    stdout: Mutex<Vec<String>>,
    stderr: Mutex<Vec<String>>,
}

impl Server {
    /// Starts a serving command, such as `up`, with more `arguments`, and waits until it says where it listens.
    pub async fn start(role: &str, arguments: &[&str]) -> Self {
        Self::start_with(role, arguments, &[]).await
    }

    /// The same, with variables of the environment.
    pub async fn start_with(role: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_on(0, role, arguments, environment).await
    }

    /// The same, on a `port` that nothing else takes while the process is away: see [`free_port`](crate::free_port).
    pub async fn start_on(port: u16, role: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let environment = environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Self::start_at(role.to_owned(), &format!("127.0.0.1:{port}"), arguments, environment).await
    }

    /// Starts the process again on the same port, as it was started first. It is killed if it still runs.
    pub async fn restart(&mut self) {
        self.kill();
        let (role, address) = (self.role.clone(), self.address().to_owned());
        *self = Self::start_at(role, &address, self.arguments.clone(), self.environment.clone()).await;
    }

    async fn start_at(role: String, address: &str, arguments: Vec<String>, environment: Vec<(String, String)>) -> Self {
        let started = Instant::now();
        let mut child = invocation()
            .args([&role, "--listen", address, "--admin-listen", "127.0.0.1:0"])
            .args(has_http(&role).then_some(["--http-listen", "127.0.0.1:0"]).into_iter().flatten())
            .args(&arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let output = Arc::new(Output::default());
        collect(child.stdout.take().expect("stdout is piped"), Arc::clone(&output), |output| &output.stdout);
        collect(child.stderr.take().expect("stderr is piped"), Arc::clone(&output), |output| &output.stderr);
        let mut server = Self {
            child,
            role,
            arguments,
            environment,
            endpoint: String::new(),
            http: None,
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            start_time: Duration::ZERO,
            output,
        };
        server.endpoint = until("the line that says where the server listens", START_PATIENCE, async || {
            if let Some(status) = server.child.try_wait().expect("the process can be waited for") {
                panic!("`chorale {}` ended by itself: {status}", server.role);
            }
            server.output.endpoint()
        })
        .await;
        server.start_time = started.elapsed();
        if has_http(&server.role) && !server.arguments.iter().any(|argument| argument == WITHOUT_HTTP) {
            let said =
                until("the line that says where the page is", START_PATIENCE, async || server.output.http()).await;
            server.http = Some(said);
        }
        server.admin =
            until("the log line of the admin port", START_PATIENCE, async || server.output.admin_address()).await;
        server
    }

    /// From the start of the process until it said where it listens.
    #[must_use]
    pub fn start_time(&self) -> Duration {
        self.start_time
    }

    /// Where it serves gRPC: `http://host:port`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Where it serves gRPC: `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        self.endpoint.split_once("://").map_or(self.endpoint.as_str(), |(_scheme, address)| address)
    }

    /// Where it serves HTTP: `http://host:port`.
    #[must_use]
    pub fn http(&self) -> &str {
        self.http.as_deref().expect("a role with a page")
    }

    /// A connection of its own.
    ///
    /// # Errors
    /// If the server takes no connections.
    pub async fn connect(&self) -> Result<Channel, tonic::transport::Error> {
        Endpoint::from_shared(self.endpoint.clone())?.connect().await
    }

    /// A client with a connection of its own.
    pub async fn client(&self) -> Client {
        Client::new(self.connect().await.expect("the server takes connections"))
    }

    /// Waits until the admin port says that all of the process is ready.
    pub async fn ready(&self) {
        until("/readyz says 200", START_PATIENCE, async || (self.readyz().ok()? == 200).then_some(())).await;
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.output.stderr.lock().expect("no reader panics").join("\n")
    }

    /// Waits until gRPC health says that `service` is served.
    pub async fn serving(&self, service: &str) {
        let channel = self.connect().await.expect("the server takes connections");
        until("health says SERVING", START_PATIENCE, async || {
            (health(channel.clone(), service).await == Ok(ServingStatus::Serving)).then_some(())
        })
        .await;
    }

    /// The status of `/readyz`; an error once the admin port is closed.
    ///
    /// # Errors
    /// If the admin port does not answer.
    pub fn readyz(&self) -> std::io::Result<u16> {
        admin::get(self.admin, "/readyz").map(|(status, _)| status)
    }

    /// The value of a metric, summed over its labels. `None` if there is no such metric.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<f64> {
        admin::metric(&self.metrics(), name)
    }

    /// The status and the text of `path` of the admin port.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn admin(&self, path: &str) -> std::io::Result<(u16, String)> {
        admin::get(self.admin, path)
    }

    /// The same after `body` was put there.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn put(&self, path: &str, body: &str) -> std::io::Result<(u16, String)> {
        admin::put(self.admin, path, body)
    }

    /// Where the admin port is: `http://host:port`.
    #[must_use]
    pub fn admin_endpoint(&self) -> String {
        format!("http://{}", self.admin)
    }

    /// What `/metrics` says.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.try_metrics().expect("the admin port answers")
    }

    /// The same; an error once the admin port is closed.
    ///
    /// # Errors
    /// If the admin port does not answer.
    pub fn try_metrics(&self) -> std::io::Result<String> {
        let (status, text) = admin::get(self.admin, "/metrics")?;
        assert_eq!(status, 200, "{text}");
        Ok(text)
    }

    /// What the process logged as an error, line by line.
    #[must_use]
    pub fn logged_errors(&self) -> Vec<String> {
        let lines = self.output.stderr.lock().expect("no reader panics");
        // A line that is no event is a panic's.
        lines.iter().filter(|line| line.contains("\"ERROR\"") || !line.starts_with('{')).cloned().collect()
    }

    /// The id of the process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The memory that the process holds.
    #[must_use]
    pub fn memory(&self) -> Memory {
        Memory::of_process(self.child.id())
    }

    /// The descriptors and threads that the process has.
    #[must_use]
    pub fn handles(&self) -> Handles {
        Handles::of_process(self.child.id())
    }

    /// The processor time that the process has taken, in user and kernel mode.
    #[must_use]
    pub fn processor_time(&self) -> Duration {
        memory::processor_time(self.child.id())
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Stops the process where it is: connections stay open, and nothing answers.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id fits");
        kill(Pid::from_raw(pid), signal).expect("the process takes signals");
    }

    /// Waits until the process has ended by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        until("the process ends", END_PATIENCE, async || self.child.try_wait().expect("the process can be waited for"))
            .await
    }

    /// Kills the process, as a crash would.
    pub fn kill(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let stderr = self.output.stderr.lock().expect("no reader panics").join("\n");
            eprintln!("--- log of `chorale {}` ---\n{stderr}\n---", self.role);
        }
    }
}

impl Output {
    fn endpoint(&self) -> Option<String> {
        let stdout = self.stdout.lock().expect("no reader panics");
        let first = stdout.first()?;
        let endpoint = first.strip_prefix("listening on ").expect("the first line says where the server listens");
        Some(endpoint.to_owned())
    }

    fn http(&self) -> Option<String> {
        let stdout = self.stdout.lock().expect("no reader panics");
        let endpoint = stdout.get(1)?.strip_prefix("page on ").expect("the second line says where the page is");
        Some(endpoint.trim_end_matches('/').to_owned())
    }

    fn admin_address(&self) -> Option<SocketAddr> {
        let stderr = self.stderr.lock().expect("no reader panics");
        let line = stderr.iter().find(|line| line.contains("admin port listening"))?;
        let event: serde_json::Value = serde_json::from_str(line).expect("a log line is JSON");
        Some(event["address"].as_str().expect("the line names the address").parse().expect("an address"))
    }
}

/// Whether a role has a page.
fn has_http(role: &str) -> bool {
    ["up", "gateway"].contains(&role)
}

fn collect(stream: impl Read + Send + 'static, output: Arc<Output>, into: fn(&Output) -> &Mutex<Vec<String>>) {
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            into(&output).lock().expect("no reader panics").push(line);
        }
    });
}

/// What gRPC health says about `service`; the empty name stands for the process.
///
/// # Errors
/// What the server, or the connection, answered instead.
pub async fn health(channel: Channel, service: &str) -> Result<ServingStatus, Code> {
    let request = HealthCheckRequest { service: service.to_owned() };
    let response = HealthClient::new(channel).check(request).await.map_err(|status| status.code())?;
    Ok(response.into_inner().status())
}
