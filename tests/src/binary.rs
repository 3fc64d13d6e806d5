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
