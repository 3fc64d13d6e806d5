//! What is like no music that the model knows is called unknown, and what it is nearest to is still told.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::path::Path;

use chorale_model::{Manifest, ModelFolder};
use chorale_tests::{
    Server,
    command::{self, Answer},
    fixtures,
    verdict::assert_coherent,
};

/// Writes the embedded model with another threshold to `folder`.
fn write_model(folder: &Path, unknown_below: f64) {
    let embedded = ModelFolder::embedded().unwrap();
    let manifest = Manifest { unknown_below, ..embedded.manifest().clone() };
    let model = ModelFolder::new(manifest, embedded.weights().clone(), String::new()).unwrap();
    model.save(folder).unwrap();
}

fn classify(model: &str, clip: &str) -> Answer {
    command::run(["classify", "--json", "--model", model, clip]).expect_code(0).answers().remove(0)
}

#[test]
fn a_threshold_hides_the_winner_and_nothing_else() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    let (never, nearly_always) = (path("never"), path("nearly-always"));
    write_model(Path::new(&never), 0.0);
    write_model(Path::new(&nearly_always), 0.999_999);
    let clip = fixtures::formats().remove(0);
    let clip = clip.to_str().unwrap();

    let known = classify(&never, clip);
    let unknown = classify(&nearly_always, clip);
    assert_eq!((known.nearest, unknown.genre.as_str()), (None, "unknown"));
    assert_eq!(unknown.nearest, Some(known.genre.clone()));
    assert_eq!((unknown.confidence, unknown.probabilities), (known.confidence, known.probabilities));
    assert_eq!((unknown.votes, unknown.segments), (known.votes, known.segments));
    assert_ne!(unknown.model, known.model, "the threshold is part of the version");

    let card = command::run(["classify", "--model", &nearly_always, clip]).expect_code(0).stdout;
    let words = format!("unknown: not like any music that the model knows; nearest is {}, ", known.genre);
    assert!(card.contains(&words), "{card}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_verdict_is_cached_like_any_other() {
    let scratch = tempfile::tempdir().unwrap();
    write_model(scratch.path(), 0.999_999);
    let server = Server::start("up", &["--model", scratch.path().to_str().unwrap()]).await;
    let client = server.client().await;
    let first = client.classify(fixtures::clip()).await.unwrap();
    assert_coherent(&first);
    assert_eq!((first.genre.as_str(), first.scores.len(), first.cached), ("unknown", 10, false));
    let again = client.classify(fixtures::clip()).await.unwrap();
    assert_eq!((again.genre.as_str(), again.scores, again.cached), ("unknown", first.scores, true));
}
