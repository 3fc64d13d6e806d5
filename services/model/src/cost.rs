//! What a chunk costs to compute, whatever the machine.

use crate::{
    Architecture, EMBEDDING_FEATURES, EnsembleShape, Member, POOLED_FEATURES, Result, SeedCnn, Weights,
    architecture::{BANDS, FrontPart, MID_LAYERS, TEMPORAL, TIMBRAL},
    backbone::mid_filters,
    contract::{CHUNK_FRAMES, MEL_BANDS},
    ensemble::{front_channels, members},
    filter_bank::Filter,
    front::{FrontSteps, part_filters},
};

/// Multiplications with an addition in one chunk's way through `weights` with `labels` labels: those of the adapter, of
/// every filter that does not answer with a constant, at every place that it looks at, and of the dense layers. What is
/// added to make products larger or to fold a normalisation in is not counted.
pub(crate) fn multiply_accumulates(architecture: Architecture, weights: &Weights, labels: usize) -> Result<u64> {
    let products = match (architecture, architecture.ensemble()) {
        (_, Some(shape)) => front(weights, shape.steps)? + ensemble(weights, shape, labels)?,
        (Architecture::SeedCnn, _) => SeedCnn::multiply_accumulates(labels),
        _ => front(weights, FrontSteps::ALL)? + musicnn(weights, labels)?,
    };
    Ok(products as u64)
}

/// The adapter and the front end.
fn front(weights: &Weights, steps: FrontSteps) -> Result<usize> {
    let part = |part| -> Result<usize> {
        Ok(taps(&part_filters(weights, part)?) * places(part, steps) * (CHUNK_FRAMES / steps.frames))
    };
    let parts = TIMBRAL.into_iter().chain(TEMPORAL).map(part).sum::<Result<usize>>()?;
    Ok(BANDS * MEL_BANDS * CHUNK_FRAMES + parts)
}

/// The layers after the front end, and the head.
fn musicnn(weights: &Weights, labels: usize) -> Result<usize> {
    let layer = |layer| -> Result<usize> { Ok(taps(&mid_filters(weights, layer)?) * CHUNK_FRAMES) };
    let middle = (0..MID_LAYERS).map(layer).sum::<Result<usize>>()?;
    Ok(middle + POOLED_FEATURES * EMBEDDING_FEATURES + EMBEDDING_FEATURES * labels)
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
    Ok(2 * channels * shape.frames + members(weights)? * member)
}

/// Cells of the kernels that have to be computed.
fn taps(filters: &[Filter]) -> usize {
    filters.iter().filter(|filter| !filter.is_constant()).map(|filter| filter.kernel.len()).sum()
}

/// Positions of a filter among the bands. One that spans a single band looks at all of them.
fn places(part: FrontPart, steps: FrontSteps) -> usize {
    if part.bands == 1 { BANDS } else { (BANDS - part.bands).div_ceil(steps.bands) + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Array, ModelFolder};

    fn cost(weights: &Weights) -> u64 {
        multiply_accumulates(Architecture::Musicnn, weights, 10).unwrap()
    }

    /// The weights with every value of the kernels of `name` set to `value`, and every BatchNorm of it to a scale of 1.
    fn set(weights: &mut Weights, name: &str, shape: [usize; 4], value: f32) {
        let array = |shape: &[usize], value| Array::new(shape, vec![value; shape.iter().product()]).unwrap();
        weights.insert(&format!("{name}.conv.weight"), array(&shape, value));
        weights.insert(&format!("{name}.norm.weight"), array(&shape[..1], 1.0));
        weights.insert(&format!("{name}.norm.running_var"), array(&shape[..1], 1.0));
    }

    fn filled(front: f32, middle: f32) -> Weights {
        let mut weights = ModelFolder::embedded().unwrap().weights().clone();
        set(&mut weights, "front.timbral_low", [204, 1, 5, 38], front);
        set(&mut weights, "front.timbral_high", [204, 1, 5, 67], front);
        set(&mut weights, "front.temporal_long", [51, 1, 51, 1], front);
        set(&mut weights, "front.temporal_medium", [51, 1, 26, 1], front);
        set(&mut weights, "front.temporal_short", [51, 1, 14, 1], front);
        set(&mut weights, "mid.0", [64, 1, 5, 561], middle);
        set(&mut weights, "mid.1", [64, 1, 5, 64], middle);
        set(&mut weights, "mid.2", [64, 1, 5, 64], middle);
        weights
    }

    #[test]
    fn every_product_is_counted_once() {
        let adapter = 96 * 128 * 96;
        let head = 1_506 * 200 + 200 * 10;
        assert_eq!(cost(&filled(0.0, 0.0)), adapter + head, "filters that answer with a constant cost nothing");
        let middle = 64 * 5 * (561 + 64 + 64) * 96;
        assert_eq!(cost(&filled(0.0, 1.0)), adapter + middle + head);
        let timbral = 204 * 5 * (38 * 59 + 67 * 30) * 96;
        let temporal = 51 * (51 + 26 + 14) * 96 * 96;
        assert_eq!(cost(&filled(1.0, 1.0)), adapter + timbral + temporal + middle + head);
    }

    #[test]
    fn the_embedded_model_has_few_live_filters() {
        let embedded = ModelFolder::embedded().unwrap().multiply_accumulates().unwrap();
        let all = cost(&filled(1.0, 1.0));
        assert!(embedded * 4 < all, "{embedded} of {all}");
    }
}
