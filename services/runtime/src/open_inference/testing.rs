//! What the unit tests share.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use chorale_proto::inference::{ModelInferRequest, ModelInferResponse, ModelMetadataResponse};
use tokio::sync::Semaphore;
use tonic::{Response, Status};

use super::{Call, OpenModels, unknown_model};
use crate::failure::Failure;

/// The model `echo`, which answers when it is let.
#[derive(Debug)]
pub(super) struct Echo {
    pub(super) let_go: Semaphore,
    pub(super) working: AtomicUsize,
    pub(super) most: AtomicUsize,
}

impl Echo {
    pub(super) fn new(let_go: usize) -> Self {
        Self { let_go: Semaphore::new(let_go), working: AtomicUsize::new(0), most: AtomicUsize::new(0) }
    }

    /// Waits until so many requests are worked on.
    pub(super) async fn wait_working(&self, requests: usize) {
        let reached = async {
            while self.working.load(Ordering::SeqCst) != requests {
                tokio::task::yield_now().await;
            }
        };
        let found = || panic!("{} are worked on", self.working.load(Ordering::SeqCst));
        tokio::time::timeout(Duration::from_secs(10), reached).await.unwrap_or_else(|_| found());
    }
}

/// One that is worked on, until this is dropped.
struct Leaves<'a>(&'a AtomicUsize);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl OpenModels for Echo {
    fn allow(&self, _: &Call) -> Result<(), Failure> {
        Ok(())
    }

    fn describe(&self, name: &str, version: &str) -> Result<ModelMetadataResponse, Failure> {
        if name == "echo" { Ok(Default::default()) } else { Err(unknown_model(name, version, "echo")) }
    }

    async fn infer(&self, _: &Call, request: ModelInferRequest) -> Result<Response<ModelInferResponse>, Status> {
        let working = self.working.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(working, Ordering::SeqCst);
        let _leaves = Leaves(&self.working);
        let permit = self.let_go.acquire().await.map_err(|_| Status::internal("closed"))?;
        drop(permit);
        self.describe(&request.model_name, "").map_err(Status::from)?;
        Ok(Response::new(ModelInferResponse { id: request.id, ..ModelInferResponse::default() }))
    }
}
