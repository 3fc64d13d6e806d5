//! Serving and training see the same features: real audio through the cluster, and its spectrograms through `evaluate`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{collections::BTreeMap, fs, path::PathBuf};

use chorale_tests::{command, fixtures, note};
use serde_json::Value;

/// How many tracks may be told right from audio and wrong from the spectrogram, or the other way round, in balance.
const TOLERATED: usize = 2;

#[test]
fn real_audio_is_classified_as_well_as_its_spectrograms() {
    let Some(data) = fixtures::shared_data() else { return };
    let (audio, mel) = (data.join("gtzan-audio"), data.join("gtzan-mel"));

    let mut paths: Vec<PathBuf> = fs::read_dir(&audio).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let arguments = ["classify".into(), "--json".into()].into_iter().chain(paths.iter().cloned());
    let (answers, refusals) = command::run(arguments).expect_code(1).json_lines();
    assert_eq!(answers.len(), 50);
    let refused: Vec<&str> = refusals.iter().map(|refusal| refusal.path.as_str()).collect();
    assert_eq!(refused, [audio.join("tracks.csv").to_str().unwrap()], "only the table is no audio");

    let heard: BTreeMap<String, String> = answers
        .into_iter()
        .map(|answer| {
            let stem = PathBuf::from(&answer.path).file_stem().unwrap().to_string_lossy().into_owned();
            (stem, answer.genre)
        })
        .collect();

    let evaluate = command::run([
        "evaluate".as_ref(),
        "--json".as_ref(),
        "--data".as_ref(),
        mel.as_os_str(),
        "--tracks".as_ref(),
        audio.join("tracks.csv").as_os_str(),
    ])
    .expect_code(0);
    let report: Value = serde_json::from_str(&evaluate.stdout).unwrap();
    let predictions = report["predictions"].as_array().unwrap();
    assert_eq!(predictions.len(), 50);

    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let right = |said: &dyn Fn(&Value) -> String| predictions.iter().filter(|row| said(row) == row["genre"]).count();
    let from_audio = right(&|row| heard[&text(&row["track"])].clone());
    let from_mel = right(&|row| text(&row["predicted"]));
    note(format_args!("{from_audio} of 50 right from audio, {from_mel} from spectrograms"));
    assert!(from_audio.abs_diff(from_mel) <= TOLERATED);
    assert!(from_audio > 25, "the comparison means something only for a model that was trained");
}
