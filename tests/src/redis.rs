//! A real Redis.

use std::{
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{free_port, skip::skip_without_tool, until};

const PATIENCE: Duration = Duration::from_secs(20);

/// A `redis-server` on a free port that keeps nothing on disk. It is killed when this is dropped.
#[derive(Debug)]
pub struct Redis {
    child: Child,
    port: u16,
    arguments: Vec<String>,
}

impl Redis {
    /// Starts a server and waits until it answers. `None`, with a message, if none is installed.
    pub async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    /// The same, with more `arguments`.
    pub async fn start_with(arguments: &[&str]) -> Option<Self> {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        // Another process may take the free port first: then the server ends, and the next port is tried.
        for _ in 0..5 {
            let port = free_port();
            let Some(child) = spawn(port, &arguments) else {
                skip_without_tool("redis-server", "apt-get install redis-server");
                return None;
            };
            let mut redis = Self { child, port, arguments: arguments.clone() };
            if redis.answers().await {
                return Some(redis);
            }
        }
        panic!("redis-server finds no port");
    }

    /// Where it is, as `--cache-url` takes it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its port on this machine.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills the server.
    pub fn kill(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Forgets all that it holds.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn flush(&self) -> io::Result<()> {
        self.command("FLUSHALL")
    }

    /// Gives it a command that is answered with `OK`.
    ///
    /// # Errors
    /// If it is not.
    pub fn command(&self, command: &str) -> io::Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        if answer.starts_with("+OK") { Ok(()) } else { Err(io::Error::other(format!("{command}: {answer}"))) }
    }

    /// Stops the server where it is: connections stay open, and nothing answers.
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

    /// Starts it again, empty, on the same port.
    pub async fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.port, &self.arguments).expect("redis-server was there before");
        assert!(self.answers().await, "redis-server starts again on its port");
    }

    /// Waits until the server answers; false if it ended instead.
    async fn answers(&mut self) -> bool {
        until("redis-server answers", PATIENCE, async || {
            if self.child.try_wait().expect("the process can be waited for").is_some() {
                return Some(false);
            }
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
            let mut answer = [0; 5];
            stream.write_all(b"PING\r\n").ok()?;
            stream.read_exact(&mut answer).ok()?;
            // One that wants a password says so.
            (&answer == b"+PONG" || &answer == b"-NOAU").then_some(true)
        })
        .await
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(port: u16, arguments: &[String]) -> Option<Child> {
    let spawned = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(arguments)
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    match spawned {
        Ok(child) => Some(child),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("redis-server: {error}"),
    }
}
