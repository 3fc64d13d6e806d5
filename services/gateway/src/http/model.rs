//! `GET /v1/model`: what answers, and how much it takes.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Request, State},
};
use chorale_proto::v1::{GetModelResponse, Limits, Model, ServedModel};
use serde::Serialize;
use tonic::metadata::MetadataMap;

use super::{Face, problem::Problem, verdict::seconds};

pub(super) async fn model(State(face): State<Face>, request: Request) -> Result<Json<DescriptionJson>, Problem> {
    let (parts, _body) = request.into_parts();
    let metadata = MetadataMap::from_headers(parts.headers);
    Ok(Json(face.classifier.describe(&metadata, &parts.extensions)?.into()))
}

/// A `GetModelResponse`.
#[derive(Debug, Serialize)]
pub(super) struct DescriptionJson {
    model: ModelJson,
    limits: LimitsJson,
    models: Vec<ServedModelJson>,
}

#[derive(Debug, Serialize)]
struct ModelJson {
    name: String,
    version: String,
    feature_id: String,
    labels: Vec<String>,
    architecture: String,
    metrics: BTreeMap<String, f64>,
    unknown_below: f64,
}

#[derive(Debug, Serialize)]
struct ServedModelJson {
    model: ModelJson,
    weight: u32,
}

#[derive(Debug, Serialize)]
struct LimitsJson {
    max_audio_bytes: u64,
    max_message_bytes: u64,
    max_duration_seconds: f64,
    max_concurrent_streams: u32,
    idle_timeout_seconds: f64,
    max_streams_per_caller: u32,
    min_upload_rate: u64,
}

impl From<GetModelResponse> for DescriptionJson {
    fn from(response: GetModelResponse) -> Self {
        Self {
            model: response.model.unwrap_or_default().into(),
            limits: response.limits.unwrap_or_default().into(),
            models: response.models.into_iter().map(ServedModelJson::from).collect(),
        }
    }
}

impl From<Model> for ModelJson {
    fn from(model: Model) -> Self {
        let Model { name, version, feature_id, labels, architecture, metrics, unknown_below } = model;
        let metrics = metrics.into_iter().collect();
        Self { name, version, feature_id, labels, architecture, metrics, unknown_below }
    }
}

impl From<ServedModel> for ServedModelJson {
    fn from(served: ServedModel) -> Self {
        Self { model: served.model.unwrap_or_default().into(), weight: served.weight }
    }
}

impl From<Limits> for LimitsJson {
    fn from(limits: Limits) -> Self {
        Self {
            max_audio_bytes: limits.max_audio_bytes,
            max_message_bytes: limits.max_message_bytes,
            max_duration_seconds: limits.max_duration_seconds,
            max_concurrent_streams: limits.max_concurrent_streams,
            idle_timeout_seconds: seconds(limits.idle_timeout),
            max_streams_per_caller: limits.max_streams_per_caller,
            min_upload_rate: limits.min_upload_rate,
        }
    }
}
