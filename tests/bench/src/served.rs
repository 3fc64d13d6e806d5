//! An inference role in this process, and a stream to it.

use std::path::Path;

use anyhow::Context;
use bytes::Bytes;
use chorale_inference::{InferenceConfig, start};
use chorale_model::contract::{CHUNK_CELLS, feature_id};
use chorale_proto::v1::{
    InferRequest, InferResponse, infer_response::Result as Outcome, inference_service_client::InferenceServiceClient,
};
use chorale_runtime::{process::Process, server::RunningRole};
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// Requests on their way to the connection.
const REQUESTS: usize = 64;

/// A running role with one stream to it.
pub(crate) struct Served {
    _role: RunningRole,
    requests: Sender<InferRequest>,
    answers: Streaming<InferResponse>,
    chunks: Vec<Bytes>,
}

impl Served {
    /// Starts the role, with its default configuration but for the largest batch, and opens the stream.
    pub(crate) async fn start(model: &Path, chunks: &Path, max_batch: Option<usize>) -> anyhow::Result<Self> {
        let default = InferenceConfig::default();
        let config = InferenceConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            model: Some(model.to_owned()),
            max_batch: max_batch.unwrap_or(default.max_batch),
            ..default
        };
        let role = start(config, &Process::default()).await?;
        let mut client = InferenceServiceClient::connect(format!("http://{}", role.address())).await?;
        let (requests, outgoing) = channel(REQUESTS);
        let cells = Bytes::from(tokio::fs::read(chunks).await?);
        let chunks =
            (0..cells.len() / CHUNK_CELLS).map(|index| cells.slice(index * CHUNK_CELLS..(index + 1) * CHUNK_CELLS));
        let chunks = chunks.collect();
        let answers = client.infer(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok(Self { _role: role, requests, answers, chunks })
    }

    /// Sends `count` chunks, and waits for as many predictions.
    pub(crate) async fn ask(&mut self, count: usize) -> anyhow::Result<()> {
        let Self { requests, answers, chunks, .. } = self;
        let send = async {
            for (tag, mel) in chunks.iter().cycle().take(count).enumerate() {
                let feature_id = feature_id().to_owned();
                requests
                    .send(InferRequest { tag: tag as u64, mel: mel.clone(), feature_id, ..InferRequest::default() })
                    .await?;
            }
            Ok::<_, anyhow::Error>(())
        };
        let receive = async {
            for _ in 0..count {
                let answer = answers.message().await?.context("the stream ended")?;
                anyhow::ensure!(matches!(answer.result, Some(Outcome::Prediction(_))), "no prediction: {answer:?}");
            }
            Ok(())
        };
        tokio::try_join!(send, receive).map(drop)
    }
}
