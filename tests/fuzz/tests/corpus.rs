//! Every input that was worth keeping, through the targets, without libFuzzer.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::{fs, path::Path};

use chorale_fuzz::{TARGETS, seeds, watch_panics};

/// Runs the target called `name` on its inputs: how many there were.
fn run(name: &str) -> usize {
    watch_panics();
    let (_, target) = TARGETS.into_iter().find(|(known, _)| *known == name).expect("a target");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut inputs = seeds(name);
    for kind in ["corpus", "findings"] {
        let files = fs::read_dir(folder.join(kind).join(name)).into_iter().flatten();
        inputs.extend(files.map(|file| fs::read(file.unwrap().path()).unwrap()));
    }
    for input in &inputs {
        target(input);
    }
    inputs.len()
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            assert!(run(stringify!($name)) > 0, "no inputs");
        })*

        #[test]
        fn no_target_is_left_out() {
            assert_eq!([$(stringify!($name)),*], TARGETS.map(|(name, _)| name));
        }
    };
}

targets! { decode au pcm protocol model_folder tracks_csv mel_npy config cached_verdict tensors }
