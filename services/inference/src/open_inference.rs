//! The Open Inference Protocol: the models of this replica by name, mel chunks in, probabilities out.
//!
//! The chunks of a request go the way of those of an `Infer` call: [`ChunkStream`] is given them one by one, and what it
//! answers is put in order.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use chorale_model::contract::{self, CHUNK_CELLS, CHUNK_FRAMES, MEL_BANDS};
use chorale_proto::{
    inference::{ModelInferRequest, ModelInferResponse, ModelMetadataResponse},
    v1::{InferRequest, Model, Prediction, Priority},
};
use chorale_runtime::{
    failure::{Failure, Reason},
    open_inference::{
        Call, Datatype, OpenModels, Output, Parameters, RowLimit, TensorSpec, Values, WantedOutputs, take_uint8,
        unknown_model,
    },
    overload::Urgency,
    trace::Span,
};
use futures::{StreamExt, stream};
use tokio::sync::{Semaphore, SemaphorePermit, TryAcquireError};
use tonic::{Response, Status};

use crate::{
    queue::LEAST_STEP,
    service::InferenceService,
    stream::{ChunkStream, chunk_answers},
};

/// The longest message that is read: chunks as numbers take up to two bytes a cell, and there is room for the other fields.
pub(crate) const MAX_MESSAGE_BYTES: usize = 2 * MAX_CHUNKS.rows * CHUNK_CELLS + 64 * 1024;
/// Chunks in one request: 8 minutes of music.
const MAX_CHUNKS: RowLimit = RowLimit { name: "max_chunks_per_request", rows: 256 };
/// Chunks that requests may hold for each that may wait in the queue: 12 KiB each.
const HELD_PER_QUEUED: usize = 4;
const RPC: &str = "inference.GRPCInferenceService/ModelInfer";
const FEATURE_ID: &str = "feature_id";

/// The models of a replica, as other servers' clients ask for them.
#[derive(Debug)]
pub(crate) struct OpenChunks {
    service: Arc<InferenceService>,
    /// A permit for each chunk that requests may hold.
    room: Semaphore,
}

impl OpenChunks {
    /// Those of `service`.
    pub(crate) fn new(service: Arc<InferenceService>) -> Self {
        let room = service.max_in_flight.saturating_mul(HELD_PER_QUEUED).max(MAX_CHUNKS.rows);
        Self { service, room: Semaphore::new(room.min(Semaphore::MAX_PERMITS)) }
    }

    /// The versions of the model `name` that are served, the heaviest first, beginning with `version` if it is not empty.
    fn find(&self, name: &str, version: &str) -> Result<Vec<Model>, Failure> {
        let served: Vec<Model> = self.service.models.describe().into_iter().filter_map(|served| served.model).collect();
        let unknown = || {
            let known: Vec<_> =
                served.iter().map(|model| format!("{} in version {}", model.name, model.version)).collect();
            unknown_model(name, version, &known.join(", "))
        };
        let mut found: Vec<Model> = served.iter().filter(|model| model.name == name).cloned().collect();
        let position = found.iter().position(|model| version.is_empty() || model.version == version);
        let position = position.ok_or_else(unknown)?;
        found.rotate_left(position);
        Ok(found)
    }

    /// The version that answers.
    fn choose(&self, name: &str, version: &str) -> Result<Model, Failure> {
        let found = self.find(name, version)?;
        found.into_iter().next().ok_or_else(|| unknown_model(name, version, "none"))
    }

    async fn classify(
        &self,
        call: &Call,
        mut request: ModelInferRequest,
        span: &Span,
    ) -> Result<ModelInferResponse, Failure> {
        let model = self.choose(&request.model_name, &request.model_version)?;
        let parameters = Parameters::check(&request.parameters, &[FEATURE_ID])?;
        let wanted = WantedOutputs::of(&request, parameters, &outputs(&model))?;
        let terms = Terms {
            feature_id: parameters.text(FEATURE_ID)?.unwrap_or(contract::feature_id()).to_owned(),
            priority: parameters.priority()?,
            deadline: call.deadline(parameters.timeout()?),
            model_version: model.version.clone(),
            traceparent: span.context().traceparent(),
        };
        let mel = take_uint8(&mut request, &input(), MAX_CHUNKS)?;
        let _room = self.room_for(mel.len() / CHUNK_CELLS)?;
        let predictions = self.predict(&mel, &terms).await?;
        let answer = wanted.answer(&tensors(&predictions, &model.labels), &model.labels);
        let ModelInferRequest { model_name, id, .. } = request;
        Ok(ModelInferResponse { model_name, model_version: model.version, id, ..answer })
    }

    /// Chunks of one request in the queue at a time: no more than may always wait in an empty one.
    fn window(&self, urgency: Urgency) -> usize {
        let InferenceService { max_batch, max_in_flight, .. } = *self.service;
        urgency.share(max_batch.max(LEAST_STEP).min(max_in_flight))
    }

