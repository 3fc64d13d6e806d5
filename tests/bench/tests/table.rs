//! The benchmark runs from one end to the other. How fast anything is, is not asked here.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::process::Command;

use chorale_tests::skip_without_tool;
use serde_json::Value;

fn bench(arguments: &[&str]) -> (bool, String) {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let bench = Command::new(env!("CARGO_BIN_EXE_chorale-bench")).args(arguments).current_dir(root).output().unwrap();
    (bench.status.success(), String::from_utf8(bench.stdout).unwrap() + &String::from_utf8(bench.stderr).unwrap())
}

#[test]
fn every_row_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("results.json");
    let (done, output) = bench(&["--own", "--turns", "2", "--turn", "1", "--json", json.to_str().unwrap()]);
    assert!(done, "{output}");
    let results: Vec<Value> = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let (listed, list) = bench(&["--list"]);
    assert!(listed);
    for result in &results {
        let name = result["name"].as_str().unwrap();
        assert!(result["our_seconds"].as_f64().unwrap() > 0.0, "{name}");
        assert!(output.contains(&format!("{name}, ")) && list.contains(&format!("{name}, ")));
    }
    assert_eq!(results.len(), list.lines().filter(|line| !line.starts_with(' ')).count());
    let transforms = &results.iter().find(|result| result["name"] == "mel").unwrap()["rivals"][0];
    assert!(transforms["ratio"][1].as_f64().unwrap() > 0.0);
}

#[test]
fn a_device_is_measured_by_size_of_batch() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("gpu.json");
    let mut arguments = vec!["gpu", "--device", "cpu", "--own", "--turns", "2", "--turn", "1", "--batches", "1,3"];
    arguments.extend(["--json", json.to_str().unwrap()]);
    let (done, output) = bench(&arguments);
    assert!(done && output.contains("saturated by batches of"), "{output}");
    let result: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert!(result["peak_operations"].as_f64() > Some(0.0));
    for (batch, chunks) in result["batches"].as_array().unwrap().iter().zip([1, 3]) {
        assert_eq!(batch["chunks"], chunks);
        assert!(batch["share"].as_f64() > Some(0.0));
        assert!(output.contains(&format!("gpu-{chunks}, ")), "{output}");
    }
    // No build of the tests has CUDA.
    let (done, output) = bench(&["gpu"]);
    assert!(done && output.contains("cuda:0: left out") && output.contains("--features cuda"), "{output}");
}

#[test]
fn what_cannot_be_measured_is_said() {
    let (done, output) = bench(&["nonsense", "--own"]);
    assert!(!done && output.contains("--list"), "{output}");
    let (done, output) = bench(&["forward-1-1", "--python", "/nowhere/python"]);
    assert!(!done && output.contains("/nowhere/python"), "{output}");
    let (done, output) = bench(&["mel", "--own", "--audio", "nowhere.mp3"]);
    assert!(!done && output.contains("nowhere.mp3"), "{output}");
}

#[test]
fn a_server_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("load.json");
    let plot = folder.path().join("load.svg");
    let mut arguments = vec!["load", "--seconds", "1", "--streams", "4", "--shares", "20,40"];
    arguments.extend(["--json", json.to_str().unwrap(), "--plot", plot.to_str().unwrap()]);
    let (done, output) = bench(&arguments);
    assert!(done, "{output}");
    assert!(output.contains("4 calls at a time") && output.contains(" 40 % of that"), "{output}");
    let results: Vec<Value> = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let [result] = results.as_slice() else { panic!("expected ours alone, found {results:?}") };
    let number = |value: &Value| value.as_f64().unwrap();
    assert!(number(&result["most_per_second"]) > 0.0);
    for load in result["loads"].as_array().unwrap() {
        let latency = &load["latency"];
        assert!(
            number(&latency["p50"]) <= number(&latency["p99"]) && number(&latency["p99"]) <= number(&latency["most"])
        );
        assert_eq!(load["refused"], 0);
    }
    let plot = std::fs::read_to_string(plot).unwrap();
    let lines = plot.matches("<polyline").count();
    assert!(lines >= 2 && plot.contains("chorale: half wait no longer"), "{plot}");

    let (done, output) = bench(&["load", "--endpoint", "http://127.0.0.1:1"]);
    assert!(!done && output.contains("http://127.0.0.1:1"), "{output}");
}

#[test]
fn known_verdicts_and_memory_are_measured() {
    if Command::new("redis-benchmark").arg("--version").output().is_err() {
        return skip_without_tool("redis-benchmark", "apt-get install redis-tools");
    }
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("results.json");
    let json = json.to_str().unwrap();
    let results = || serde_json::from_slice::<Value>(&std::fs::read(json).unwrap()).unwrap();
    let positive = |value: &Value| value.as_f64().unwrap() > 0.0;

    let quick = ["--turns", "1", "--lookups", "50", "--streams", "4", "--seconds", "1", "--json", json];
    let (done, output) = bench(&[["cached"].as_slice(), &quick].concat());
    assert!(done, "{output}");
    let cached = results();
    for key in ["lookup_p50", "redis_p50", "upload_p50", "value_bytes", "per_second", "per_core_second"] {
        assert!(positive(&cached[key]), "{key}: {cached}");
    }

    let (done, output) = bench(&["memory", "--streams", "4", "--hours", "0.05", "--json", json]);
    assert!(done, "{output}");
    for (role, held) in ["gateway", "feature"].iter().zip(results().as_array().unwrap()) {
        assert_eq!(held["role"], *role);
        assert!(["idle", "with_streams", "early", "late"].iter().all(|key| positive(&held[key])), "{held}");
    }
}
