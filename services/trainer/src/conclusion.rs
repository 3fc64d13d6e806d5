//! What is fitted to an ensemble after it has learnt: in closed form, to the features that it has come to.

use candle_core::Device;
use chorale_model::{Array, Ensemble, EnsembleShape, MUSIC_BIAS, MUSIC_WEIGHT, Weights, member_tensor};
use rayon::prelude::*;

use crate::{Examples, Result, discriminant::Discriminant};

/// Chunks that go through a GPU together: bounds memory.
const GPU_CHUNKS: usize = 64;
/// How far correlations are drawn to 0 where genres are told from each other.
const GENRE_SHRINKAGE: f64 = 0.1;
/// The same where music is told from what is none.
const MUSIC_SHRINKAGE: f64 = 0.01;

/// Adds `share` of a linear discriminant analysis of its own features to every member's logits. Where there are chunks
/// that are no music, the ensemble can tell them from music afterwards.
///
/// # Errors
/// Where the device fails, or features are not finite.
pub(crate) fn conclude(
    weights: &mut Weights,
    shape: EnsembleShape,
    train: &Examples,
    not_music: &[Vec<u8>],
    share: f64,
    device: &Device,
) -> Result<()> {
    let ensemble = Ensemble::new(weights, shape, train.labels(), device)?;
    let music = features(&ensemble, &train.chunks().collect::<Vec<_>>(), device)?;
    let genres = train.chunk_genres();
    for (member, features) in music.iter().enumerate() {
        let [weight, bias] = Discriminant::fit(features, &genres, train.labels(), GENRE_SHRINKAGE)?.arrays(share)?;
        for (name, more) in [("shortcut.weight", weight), ("genres.bias", bias)] {
            let name = member_tensor(member, name);
            let known = weights.get(&name, more.shape())?;
            let sum = known.values().iter().zip(more.values()).map(|(known, more)| known + more).collect();
            weights.insert(&name, Array::new(more.shape(), sum)?);
        }
    }
    if let (Some(music), false) = (music.into_iter().next(), not_music.is_empty()) {
        let not_music: Vec<&[u8]> = not_music.iter().map(Vec::as_slice).collect();
        let not_music = features(&ensemble, &not_music, device)?.into_iter().next().unwrap_or_default();
        let classes: Vec<usize> = not_music.iter().map(|_| 0).chain(music.iter().map(|_| 1)).collect();
        let rows = [not_music, music].concat();
        let [weight, bias] = Discriminant::fit(&rows, &classes, 2, MUSIC_SHRINKAGE)?.second_against_first()?;
        weights.insert(MUSIC_WEIGHT, weight);
        weights.insert(MUSIC_BIAS, bias);
    }
    Ok(())
}

/// `[member][chunk][feature]`
fn features(ensemble: &Ensemble, chunks: &[&[u8]], device: &Device) -> Result<Vec<Vec<Vec<f32>>>> {
    let hear = |chunks: &[&[u8]]| -> Result<Vec<Vec<Vec<f32>>>> {
        ensemble.features(chunks)?.iter().map(|features| Ok(features.to_vec2()?)).collect()
    };
    // Cores share the chunks; a GPU has one queue.
    let heard: Result<Vec<_>> = match device {
        Device::Cpu => chunks.par_chunks(1).map(hear).collect(),
        _ => chunks.chunks(GPU_CHUNKS).map(hear).collect(),
    };
    let mut members: Vec<Vec<Vec<f32>>> = Vec::new();
    for batch in heard? {
        members.resize(batch.len(), Vec::new());
        members.iter_mut().zip(batch).for_each(|(member, rows)| member.extend(rows));
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use chorale_model::{Architecture, Classifier, DeviceSpec, Manifest, ModelFolder, contract::CHUNK_CELLS};
    use rand::RngExt;

    use super::*;
    use crate::{ChunkedTrack, chance::source, metrics::greatest};

    const TRACKS: u64 = 8;

    /// Noise in which `bands` are louder.
    fn chunk(bands: std::ops::Range<usize>, index: u64) -> Vec<u8> {
        let mut random = source(1, &format!("{bands:?}"), index);
        let loud = |cell: usize| if bands.contains(&(cell / 96)) { 160 } else { 60 };
        (0..CHUNK_CELLS).map(|cell| loud(cell) + random.random_range(0..90)).collect()
    }

    fn examples(labels: &[String], first: u64) -> Examples {
        let tracks = labels.iter().enumerate().flat_map(|(genre, label)| {
            (first..first + TRACKS).map(move |index| ChunkedTrack {
                name: format!("{label} {index}"),
                genre: label.clone(),
                chunks: vec![chunk(12 * genre..12 * genre + 8, index)],
            })
        });
        Examples::new(tracks.collect(), labels).unwrap()
    }

    fn concluded(share: f64, not_music: &[Vec<u8>]) -> Weights {
        let small = ModelFolder::embedded_small().unwrap();
        let mut weights = small.weights().clone();
        weights.remove(MUSIC_WEIGHT);
        weights.remove(MUSIC_BIAS);
        let train = examples(&small.manifest().labels, 0);
        let shape = Architecture::Small.ensemble().unwrap();
        conclude(&mut weights, shape, &train, not_music, share, &Device::Cpu).unwrap();
        weights
    }

    fn classifier(weights: Weights) -> Classifier {
        let manifest = Manifest { unknown_below: 0.0, ..ModelFolder::embedded_small().unwrap().manifest().clone() };
        let model = ModelFolder::new(manifest, weights, String::new()).unwrap();
        Classifier::load(&model, DeviceSpec::Cpu).unwrap()
    }

    #[test]
    fn new_genres_are_told_apart_as_far_as_the_analysis_has_a_say() {
        let labels = ModelFolder::embedded_small().unwrap().manifest().labels.clone();
        let others = examples(&labels, TRACKS);
        let right = |share| {
            let classifier = classifier(concluded(share, &[]));
            let logits = classifier.logits(&others.chunks().collect::<Vec<_>>()).unwrap();
            assert!(logits.iter().all(|logits| logits.music == f32::INFINITY));
            let genres = others.chunk_genres();
            logits.iter().zip(genres).filter(|(logits, genre)| greatest(&logits.genres) == *genre).count()
        };
        let all = others.chunk_count();
        assert!(right(0.0) < all / 2 && right(1.0) > all * 9 / 10, "{} {} {all}", right(0.0), right(1.0));
    }

    #[test]
    fn what_is_no_music_is_told_from_music() {
        let labels = ModelFolder::embedded_small().unwrap().manifest().labels.clone();
        let noise = |first: u64| (first..first + 60).map(|index| chunk(0..128, index)).collect::<Vec<_>>();
        let classifier = classifier(concluded(0.2, &noise(0)));
        let odds = |chunks: &[&[u8]]| {
            classifier.logits(chunks).unwrap().iter().map(|logits| logits.music).collect::<Vec<f32>>()
        };
        let music = odds(&examples(&labels, TRACKS).chunks().collect::<Vec<_>>());
        let other = odds(&noise(60).iter().map(Vec::as_slice).collect::<Vec<_>>());
        assert!(music.iter().all(|odds| *odds > 0.0) && other.iter().all(|odds| *odds < 0.0), "{music:?} {other:?}");
    }
}
