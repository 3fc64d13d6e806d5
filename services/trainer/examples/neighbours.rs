//! What a model's embeddings are worth: `cargo run --release --example neighbours -- MODEL DATA [SPLIT]`.
//!
//! For every track of SPLIT (`valid`), by the inner product of embeddings, and beside it of probabilities:
//!
//! - the share of its five nearest neighbours that is of its genre, among all other tracks of `train` and SPLIT, and among
//!   those of `train` alone, where GTZAN's splits have no artist of SPLIT;
//! - whether its first half finds its second half among the second halves of all those tracks: as the first of all, or among
//!   the first five.

use std::{error::Error, path::Path};

use chorale_model::{Answer, Classifier, DeviceSpec, MeanEmbedding, ModelFolder, Votes};
use chorale_trainer::{Catalogue, Track};

const NEIGHBOURS: usize = 5;
const TRAIN: &str = "train";
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Where a model says that some chunks are, as vectors of length 1.
struct Place {
    embedding: Vec<f32>,
    probabilities: Vec<f32>,
}

/// A track, and its halves, which do not overlap.
struct Heard {
    track: Track,
    whole: Place,
    halves: [Place; 2],
}

/// Which of its vectors a place is taken for.
type Vector = fn(&Place) -> &[f32];

const VECTORS: [(&str, Vector); 2] =
    [("embedding", |place| &place.embedding), ("probabilities", |place| &place.probabilities)];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (model, data, split) = match arguments.as_slice() {
        [model, data] => (model, data, "valid"),
        [model, data, split] => (model, data, split.as_str()),
        _ => return Err("expected MODEL DATA [SPLIT]: a model, labelled tracks, and the split to look at".into()),
    };
    let classifier = Classifier::load(&ModelFolder::open(Some(Path::new(model)))?, DeviceSpec::Cpu)?;
    let catalogue = Catalogue::open(Path::new(data), 1)?;
    let tracks = catalogue.tracks().iter().filter(|track| track.split == TRAIN || track.split == split);
    let heard = tracks.map(|track| hear(&classifier, &catalogue, track)).collect::<Result<Vec<_>>>()?;
    let wanted: Vec<&Heard> = heard.iter().filter(|heard| heard.track.split == split).collect();
    let (name, version, all) = (classifier.name(), classifier.version(), heard.len());
    println!("{name} {version}: {} tracks of {split} among {all}", wanted.len());
    let percent = |shares: f64| 100.0 * shares / wanted.len().max(1) as f64;
    for (pool, elsewhere) in [("all others", false), (TRAIN, true)] {
        let pool_of = |of: &Heard| -> Vec<&Heard> {
            let other = |other: &&Heard| other.track.name != of.track.name;
            heard.iter().filter(other).filter(|other| !elsewhere || other.track.split == TRAIN).collect()
        };
        let chance = percent(wanted.iter().map(|of| same_genre(of, &pool_of(of))).sum());
        for (name, vector) in VECTORS {
            let nearest = |of: &Heard| nearest(vector(&of.whole), pool_of(of), |other| vector(&other.whole));
            let share = percent(wanted.iter().map(|of| same_genre(of, &nearest(of))).sum());
            println!("  neighbours of the same genre among {pool}, by {name}: {share:.1} % (by chance {chance:.1})");
        }
    }
    for (name, vector) in VECTORS {
        let rank = |of: &&Heard| {
            let [first, second] = of.halves.each_ref().map(vector);
            heard.iter().filter(|other| product(first, vector(&other.halves[1])) > product(first, second)).count()
        };
        let ranks: Vec<usize> = wanted.iter().map(rank).collect();
        let within = |most: usize| percent(ranks.iter().filter(|rank| **rank < most).count() as f64);
        let (first, among) = (within(1), within(NEIGHBOURS));
        println!(
            "  other halves found among {all}, by {name}: {first:.1} % as the first, {among:.1} among {NEIGHBOURS}"
        );
    }
    Ok(())
}

fn hear(classifier: &Classifier, catalogue: &Catalogue, track: &Track) -> Result<Heard> {
    let chunks = catalogue.chunks(track)?;
    let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
    let answers = classifier.answers(&chunks, true)?;
    let place =
        |answers: &[Answer]| place(answers).ok_or_else(|| format!("{}: too short, or no embedding", track.name));
    // Neighbouring chunks overlap.
    let middle = answers.len() / 2;
    let second = answers.get(middle + 1..).unwrap_or_default();
    Ok(Heard { track: track.clone(), whole: place(&answers)?, halves: [place(&answers[..middle])?, place(second)?] })
}

fn place(answers: &[Answer]) -> Option<Place> {
    let labels = answers.first()?.probabilities.len();
    let (mut embedding, mut votes, mut probabilities) =
        (MeanEmbedding::default(), Votes::new(labels), MeanEmbedding::default());
    for answer in answers {
        votes.add(&answer.probabilities);
        embedding.add(&answer.embedding).then_some(())?;
    }
    let voted: Vec<f32> = votes.probabilities().iter().map(|probability| *probability as f32).collect();
    probabilities.add(&voted).then_some(())?;
    Some(Place { embedding: embedding.of_track(), probabilities: probabilities.of_track() })
}

fn product(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

/// Those of `pool` that are the nearest.
fn nearest<'a>(to: &[f32], mut pool: Vec<&'a Heard>, vector: impl Fn(&Heard) -> &[f32]) -> Vec<&'a Heard> {
    pool.sort_by(|one, other| product(to, vector(other)).total_cmp(&product(to, vector(one))));
    pool.truncate(NEIGHBOURS);
    pool
}

/// The share of `others` that is of the genre of `of`.
fn same_genre(of: &Heard, others: &[&Heard]) -> f64 {
    let same = others.iter().filter(|other| other.track.genre == of.track.genre).count();
    same as f64 / others.len().max(1) as f64
}
