//! The clients of `services/client/examples`, run as a developer would run them.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    binary,
    command::{self, Finished},
    skip::skip_without_tool,
    workspace,
};

/// A program that calls a server.
#[derive(Debug, Clone)]
pub struct Example {
    /// The language that it is written in.
    pub language: &'static str,
    program: PathBuf,
    script: Option<PathBuf>,
    environment: Vec<(&'static str, OsString)>,
}

impl Example {
    /// Those that take the same arguments and print the same: Rust, Python and Node. A language whose tools are not there is
    /// left out, with a message.
    #[must_use]
    pub fn all() -> Vec<Self> {
        [Some(Self::rust()), Self::python(), Self::node()].into_iter().flatten().collect()
    }

    fn rust() -> Self {
        let program = binary::example("classify");
        Self { language: "Rust", program, script: None, environment: Vec::new() }
    }

    fn python() -> Option<Self> {
        let program = first_that_runs("python3", &["-c", "import grpc_status, grpc_tools"], &[]).or_else(|| {
            missing("Python with grpcio", "pip install -r services/client/examples/python/requirements.txt")
        })?;
        Some(Self { language: "Python", program, script: Some(source("python/classify.py")), environment: Vec::new() })
    }

    fn node() -> Option<Self> {
        let packages = ("NODE_PATH", tools().join("node_modules").into_os_string());
        let program = first_that_runs("node", &["-e", "require('@grpc/grpc-js')"], std::slice::from_ref(&packages))
            .or_else(|| missing("Node with @grpc/grpc-js", "npm ci --prefix services/client/examples/node"))?;
        Some(Self { language: "Node", program, script: Some(source("node/classify.js")), environment: vec![packages] })
    }

    /// The lines for grpcurl, which take a file and an address.
    #[must_use]
    pub fn grpcurl() -> Self {
        let (program, script) = (PathBuf::from("bash"), Some(source("grpcurl/classify.sh")));
        Self { language: "grpcurl", program, script, environment: Vec::new() }
    }

    /// The same, which finds `program` on its path.
    #[must_use]
    pub fn with_program(mut self, program: &Path) -> Self {
        let named = program.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut folders: Vec<PathBuf> = named.map(Path::to_owned).into_iter().collect();
        folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        self.environment.push(("PATH", env::join_paths(folders).expect("folders can be joined")));
        self
    }

    /// Runs it to its end.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Finished {
        self.run_with(arguments, &[])
    }

    /// Runs it to its end with variables of the environment.
    #[must_use]
    pub fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
        let mut command = Command::new(&self.program);
        command.args(&self.script).args(arguments).env_remove("CHORALE_TOKEN");
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).envs(environment.iter().copied());
        command::finish(command, b"")
    }
}

fn source(name: &str) -> PathBuf {
    workspace().join("services/client/examples").join(name)
}

/// Where `tests/run` installs what the examples need.
fn tools() -> PathBuf {
    workspace().join("target/tools/examples")
}

fn first_that_runs(name: &str, arguments: &[&str], environment: &[(&str, OsString)]) -> Option<PathBuf> {
    [tools().join("bin").join(name), PathBuf::from(name)].into_iter().find(|program| {
        let mut command = Command::new(program);
        command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
        command.output().is_ok_and(|output| output.status.success())
    })
}

fn missing(tool: &str, how: &str) -> Option<PathBuf> {
    skip_without_tool(tool, how);
    None
}
