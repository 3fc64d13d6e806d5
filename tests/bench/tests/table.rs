//! The benchmark runs from one end to the other. How fast anything is, is not asked here.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::process::Command;

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
    let (done, output) =
        bench(&["load", "--seconds", "1", "--streams", "4", "--shares", "20,40", "--json", json.to_str().unwrap()]);
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
    let (done, output) = bench(&["load", "--endpoint", "http://127.0.0.1:1"]);
    assert!(!done && output.contains("http://127.0.0.1:1"), "{output}");
}
