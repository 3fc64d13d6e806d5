//! Model folders, and the published weights that training starts from.

use chorale_model::{
    Adapter, Architecture, Classifier, DeviceSpec, EnsembleStart, ModelFolder, Weights,
    contract::{CHUNK_CELLS, feature_id},
};
use serde::Deserialize;

/// What stands for this build's feature contract in an input, and for the hash of its weights.
pub(crate) const FEATURE_ID: &str = "@feature@";
pub(crate) const VERSION: &str = "@version@";
/// Weights are made this long at most.
const MAX_WEIGHTS_BYTES: usize = 4 << 20;

/// `model.json`, a zero byte, the header of `model.safetensors`, a zero byte, and its cells, which begin again and again until
/// there are as many as the header says. Without a header, the rest is the file as it is.
///
/// The first part is also tried as `adapter.json`, the rest as published weights.
pub fn model_folder(input: &[u8]) {
    let mut parts = input.splitn(3, |byte| *byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let (manifest, header, cells) = (part(), part(), part());
    let weights = if header.is_empty() { cells.to_vec() } else { safetensors(header, cells) };
    let version = blake3::hash(&weights).to_hex();
    let manifest = replace(&replace(manifest, VERSION, &version[..12]), FEATURE_ID, feature_id());

    if let Ok(folder) = ModelFolder::from_bytes(&manifest, &weights, String::new()) {
        run(&folder);
    }
    if let Ok((weights, _)) = Weights::from_safetensors(&weights) {
        assert!(weights.iter().flat_map(|(_, array)| array.values()).all(|value| value.is_finite()));
    }
    if let Ok(adapter) = Adapter::from_json(&manifest) {
        for (architecture, _) in Architecture::TABLE {
            let _ = architecture.ensemble().map(|shape| EnsembleStart::import(&weights, &adapter, shape));
        }
    }
}

/// Whatever was accepted can be run, and gone on from.
fn run(folder: &ModelFolder) {
    let _ = folder.multiply_accumulates();
    for (architecture, _) in Architecture::TABLE {
        let _ = architecture.ensemble().map(|shape| EnsembleStart::of_model(folder, shape));
    }
    let Ok(classifier) = Classifier::load(folder, DeviceSpec::Cpu) else { return };
    let (silence, noise) =
        (vec![0; CHUNK_CELLS], (0..CHUNK_CELLS).map(|cell| (cell * 31 % 251) as u8).collect::<Vec<_>>());
    if let Ok(answers) = classifier.classify(&[&silence, &noise]) {
        assert_eq!(answers.len(), 2);
        for answer in answers {
            assert_eq!(answer.len(), folder.manifest().labels.len());
            let sum: f32 = answer.iter().sum();
            assert!(answer.iter().all(|probability| (0.0..=1.001).contains(probability)) && sum < 1.001, "{answer:?}");
        }
    }
}

fn replace(text: &[u8], from: &str, to: &str) -> Vec<u8> {
    match std::str::from_utf8(text) {
        Ok(text) => text.replace(from, to).into_bytes(),
        Err(_) => text.to_vec(),
    }
}

fn safetensors(header: &[u8], cells: &[u8]) -> Vec<u8> {
    #[derive(Deserialize)]
    struct Tensor {
        data_offsets: (usize, usize),
    }
    let header = replace(header, FEATURE_ID, feature_id());
    let tensors: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&header).unwrap_or_default();
    let ends = tensors.into_values().filter_map(|tensor| serde_json::from_value::<Tensor>(tensor).ok());
    let bytes = ends.map(|tensor| tensor.data_offsets.1).max().unwrap_or(0).min(MAX_WEIGHTS_BYTES);
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend(cells.iter().cycle().take(bytes));
    file
}
