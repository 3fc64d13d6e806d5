//! A collector of traces that we did not write.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use crate::{free_port, skip::skip_without_tool, until, workspace};

const PATIENCE: Duration = Duration::from_secs(20);

/// A `rotel-agent` that takes OTLP over gRPC and writes down what came. It is killed when this is dropped.
#[derive(Debug)]
pub struct Collector {
    child: Child,
    port: u16,
    lines: Arc<Mutex<Vec<String>>>,
}

/// A span that came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CollectedSpan {
    /// `service.name` of the process.
    pub service: String,
    /// Hexadecimal, as the others.
    pub trace_id: String,
    /// The span itself.
    pub id: String,
    /// Empty if it has none.
    pub parent_id: String,
    /// What it is called.
    pub name: String,
    /// The ids of spans that it is linked to.
    pub links: Vec<String>,
}

impl Collector {
    /// Starts one and waits until it listens. `None`, with a message, if none is installed.
    pub async fn start() -> Option<Self> {
        let installed = workspace().join("target/tools/tests/bin/rotel-agent");
        let (grpc, http) = (free_port(), free_port());
        let spawn = |program: PathBuf| {
            Command::new(program)
                .arg("start")
                .args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{grpc}")])
                .args(["--otlp-http-endpoint", &format!("127.0.0.1:{http}")])
                .args(["--exporter", "blackhole", "--debug-log", "traces", "--debug-log-verbosity", "detailed"])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .ok()
        };
        let Some(mut child) = spawn(PathBuf::from("rotel-agent")).or_else(|| spawn(installed)) else {
            skip_without_tool("rotel-agent", "pip install rotel");
            return None;
        };
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (output, written) = (child.stdout.take().expect("stdout is piped"), Arc::clone(&lines));
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                written.lock().expect("no reader panics").push(line);
            }
        });
        let collector = Self { child, port: grpc, lines };
        until("the collector listens", PATIENCE, async || {
            std::net::TcpStream::connect(("127.0.0.1", grpc)).is_ok().then_some(())
        })
        .await;
        Some(collector)
    }

    /// Where it takes spans.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What came so far.
    #[must_use]
    pub fn spans(&self) -> Vec<CollectedSpan> {
        let lines = self.lines.lock().expect("no writer panics");
        let mut service = String::new();
        let mut spans: Vec<CollectedSpan> = Vec::new();
        for line in lines.iter() {
            let (key, value) = line.split_once(':').unwrap_or((line, ""));
            let (key, value) = (key.trim(), value.trim().to_owned());
            let name = value.trim_start_matches("Str(").trim_end_matches(')');
            if key.starts_with("Span #") {
                spans.push(CollectedSpan { service: service.clone(), ..CollectedSpan::default() });
                continue;
            }
            let span = spans.last_mut();
            match (key, span) {
                ("-> service.name", _) => name.clone_into(&mut service),
                ("Trace ID", Some(span)) => span.trace_id = value,
                ("Parent ID", Some(span)) => span.parent_id = value,
                ("ID", Some(span)) => span.id = value,
                ("Name", Some(span)) => span.name = value,
                ("-> ID", Some(span)) => span.links.push(value),
                _ => {}
            }
        }
        spans
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
