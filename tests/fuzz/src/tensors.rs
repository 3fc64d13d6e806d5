//! Requests of the Open Inference Protocol, up to where a model would be asked.

use bytes::Bytes;
use chorale_model::contract::CHUNK_CELLS;
use chorale_proto::{bounded_codec::check_request, inference::ModelInferRequest};
use chorale_runtime::open_inference::{
    Datatype, Output, Parameters, RowLimit, TensorSpec, Values, WantedOutputs, take_texts, take_uint8,
};
use prost::Message;

const LIMIT: RowLimit = RowLimit { name: "rows", rows: 4 };

/// An encoded `ModelInferRequest`: what it wants to have, its parameters, and its tensor as both of our models take theirs.
pub fn tensors(input: &[u8]) {
    if check_request(input).is_err() {
        return;
    }
    let Ok(request) = ModelInferRequest::decode(Bytes::copy_from_slice(input)) else { return };
    // Nothing that is asked for in between may make an answer larger than this.
    let labels = ["jazz", "rock"].map(str::to_owned);
    let outputs = [
        TensorSpec { name: "genre", datatype: Datatype::Bytes, shape: vec![-1] },
        TensorSpec { name: "probabilities", datatype: Datatype::Fp32, shape: vec![-1, 2] },
    ];
    if let Ok(parameters) = Parameters::check(&request.parameters, &["pcm", "bypass_cache", "early_error_rate"]) {
        let _ = (parameters.text("pcm"), parameters.flag("bypass_cache"), parameters.number("early_error_rate"));
        let _ = (parameters.priority(), parameters.timeout());
        if let Ok(wanted) = WantedOutputs::of(&request, parameters, &outputs) {
            let values = [
                Output { name: "genre", shape: vec![1], values: Values::texts(["jazz"]) },
                Output { name: "probabilities", shape: vec![1, 2], values: Values::Fp32(vec![0.5, f32::NAN]) },
            ];
            let answer = wanted.answer(&values, &labels);
            assert!(answer.outputs.len() <= 2 && answer.encoded_len() < 1_000, "{answer:?}");
        }
    }
    let cells = TensorSpec { name: "mel", datatype: Datatype::Uint8, shape: vec![-1, 128, 96] };
    if let Ok(bytes) = take_uint8(&mut request.clone(), &cells, LIMIT) {
        assert!(
            bytes.len() % CHUNK_CELLS == 0 && (1..=LIMIT.rows).contains(&(bytes.len() / CHUNK_CELLS)),
            "{}",
            bytes.len()
        );
    }
    let texts = TensorSpec { name: "audio", datatype: Datatype::Bytes, shape: vec![-1] };
    if let Ok(texts) = take_texts(&mut request.clone(), &texts, LIMIT) {
        assert!((1..=LIMIT.rows).contains(&texts.len()), "{}", texts.len());
        assert!(texts.iter().map(Bytes::len).sum::<usize>() <= input.len(), "more than came");
    }
}
