//! A newcomer who does what a page says: its commands, block by block, in a folder with some music.

use std::{
    env,
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{binary::chorale, fixtures, free_port, markdown::Block, sound, workspace};

/// Generous: training is one of the commands.
const PATIENCE: Duration = Duration::from_secs(300);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// What of the checkout pages name as if they were read in it.
const CHECKOUT: [&str; 5] = ["deploy", "helm", "proto", "services", "tests"];
/// The addresses that pages name, and the variables that put servers elsewhere: others may have these ports.
const ADDRESSES: [(&str, &str); 3] = [
    ("127.0.0.1:50051", "CHORALE_GATEWAY__LISTEN"),
    ("127.0.0.1:8080", "CHORALE_GATEWAY__HTTP__LISTEN"),
    ("127.0.0.1:9090", "CHORALE_ADMIN__LISTEN"),
];
/// Tracks in each of two folders to train on.
const TRACKS: u64 = 10;

/// A folder to walk through a page in.
#[derive(Debug)]
pub struct Walkthrough {
    folder: TempDir,
    addresses: Vec<(&'static str, &'static str, String)>,
    serving: Option<Child>,
}

impl Walkthrough {
    /// A folder that is home and checkout at once, with `chorale` on the path, and
    /// - `Music`: a track of each genre in a folder of its own, and `song.mp3`,
    /// - `song.mp3` and `song.flac`,
    /// - `my-genres`: the folders `chords` and `clicks`, with tracks that nobody could confuse.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let root = folder.path();
        for name in CHECKOUT {
            symlink(workspace().join(name), root.join(name)).expect("links can be made");
        }
        fs::create_dir(root.join("bin")).expect("folders can be made");
        symlink(chorale(), root.join("bin/chorale")).expect("links can be made");
        for path in fixtures::genres() {
            let genre = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            write(&root.join(format!("Music/{genre}/01.mp3")), &fixtures::read(&path));
        }
        for (song, fixture) in
            [("song.mp3", "genres/jazz.mp3"), ("Music/song.mp3", "genres/jazz.mp3"), ("song.flac", "formats/clip.flac")]
        {
            write(&root.join(song), &fixtures::read(&workspace().join("tests/fixtures").join(fixture)));
        }
        // A page that curl is told is not there is an error, too.
        write(&root.join(".curlrc"), b"silent\nshow-error\nfail-with-body\n");
        sound::write_two_genres(&root.join("my-genres"), TRACKS);
        let addresses = ADDRESSES.map(|(named, variable)| (named, variable, format!("127.0.0.1:{}", free_port())));
        Self { folder, addresses: addresses.into(), serving: None }
    }

    /// Does what a block says. A block that is one command that serves is left running until the next one, or the end.
    ///
    /// Fails the test if a command fails, or a server does not come up.
    pub fn follow(&mut self, page: &Path, block: &Block) {
        let place = format!("{}:{}", page.display(), block.line);
        if serves(&block.text) {
            self.serve(&block.text, &place);
            return;
        }
        let (mut child, output) = self.start(&format!("set -euo pipefail\n{}", block.text), "block");
        let started = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("the process can be waited for") {
                break status;
            }
            if started.elapsed() > PATIENCE {
                let _ = child.kill();
                panic!("{place}: not done within {PATIENCE:?}:\n{}\n{}", block.text, read(&output));
            }
            thread::sleep(POLL_INTERVAL);
        };
        assert!(status.success(), "{place}: {status}:\n{}\n{}", block.text, read(&output));
    }

    fn serve(&mut self, command: &str, place: &str) {
        self.stop();
        let (mut child, output) = self.start(&format!("exec {command}"), "server");
        let started = Instant::now();
        let ended: Option<ExitStatus> = loop {
            let ended = child.try_wait().expect("the process can be waited for");
            if ended.is_some() || read(&output).contains("listening on ") || started.elapsed() > PATIENCE {
                break ended;
            }
            thread::sleep(POLL_INTERVAL);
        };
        self.serving = Some(child);
        let text = read(&output);
        assert!(ended.is_none() && text.contains("listening on "), "{place}: {ended:?}:\n{command}\n{text}");
    }

    /// Runs a script in the folder. Both its outputs go to a file, which a server may hold open.
    fn start(&self, script: &str, name: &str) -> (Child, PathBuf) {
        let root = self.folder.path();
        let output = root.join(format!("{name}.log"));
        let file = File::create(&output).expect("files can be made");
        let tools = workspace().join("target/tools");
        let mut folders = vec![root.join("bin"), tools.join("examples/bin"), tools.join("tests/bin")];
        folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        let mut command = Command::new("bash");
        for (variable, _) in env::vars_os() {
            if ["CHORALE_", "XDG_"].iter().any(|prefix| variable.to_string_lossy().starts_with(prefix)) {
                command.env_remove(variable);
            }
        }
        let mut script = script.to_owned();
        for (named, variable, address) in &self.addresses {
            script = script.replace(named, address);
            command.env(variable, address);
        }
        let child = command
            .args(["--norc", "-c", &script])
            .current_dir(root)
            .env("HOME", root)
            .env("PATH", env::join_paths(folders).expect("folders can be joined"))
            .env("NODE_PATH", tools.join("examples/node_modules"))
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file can be shared"))
            .stderr(file)
            .spawn()
            .expect("bash starts");
        (child, output)
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.serving.take() {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Default for Walkthrough {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Walkthrough {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Whether a block is one command that serves until it is stopped.
fn serves(block: &str) -> bool {
    let commands = block.replace("\\\n", " ");
    let mut commands = commands.lines().filter(|line| !line.trim().is_empty());
    commands.next().is_some_and(|first| first.starts_with("chorale up")) && commands.next().is_none()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("folders can be made");
    fs::write(path, bytes).expect("files can be written");
}
