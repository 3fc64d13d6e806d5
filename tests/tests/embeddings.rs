//! Tracks that sound alike have embeddings that are close, however and whenever they were heard.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::path::Path;

use chorale_model::{ModelFolder, embedding::is_track_embedding};
use chorale_proto::v1::{ClassifyOptions, ClassifyRequest, Verdict};
use chorale_tests::{
    Client, Cluster, Server,
    command::{self, Answer},
    fixtures, note, sound,
    verdict::assert_coherent,
};

/// How far an embedding of equal audio may be from the other, whatever batches its chunks landed in.
const TOLERANCE: f32 = 1e-5;

fn wanting() -> ClassifyOptions {
    ClassifyOptions { want_embedding: true, ..ClassifyOptions::default() }
}

async fn heard(client: &Client) -> Verdict {
    let verdict = client.classify_with(fixtures::clip(), wanting()).await.unwrap();
    assert_coherent(&verdict);
    verdict
}

fn alikeness(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

fn assert_close(one: &[f32], other: &[f32]) {
    assert_eq!(one.len(), other.len());
    assert!(one.iter().zip(other).all(|(one, other)| (one - other).abs() < TOLERANCE), "{one:?} and {other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_the_same_from_every_call_and_from_the_cache() {
    let server = Server::start("up", &[]).await;
    let client = server.client().await;
    let plain = client.classify(fixtures::clip()).await.unwrap();
    assert!(plain.embedding.is_empty());
    let first = heard(&client).await;
    assert!(!first.cached, "what is known has none");
    assert_eq!(first.embedding.len(), ModelFolder::embedded().unwrap().embedding_length().unwrap());
    assert!(is_track_embedding(&first.embedding));
    assert_eq!(heard(&client).await, Verdict { cached: true, ..first.clone() });
    let again = client.classify(fixtures::clip()).await.unwrap();
    assert!(again.cached && again.embedding.is_empty());

    let anew = ClassifyOptions { bypass_cache: true, ..wanting() };
    let request = ClassifyRequest { options: Some(anew), audio: fixtures::clip() };
    let unary = client.rpc.clone().classify(request).await.unwrap().into_inner().verdict.unwrap();
    assert!(!unary.cached);
    assert_close(&unary.embedding, &first.embedding);
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_has_none() {
    let server = Server::start("up", &[]).await;
    let client = server.client().await;
    for cached in [false, true] {
        let verdict = client.classify_with(sound::wav(&sound::silence(6.0)), wanting()).await.unwrap();
        assert_eq!((verdict.cached, verdict.embedding.len()), (cached, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_comes_through_a_cluster_of_processes_and_from_its_redis() {
    let Some(cluster) = Cluster::start().await else { return };
    let client = cluster.gateway.client().await;
    let (first, second) = (heard(&client).await, heard(&client).await);
    assert_eq!(second, Verdict { cached: true, ..first.clone() });
    let alone = Server::start("up", &[]).await;
    assert_close(&heard(&alone.client().await).await.embedding, &first.embedding);
}

fn answers(arguments: &[&str], paths: &[impl AsRef<Path>]) -> Vec<Answer> {
    let paths = paths.iter().map(|path| path.as_ref().to_str().unwrap());
    command::run(arguments.iter().copied().chain(paths)).expect_code(0).answers()
}

#[test]
fn the_tool_prints_it_and_one_track_in_other_formats_is_its_nearest_neighbour() {
    let (formats, genres) = (fixtures::formats(), fixtures::genres());
    let paths: Vec<_> = formats.iter().chain(&genres).collect();
    let heard = answers(&["classify", "--json", "--embedding"], &paths);
    let embedding = |index: usize| heard[index].embedding.as_deref().unwrap();
    // The formats are a part of one of the genres.

    let of_clip = |index: usize| index < formats.len() || heard[index].path.ends_with("disco.mp3");
    for index in 0..formats.len() {
        let others = (0..heard.len()).filter(|other| *other != index);
        let nearest = others.max_by(|one, other| {
            let to = |other: &usize| alikeness(embedding(index), embedding(*other));
            to(one).total_cmp(&to(other))
        });
        assert!(of_clip(nearest.unwrap()), "{} is nearest to {}", heard[index].path, heard[nearest.unwrap()].path);
    }
    assert!(answers(&["classify", "--json"], &paths[..1])[0].embedding.is_none());
    let refused = command::run(["classify", "--embedding", "song.mp3"]).expect_code(2);
    assert!(refused.stderr.contains("--json"), "{}", refused.stderr);
}

#[test]
fn real_tracks_are_near_those_of_their_genre() {
    let Some(data) = fixtures::shared_data() else { return };
    let audio = data.join("gtzan-audio");
    let (heard, _) = command::run(["classify".as_ref(), "--json".as_ref(), "--embedding".as_ref(), audio.as_os_str()])
        .expect_code(0)
        .json_lines();
    let genre = |answer: &Answer| {
        Path::new(&answer.path).file_name().unwrap().to_str().unwrap().split('.').next().unwrap().to_owned()
    };
    let place = |answer: &Answer| answer.embedding.clone().unwrap();
    let nearest_is_alike = |of: &&Answer| {
        let others = heard.iter().filter(|other| other.path != of.path);
        let nearest = others.max_by(|one, other| {
            let to = |other: &Answer| alikeness(&place(of), &place(other));
            to(one).total_cmp(&to(other))
        });
        genre(nearest.unwrap()) == genre(of)
    };
    let alike = heard.iter().filter(nearest_is_alike).count();
    note(format_args!("the nearest of {} tracks is of the same genre for {alike}", heard.len()));
    // By chance, it is for 4 of 50.
    assert!(heard.len() == 50 && alike >= 30, "{alike} of {}", heard.len());
}
