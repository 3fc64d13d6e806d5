//! The binary under test.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The root of the workspace.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the workspace")
}

/// The `chorale` binary: what `CHORALE_BIN` names, or else a release build of this workspace, made when first asked for.
#[must_use]
pub fn chorale() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match env::var_os("CHORALE_BIN") {
        Some(path) => PathBuf::from(path).canonicalize().expect("CHORALE_BIN names the chorale binary"),
        None => build(),
    })
}

fn build() -> PathBuf {
    escargot::CargoBuild::new()
        .manifest_path(workspace().join("Cargo.toml"))
        // Not the package alone: with fewer features of what others depend on, everything would be compiled again.
        .arg("--workspace")
        .bin("chorale")
        .release()
        .run()
        .expect("the chorale binary builds")
        .path()
        .to_owned()
}

/// An example of this workspace: what lies beside the binary that `CHORALE_BIN` names, or else one that is built now.
pub(crate) fn example(name: &str) -> PathBuf {
    let beside = env::var_os("CHORALE_BIN").and_then(|path| PathBuf::from(path).canonicalize().ok());
    let built = beside.and_then(|binary| Some(binary.parent()?.join("examples").join(name)));
    built.filter(|program| program.is_file()).unwrap_or_else(|| {
        let build = escargot::CargoBuild::new().manifest_path(workspace().join("Cargo.toml")).arg("--workspace");
        build.example(name).release().run().expect("the example builds").path().to_owned()
    })
}

/// A command line of the binary, without what the tester's own environment would configure.
pub(crate) fn invocation() -> Command {
    let mut command = Command::new(chorale());
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("CHORALE_") {
            command.env_remove(name);
        }
    }
    command
}
