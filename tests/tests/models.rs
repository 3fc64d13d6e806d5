//! Models are switched, shared and rolled back while they serve, and what is broken is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chorale_model::{MANIFEST_FILE, ModelFolder, WEIGHTS_FILE};
use chorale_proto::{
    service_names::{CLASSIFIER, INFERENCE},
    v1::{ClassifyOptions, EventKind, GetModelRequest, Verdict, classify_stream_response::Event},
};
use chorale_tests::{Client, Server, client::reason, command, fixtures, sound, until, verdict::assert_same, workspace};
use tempfile::TempDir;
use tokio::time::timeout;
use tonic::Code;

const PATIENCE: Duration = Duration::from_secs(30);
const SWITCHED: &str = "chorale_inference_model_loads_total{result=\"switched\"}";
const REFUSED: &str = "chorale_inference_model_loads_total{result=\"refused\"}";

/// A folder with the two models of the binary as `v1` and `v2`.
struct Models {
    folder: TempDir,
}

impl Models {
    fn serving(set: &[(&str, u32)]) -> Self {
        let models = Self { folder: tempfile::tempdir().unwrap() };
        copy("default", &models.path("v1"));
        copy("small", &models.path("v2"));
        models.serve(set);
        models
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn argument(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    /// Writes another set, as an editor does: into a file of its own, which takes the place of the old one.
    fn serve(&self, set: &[(&str, u32)]) {
        let entry = |(model, weight): &(&str, u32)| format!("[[serve]]\nmodel = \"{model}\"\nweight = {weight}\n\n");
        fs::write(self.path("new"), set.iter().map(entry).collect::<String>()).unwrap();
        fs::rename(self.path("new"), self.path("serving.toml")).unwrap();
    }
}

/// Copies an embedded model from where it is committed.
fn copy(model: &str, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in [MANIFEST_FILE, WEIGHTS_FILE] {
        fs::copy(workspace().join("deploy/models").join(model).join(file), to.join(file)).unwrap();
    }
}

/// The versions of `v1` and `v2`.
fn versions() -> (String, String) {
    let of = |folder: ModelFolder| folder.manifest().version.clone();
    (of(ModelFolder::embedded().unwrap()), of(ModelFolder::embedded_small().unwrap()))
}

fn anew() -> ClassifyOptions {
    ClassifyOptions { bypass_cache: true, ..ClassifyOptions::default() }
}

fn pinned(version: &str) -> ClassifyOptions {
    ClassifyOptions { model_version: version.to_owned(), ..ClassifyOptions::default() }
}

/// The versions that are served and their weights, the heaviest first.
async fn served(client: &Client) -> Vec<(String, u32)> {
    let answer = client.rpc.clone().get_model(GetModelRequest {}).await.unwrap().into_inner();
    let served: Vec<_> =
        answer.models.into_iter().map(|served| (served.model.unwrap().version, served.weight)).collect();
    assert_eq!(answer.model.unwrap().version, served[0].0, "the model is the heaviest one");
    served
}

async fn until_served(client: &Client, set: &[(&str, u32)]) {
    until("another set is served", PATIENCE, async || {
        let found = served(client).await;
        found.iter().map(|(version, weight)| (version.as_str(), *weight)).eq(set.iter().copied()).then_some(())
    })
    .await;
}

/// A cluster of inference workers with arguments of their own.
struct Cluster {
    inference: Vec<Server>,
    feature: Server,
    gateway: Server,
}

impl Cluster {
    async fn start(workers: &[&[&str]]) -> Self {
        let mut inference = Vec::new();
        for arguments in workers {
            let worker = Server::start("inference", arguments).await;
            worker.serving(INFERENCE).await;
            inference.push(worker);
        }
        let endpoints = inference.iter().map(Server::endpoint).collect::<Vec<_>>().join(",");
        let feature = Server::start("feature", &["--inference", &endpoints]).await;
        let gateway = Server::start("gateway", &["--feature", feature.endpoint()]).await;
        gateway.serving(CLASSIFIER).await;
        Self { inference, feature, gateway }
    }
}

/// Callers that classify one track again and again; every call must be answered, by one of the models that are expected, with
/// what that one says.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<Mutex<BTreeMap<String, usize>>>,
    callers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    async fn start(gateway: &Server, expected: Vec<Verdict>) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(BTreeMap::new())));
        let mut callers = Vec::new();
        for _ in 0..4 {
            let (client, expected) = (gateway.client().await, expected.clone());
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            callers.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let call = client.classify_with(fixtures::clip(), anew());
                    let verdict =
                        timeout(PATIENCE, call).await.expect("no call hangs").expect("every call is answered");
                    let of_its_model =
                        expected.iter().find(|expected| expected.model_version == verdict.model_version).unwrap();
                    assert_same(&verdict, of_its_model);
                    *answered.lock().unwrap().entry(verdict.model_version).or_insert(0) += 1;
                }
            }));
        }
        Self { stop, answered, callers }
    }

    /// Waits until `version` has answered so many more calls.
    async fn answers_of(&self, version: &str, more: usize) {
        let count = || self.answered.lock().unwrap().get(version).copied().unwrap_or(0);
        let before = count();
        until("the version answers", PATIENCE, async || (count() >= before + more).then_some(())).await;
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await.expect("every call was answered as its model answers");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn switching_and_rolling_back_under_load_costs_no_verdict() {
    let models = Models::serving(&[("v1", 1), ("v2", 0)]);
    let arguments: &[&str] = &["--models", models.argument()];
    let cluster = Cluster::start(&[arguments, arguments]).await;
    let client = cluster.gateway.client().await;
    let (v1, v2) = versions();
    let mut expected = Vec::new();
    for version in [&v1, &v2] {
        expected.push(client.classify_with(fixtures::clip(), pinned(version)).await.unwrap());
    }
    let load = Load::start(&cluster.gateway, expected).await;
    load.answers_of(&v1, 8).await;
    for (name, version) in [("v2", &v2), ("v1", &v1), ("v2", &v2)] {
        models.serve(&[(name, 1)]);
        until_served(&client, &[(version, 1)]).await;
        load.answers_of(version, 8).await;
    }
    load.end().await;
    for worker in &cluster.inference {
        until("every worker has switched", PATIENCE, async || (worker.metric(SWITCHED)? >= 3.0).then_some(())).await;
        assert_eq!(worker.metric(REFUSED), Some(0.0));
        let weight = |name: &str, version: &str| {
            worker.metric(&format!("chorale_inference_model_info{{name=\"{name}\",version=\"{version}\"}}"))
        };
        assert_eq!(weight("chorale-gtzan-small", &v2), Some(1.0));
        assert_eq!(weight("chorale-gtzan", &v1), Some(0.0), "it lingers");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_track_under_way_is_finished_by_the_model_that_began_it_which_then_goes() {
    let models = Models::serving(&[("v1", 1)]);
    // Much longer than a gateway takes to learn of the switch.
    let linger = [("CHORALE_INFERENCE__MODEL_LINGER", "12s")];
    let server = Server::start_with("up", &["--models", models.argument()], &linger).await;
    let client = server.client().await;
    let (v1, v2) = versions();
    let track = sound::wav(&sound::chord(16.0, 1));
    let before = client.classify_with(track.clone(), anew()).await.unwrap();
    let mut upload =
        client.upload(ClassifyOptions { events: vec![EventKind::ChunkVote.into()], ..anew() }).await.unwrap();
    upload.send(track.slice(..track.len() / 2)).await;
    while !matches!(upload.event().await.unwrap(), Some(Event::ChunkVote(_))) {}

    models.serve(&[("v2", 1)]);
    until_served(&client, &[(&v2, 1)]).await;
    assert_eq!(client.classify_with(track.clone(), anew()).await.unwrap().model_version, v2);
    upload.send(track.slice(track.len() / 2..)).await;
    let verdict = upload.verdict().await.unwrap();
    assert_eq!(verdict.model_version, v1);
    assert_same(&verdict, &before);
    until("the old model is let go", PATIENCE, async || (!server.metrics().contains(&v1_info(&v1))).then_some(()))
        .await;
}

fn v1_info(version: &str) -> String {
    format!("chorale_inference_model_info{{name=\"chorale-gtzan\",version=\"{version}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_gets_its_share_and_every_track_keeps_its_version() {
    const TRACKS: u64 = 40;
    let models = Models::serving(&[("v1", 50), ("v2", 50)]);
    let server = Server::start("up", &["--models", models.argument()]).await;
    let client = server.client().await;
    let (v1, v2) = versions();
    let tracks: Vec<_> = (0..TRACKS).map(|seed| sound::wav(&sound::chord(2.0, seed))).collect();
    let choices = async || {
        let mut versions = Vec::new();
        for track in &tracks {
            let digest = blake3::hash(track).as_bytes().to_vec();
            let options = ClassifyOptions { blake3_digest: digest.into(), ..anew() };
            versions.push(client.classify_with(track.clone(), options).await.unwrap().model_version);
        }
        versions
    };
    let canaries = |choices: &[String]| choices.iter().filter(|version| **version == v2).count();
    let first = choices().await;
    assert!(first.iter().all(|version| [&v1, &v2].contains(&version)));
    assert!((8..=32).contains(&canaries(&first)), "{} of {TRACKS}", canaries(&first));
    assert_eq!(choices().await, first, "every track keeps its version");

    models.serve(&[("v1", 90), ("v2", 10)]);
    until_served(&client, &[(&v1, 90), (&v2, 10)]).await;
    let fewer = choices().await;
    assert!(canaries(&fewer) < canaries(&first));
    assert!(first.iter().zip(&fewer).all(|(first, fewer)| first == fewer || *fewer == v1), "none moves to the canary");
    let counted = |version: &str| {
        server.metric(&format!("chorale_gateway_model_verdicts_total{{version=\"{version}\"}}")).unwrap()
    };
    assert_eq!(counted(&v1) + counted(&v2), 3.0 * TRACKS as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_model_is_refused_and_the_old_one_serves_on_until_it_is_mended() {
    let models = Models::serving(&[("v1", 1)]);
    let server = Server::start("up", &["--models", models.argument()]).await;
    let client = server.client().await;
    let (v1, v2) = versions();
    let weights = fs::read(models.path("v2").join(WEIGHTS_FILE)).unwrap();
    fs::write(models.path("v2").join(WEIGHTS_FILE), &weights[..weights.len() / 2]).unwrap();
    models.serve(&[("v1", 1), ("v2", 9)]);
    let refusals = async |count: f64| {
        until("the set is refused", PATIENCE, async || (server.metric(REFUSED)? == count).then_some(())).await;
        assert_eq!(client.classify_with(fixtures::clip(), anew()).await.unwrap().model_version, v1);
        assert_eq!(served(&client).await, [(v1.clone(), 1)]);
        assert_eq!(server.readyz().unwrap(), 200);
    };
    refusals(1.0).await;
    fs::write(models.path("serving.toml"), "[[serve]]\nfolder = \"v2\"\n").unwrap();
    refusals(2.0).await;
    fs::remove_file(models.path("serving.toml")).unwrap();
    refusals(3.0).await;
    models.serve(&[("v1", 1), ("v2", 9)]);
    refusals(4.0).await;

    fs::write(models.path("v2").join(WEIGHTS_FILE), &weights).unwrap();
    until_served(&client, &[(&v2, 9), (&v1, 1)]).await;
    assert_eq!(client.classify_with(fixtures::clip(), anew()).await.unwrap().model_version, v2);
    assert_eq!((server.metric(REFUSED), server.metric(SWITCHED)), (Some(4.0), Some(1.0)));
}

#[test]
fn a_folder_that_cannot_be_served_is_an_error_at_the_start() {
    let models = Models::serving(&[("v1", 1), ("v3", 1)]);
    let start = |role: &str| {
        let ports = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-level", "error"];
        command::run([role, "--models", models.argument()].into_iter().chain(ports))
    };
    for role in ["up", "inference"] {
        let missing = start(role).expect_code(1);
        assert_eq!(missing.stdout, "");
        assert!(missing.stderr.contains("serving.toml") && missing.stderr.contains("`v3`"), "{}", missing.stderr);
    }
    fs::remove_file(models.path("serving.toml")).unwrap();
    let unsaid = start("inference").expect_code(1).stderr;
    assert!(unsaid.contains("serve = [{ model = \"default\", weight = 100 }]"), "it says what to write: {unsaid}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cached_verdict_is_an_answer_of_its_own_model_only() {
    let models = Models::serving(&[("v1", 2), ("v2", 1)]);
    let server = Server::start("up", &["--models", models.argument()]).await;
    let client = server.client().await;
    let (v1, v2) = versions();
    let mut verdicts = Vec::new();
    for (version, cached) in [(&v1, false), (&v2, false), (&v1, true), (&v2, true)] {
        let verdict = client.classify_with(fixtures::clip(), pinned(version)).await.unwrap();
        assert_eq!((&verdict.model_version, verdict.cached), (version, cached));
        verdicts.push(verdict);
    }
    assert_same(&verdicts[0], &verdicts[2]);
    assert_ne!(verdicts[0].scores, verdicts[1].scores);
    let by_default = async || client.classify(fixtures::clip()).await.unwrap();
    assert_eq!(by_default().await, verdicts[2], "the heaviest");
    models.serve(&[("v2", 1)]);
    until_served(&client, &[(&v2, 1)]).await;
    assert_eq!(by_default().await, verdicts[3]);

    let refusal = client.classify_with(fixtures::clip(), pinned(&v1)).await.unwrap_err();
    assert_eq!((refusal.code(), reason(&refusal).as_str()), (Code::FailedPrecondition, "MODEL_UNKNOWN"), "{refusal}");
    assert!(refusal.message().contains(&v2), "it says what is served: {refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_for_a_version_go_to_the_workers_that_have_it() {
    let (both, one) = (Models::serving(&[("v1", 9), ("v2", 1)]), Models::serving(&[("v1", 1)]));
    let (both, one): (&[&str], &[&str]) = (&["--models", both.argument()], &["--models", one.argument()]);
    let cluster = Cluster::start(&[both, one, both]).await;
    let client = cluster.gateway.client().await;
    let (v1, v2) = versions();
    assert_eq!(served(&client).await, [(v1.clone(), 9), (v2.clone(), 1)], "what most workers serve");
    for version in [&v2, &v1] {
        for seed in 0..8 {
            let track = sound::wav(&sound::chord(9.0, seed));
            let options = ClassifyOptions { model_version: version.clone(), ..anew() };
            assert_eq!(client.classify_with(track, options).await.unwrap().model_version, *version);
        }
    }
    assert!(cluster.feature.metric("chorale_feature_dispatch_retries_total{reason=\"lacking\"}") > Some(0.0));
    let chunks = |result: &str| {
        cluster.inference[1].metric(&format!("chorale_inference_chunks_total{{result=\"{result}\"}}")).unwrap()
    };
    assert!(chunks("MODEL_UNKNOWN") > 0.0 && chunks("OK") > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_with_another_model_costs_no_verdict() {
    let folder = tempfile::tempdir().unwrap();
    copy("default", folder.path());
    let arguments: &[&str] = &["--model", folder.path().to_str().unwrap()];
    let mut cluster = Cluster::start(&[arguments, arguments]).await;
    let client = cluster.gateway.client().await;
    let (v1, v2) = versions();
    let small = Server::start("up", &["--model", "small"]).await;
    let expected = vec![
        client.classify_with(fixtures::clip(), anew()).await.unwrap(),
        small.client().await.classify(fixtures::clip()).await.unwrap(),
    ];
    drop(small);
    let load = Load::start(&cluster.gateway, expected).await;
    load.answers_of(&v1, 8).await;
    copy("small", folder.path());
    for worker in &mut cluster.inference {
        worker.terminate();
        assert!(worker.ended().await.success());
        worker.restart().await;
        worker.serving(INFERENCE).await;
    }
    load.answers_of(&v2, 8).await;
    load.end().await;
}