    fn room_for(&self, chunks: usize) -> Result<SemaphorePermit<'_>, Failure> {
        let wanted = u32::try_from(chunks).unwrap_or(u32::MAX);
        self.room.try_acquire_many(wanted).map_err(|error: TryAcquireError| {
            let message = format!("there is no room for {chunks} more chunks of requests: {error}");
            Failure::new(Reason::Overloaded, message)
        })
    }

    /// What the model says of each chunk, in order. The first that fails fails all.
    async fn predict(&self, mel: &Bytes, terms: &Terms) -> Result<Vec<Prediction>, Failure> {
        let chunks = mel.len() / CHUNK_CELLS;
        let requests = (0..chunks).map(|index| Ok(terms.request(index, mel)));
        let chunk_stream =
            ChunkStream::new(stream::iter(requests), &self.service).of_request(self.window(terms.priority.into()));
        let mut answers = Box::pin(chunk_answers(chunk_stream));
        let mut predictions: Vec<Option<Prediction>> = vec![None; chunks];
        while let Some(answer) = answers.next().await {
            let answer = answer.map_err(|status| Failure::from_status(&status))?;
            let place = usize::try_from(answer.tag).ok().and_then(|index| predictions.get_mut(index));
            let prediction = answer.result?;
            if let Some(place) = place {
                *place = Some(prediction);
            }
        }
        let lost = || Failure::new(Reason::Internal, "a chunk was lost");
        predictions.into_iter().collect::<Option<_>>().ok_or_else(lost)
    }
}

/// What all chunks of a request have in common.
struct Terms {
    feature_id: String,
    priority: Priority,
    deadline: Option<Instant>,
    model_version: String,
    traceparent: String,
}

impl Terms {
    /// The request for the chunk `index` of `mel`, which is sent now.
    fn request(&self, index: usize, mel: &Bytes) -> InferRequest {
        let start = index * CHUNK_CELLS;
        InferRequest {
            tag: index as u64,
            mel: mel.slice(start..start + CHUNK_CELLS),
            feature_id: self.feature_id.clone(),
            timeout_millis: self.deadline.map_or(0, millis_until),
            priority: self.priority.into(),
            model_version: self.model_version.clone(),
            traceparent: self.traceparent.clone(),
            ..InferRequest::default()
        }
    }
}

/// At least 1, as 0 is for ever.
fn millis_until(deadline: Instant) -> u32 {
    let left: Duration = deadline.saturating_duration_since(Instant::now());
    u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1)
}

impl OpenModels for OpenChunks {
    /// Who reaches this port may ask, as for `Infer`.
    fn allow(&self, _: &Call) -> Result<(), Failure> {
        Ok(())
    }

    fn describe(&self, name: &str, version: &str) -> Result<ModelMetadataResponse, Failure> {
        let found = self.find(name, version)?;
        let of_first = found.first().map(outputs).into_iter().flatten();
        Ok(ModelMetadataResponse {
            name: name.to_owned(),
            outputs: of_first.map(|spec| spec.metadata()).collect(),
            versions: found.into_iter().map(|model| model.version).collect(),
            platform: "chorale_safetensors".to_owned(),
            inputs: vec![input().metadata()],
        })
    }

    async fn infer(&self, call: &Call, request: ModelInferRequest) -> Result<Response<ModelInferResponse>, Status> {
        let span = Span::serve(RPC, call.metadata());
        let result = self.classify(call, request, &span).await;
        if let Err(failure) = &result {
            span.fail(failure.to_string());
        }
        Ok(Response::new(result?))
    }
}

/// `mel`: chunks as `Infer` has them.
fn input() -> TensorSpec {
    let [bands, frames] = [MEL_BANDS, CHUNK_FRAMES].map(dimension);
    TensorSpec { name: "mel", datatype: Datatype::Uint8, shape: vec![-1, bands, frames] }
}

/// What `model` says of each chunk: the most probable label, the probability of each label, and once, which label is which.
fn outputs(model: &Model) -> [TensorSpec; 3] {
    let labels = dimension(model.labels.len());
    [
        TensorSpec { name: "genre", datatype: Datatype::Bytes, shape: vec![-1] },
        TensorSpec { name: "probabilities", datatype: Datatype::Fp32, shape: vec![-1, labels] },
        TensorSpec { name: "labels", datatype: Datatype::Bytes, shape: vec![labels] },
    ]
}

fn dimension(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn tensors(predictions: &[Prediction], labels: &[String]) -> [Output; 3] {
    let (rows, columns) = (predictions.len(), labels.len());
    let genres = predictions.iter().map(|prediction| most_probable(&prediction.probabilities, labels));
    let probabilities = predictions.iter().flat_map(|prediction| prediction.probabilities.iter().copied());
    [
        Output { name: "genre", shape: vec![rows], values: Values::texts(genres) },
        Output { name: "probabilities", shape: vec![rows, columns], values: Values::Fp32(probabilities.collect()) },
        Output { name: "labels", shape: vec![columns], values: Values::texts(labels) },
    ]
}

/// The label of the largest probability, the first of equals.
fn most_probable<'a>(probabilities: &[f32], labels: &'a [String]) -> &'a str {
    let largest = probabilities.iter().zip(labels).reduce(|best, next| if next.0 > best.0 { next } else { best });
    largest.map_or("", |(_, label)| label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_genre_of_a_chunk_is_its_most_probable_label() {
        let labels = ["jazz", "pop", "rock"].map(str::to_owned);
        assert_eq!(most_probable(&[0.2, 0.5, 0.3], &labels), "pop");
        assert_eq!(most_probable(&[0.4, 0.2, 0.4], &labels), "jazz");
    }

    #[test]
    fn a_deadline_that_has_passed_is_not_for_ever() {
        assert_eq!(millis_until(Instant::now()), 1);
        assert!(millis_until(Instant::now() + Duration::from_secs(2)) > 1_000);
        assert_eq!(millis_until(Instant::now() + Duration::from_secs(u64::from(u32::MAX))), u32::MAX);
    }

    #[test]
    fn the_largest_request_fits_into_a_message() {
        const { assert!(MAX_CHUNKS.rows * CHUNK_CELLS < MAX_MESSAGE_BYTES) };
    }
}
