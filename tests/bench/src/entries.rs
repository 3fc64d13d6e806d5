//! The rows, their contenders, and what we want.

use std::{
    env::current_exe,
    ffi::{OsStr, OsString},
};

use crate::rows::{CONTENDER, Rival, Row, Setting, Start};

/// This program as a contender, with these words.
pub(crate) fn ours(words: &[&dyn AsRef<OsStr>]) -> Start {
    Start {
        // A name that is nothing is an error when it is started.
        program: current_exe().unwrap_or_default().into(),
        arguments: std::iter::once(OsString::from(CONTENDER))
            .chain(words.iter().map(|word| word.as_ref().to_owned()))
            .collect(),
    }
}

/// A script of the rivals, with these words.
pub(crate) fn python(setting: &Setting, script: &str, words: &[&dyn AsRef<OsStr>]) -> Start {
    Start {
        program: setting.python.clone().into(),
        arguments: std::iter::once(setting.rivals.join(script).into())
            .chain(words.iter().map(|word| word.as_ref().to_owned()))
            .collect(),
    }
}

/// Every row.
pub(crate) fn all(setting: &Setting) -> Vec<Row> {
    let audio = setting.audio.as_os_str();
    let (samples, chunks, model) = (setting.samples(), setting.chunks(), setting.model.as_os_str());
    let python = |script: &str, words: &[&dyn AsRef<OsStr>]| python(setting, script, words);
    let rival = |name, start, goal, tolerance| Rival { name, start, goal, tolerance, may_be_away: false };

    let mut rows = vec![
        Row {
            name: "mel".to_owned(),
            cores: 1,
            unit: ("track", 1.0),
            ours: ours(&[&"mel", &samples]),
            rivals: vec![
                rival("the transforms alone", ours(&[&"fft", &samples]), 1.0 / 1.5, None),
                rival("librosa", python("features.py", &[&"librosa", &"samples", &samples]), 1.0, Some(1.0)),
                rival("Essentia", python("features.py", &[&"essentia", &"samples", &samples]), 1.0, Some(4.0)),
            ],
        },
        Row {
            name: "features".to_owned(),
            cores: 1,
            unit: ("track", 1.0),
            ours: ours(&[&"features", &audio]),
            rivals: vec![
                rival("decoding alone", ours(&[&"decode", &audio]), 0.5, None),
                rival("librosa", python("features.py", &[&"librosa", &"file", &audio]), 10.0, Some(4.0)),
                rival("Essentia", python("features.py", &[&"essentia", &"file", &audio]), 1.5, Some(8.0)),
            ],
        },
        Row {
            name: "track".to_owned(),
            cores: 1,
            unit: ("track", 1.0),
            ours: ours(&[&"track", &model, &audio]),
            rivals: vec![
                rival("librosa + ONNX Runtime", python("track.py", &[&"onnxruntime", &audio, &model]), 5.0, Some(0.05)),
                rival("librosa + Keras seed CNN", python("track.py", &[&"keras", &audio, &model]), 20.0, None),
            ],
        },
    ];
    for (name, chunks_in_flight, batch, raw_goal) in [("saturated", 256, 32, 0.95), ("idle", 1, 1, 0.0)] {
        let (in_flight, batch) = (chunks_in_flight.to_string(), batch.to_string());
        let batches = if chunks_in_flight == 1 { "1" } else { "8" };
        rows.push(Row {
            name: format!("batching-{name}"),
            cores: 2,
            unit: ("chunk", f64::from(chunks_in_flight)),
            ours: ours(&[&"served", &model, &chunks, &in_flight]),
            rivals: vec![
                rival("the same with max_batch 1", ours(&[&"served", &model, &chunks, &in_flight, &"1"]), 1.0, None),
                rival("forward passes alone", ours(&[&"forward", &model, &chunks, &batch, &batches]), raw_goal, None),
            ],
        });
    }
    for cores in [1, 2] {
        for batch in [1, 8, 32] {
            let size = batch.to_string();
            let runtime = |name: &'static str, runtime: &str| {
                let start = python("forward.py", &[&runtime, &model, &chunks, &size, &cores.to_string()]);
                rival(name, start, 1.0, Some(1e-3))
            };
            rows.push(Row {
                name: format!("forward-{batch}-{cores}"),
                cores,
                unit: ("chunk", f64::from(batch)),
                ours: ours(&[&"forward", &model, &chunks, &size]),
                rivals: vec![runtime("ONNX Runtime", "onnxruntime"), runtime("OpenVINO", "openvino")],
            });
        }
    }
    rows
}
