//! What a chunk costs to compute, whatever the machine.

use candle_core::Device;

use crate::{
    Architecture, EnsembleShape, Member, Result, SeedCnn, Weights,
    architecture::{BANDS, FrontPart, FrontShape},
    bands::Bands,
    contract::CHUNK_FRAMES,
    ensemble::{front_channels, members, pooled_features, tells_music},
    filter_bank::Filter,
    front::part_filters,
};

/// Multiplications with an addition in one chunk's way through `weights` with `labels` labels: those of the bands, of
/// every filter that does not answer with a constant, at every place that it looks at, and of the dense layers. What is
/// added to make products larger or to fold a normalisation in is not counted.
pub(crate) fn multiply_accumulates(architecture: Architecture, weights: &Weights, labels: usize) -> Result<u64> {
    let products = match architecture.ensemble() {
        Some(shape) => front(weights, shape.front)? + ensemble(weights, shape, labels)?,
        None => SeedCnn::multiply_accumulates(labels),
    };
    Ok(products as u64)
}

/// The bands and the front end.
fn front(weights: &Weights, shape: FrontShape) -> Result<usize> {
    let part = |part| -> Result<usize> {
        Ok(taps(&part_filters(weights, part)?) * places(part) * (CHUNK_FRAMES / shape.step))
    };
    let parts = shape.parts().map(part).sum::<Result<usize>>()?;
    Ok(Bands::new(weights, &Device::Cpu)?.multiply_accumulates() + parts)
}

/// The interpolation, from two frames each, and all members.
fn ensemble(weights: &Weights, shape: EnsembleShape, labels: usize) -> Result<usize> {
    let channels = front_channels(weights)?;
    let tensor = |(name, size): &(&str, Vec<usize>)| match size.len() {
        1 => 0,
        _ if name.starts_with("mid.") => size.iter().product::<usize>() * shape.frames,
        _ => size.iter().product(),
    };
    let member: usize = Member::tensors(shape, channels, labels).iter().map(tensor).sum();
    let music = if tells_music(weights) { pooled_features(channels) } else { 0 };
    Ok(2 * channels * shape.frames + members(weights)? * member + music)
}

/// Cells of the kernels that have to be computed.
fn taps(filters: &[Filter]) -> usize {
    filters.iter().filter(|filter| !filter.is_constant()).map(|filter| filter.kernel.len()).sum()
}

/// Positions of a filter among the bands.
const fn places(part: FrontPart) -> usize {
    BANDS + 1 - part.bands
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Array, ModelFolder};

    #[test]
    fn every_product_is_counted_once() {
        // Frames of the front end, taps of its timbral filters, frames and taps of the members.
        for (model, heard, short, frames, taps) in
            [(ModelFolder::embedded().unwrap(), 96, 5, 248, 7), (ModelFolder::embedded_small().unwrap(), 48, 3, 96, 3)]
        {
            let (labels, weights) = (model.manifest().labels.len(), model.weights());
            let filters = |part: &str| weights.length(&format!("front.{part}.conv.bias")).unwrap();
            let timbral = short * (38 * 59 * filters("timbral_low") + 67 * 30 * filters("timbral_high"));
            let temporal =
                51 * filters("temporal_long") + 26 * filters("temporal_medium") + 14 * filters("temporal_short");
            // Each of the 96 bands lies between two of ours.
            let front = 96 * 96 * 2 + heard * (timbral + 96 * temporal);
            let channels = front_channels(weights).unwrap();
            let pooled = 2 * (channels + 3 * 64);
            let member = frames * 64 * taps * (channels + 1 + 64 + 64) + 200 * pooled + labels * (200 + pooled);
            let expected = front + 2 * channels * frames + members(weights).unwrap() * member;
            let expected = expected + if tells_music(weights) { pooled } else { 0 };
            assert_eq!(model.multiply_accumulates().unwrap(), expected as u64, "{}", model.manifest().name);
        }
    }

    #[test]
    fn the_small_model_costs_at_most_a_fifth_of_the_default() {
        let cost = |model: ModelFolder| model.multiply_accumulates().unwrap();
        assert!(5 * cost(ModelFolder::embedded_small().unwrap()) <= cost(ModelFolder::embedded().unwrap()));
    }

    #[test]
    fn filters_that_answer_with_a_constant_cost_nothing() {
        let model = ModelFolder::embedded().unwrap();
        let mut weights = model.weights().clone();
        let name = "front.timbral_low.conv.weight";
        let (_, array) = model.weights().iter().find(|(known, _)| *known == name).unwrap();
        weights.insert(name, Array::new(array.shape(), vec![0.0; array.values().len()]).unwrap());
        let cost = multiply_accumulates(Architecture::Ensemble, &weights, 10).unwrap();
        assert_eq!(model.multiply_accumulates().unwrap() - cost, (96 * 5 * 38 * 59 * array.shape()[0]) as u64);
    }

    #[test]
    fn seed_cnn_costs_what_its_layers_do() {
        let pairs = [(1, 32), (32, 64), (64, 128), (128, 256), (256, 512)];
        let convolutions: usize = (pairs.iter().enumerate())
            .map(|(pair, (inputs, outputs))| 9 * (inputs * outputs + outputs * outputs) * ((128 * 96) >> (2 * pair)))
            .sum();
        assert_eq!(SeedCnn::multiply_accumulates(10), convolutions + 512 * 4 * 3 * 1_200 + 1_200 * 10);
    }
}
