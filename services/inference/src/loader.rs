//! Puts models onto the devices, beside those that serve.

use std::{path::Path, sync::Arc};

use chorale_model::{Classifier, DeviceSpec, Manifest, ModelFolder};
use chorale_proto::v1::Model;
use futures::future::try_join_all;

use crate::{
    InferenceError,
    metrics::InferenceMetrics,
    models::{LoadedModel, Served},
    network::Network,
    serving_file::{self, SERVING_FILE, Wanted},
};

/// Loads models onto all devices of a role. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Loader {
    devices: Arc<[DeviceSpec]>,
    max_batch: usize,
    metrics: Arc<InferenceMetrics>,
}

impl Loader {
    /// A loader for `devices`, whose batches hold up to `max_batch` chunks.
    pub(crate) fn new(devices: &[DeviceSpec], max_batch: usize, metrics: Arc<InferenceMetrics>) -> Self {
        Self { devices: devices.into(), max_batch, metrics }
    }

    /// The one model of this name: see [`ModelFolder::open`].
    ///
    /// # Errors
    /// If it cannot be read, does not fit onto a device, or fails in the warm-up.
    pub(crate) async fn load_one(&self, model: Option<&Path>) -> Result<Vec<Served>, InferenceError> {
        let model = model.map(Path::to_owned);
        let folder = blocking(move || ModelFolder::open(model.as_deref())).await??;
        Ok(vec![self.load(folder, 1).await?])
    }

    /// What the models folder `folder` says is to be served. Versions that `loaded` gives are on the devices already.
    ///
    /// # Errors
    /// As [`serving_file::read`] and [`Loader::load_one`].
    pub(crate) async fn load_folder(
        &self,
        folder: &Path,
        loaded: impl Fn(&str) -> Option<Arc<LoadedModel>>,
    ) -> Result<Vec<Served>, InferenceError> {
        let path = folder.to_owned();
        let wanted = blocking(move || serving_file::read(&path)).await??;
        let mut served = Vec::new();
        for Wanted { name, folder: model, weight } in wanted {
            served.push(match loaded(&model.manifest().version) {
                Some(loaded) => Served { description: describe(model.manifest()), weight, loaded },
                None => {
                    let refused = |error| serving_file::in_file(&folder.join(SERVING_FILE), &name, error);
                    self.load(model, weight).await.map_err(refused)?
                }
            });
        }
        Ok(served)
    }

    /// Loads and warms up a model on threads of their own, on every device at the same time.
    async fn load(&self, folder: ModelFolder, weight: u32) -> Result<Served, InferenceError> {
        let folder = Arc::new(folder);
        let networks = self.devices.iter().map(|&device| {
            let (folder, loader) = (Arc::clone(&folder), self.clone());
            async move { blocking(move || loader.load_onto(device, &folder)).await? }
        });
        let networks = try_join_all(networks).await?;
        let manifest = folder.manifest();
        let loaded = Arc::new(LoadedModel::new(manifest.version.clone(), networks));
        Ok(Served { description: describe(manifest), weight, loaded })
    }

    fn load_onto(&self, device: DeviceSpec, folder: &ModelFolder) -> Result<Network, InferenceError> {
        let classifier = Classifier::load(folder, device).map_err(|source| InferenceError::Load { device, source })?;
        let network = Network::new(device, folder.manifest().labels.len(), classifier);
        network.warm_up(self.max_batch, &self.metrics)?;
        Ok(network)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, InferenceError> {
    tokio::task::spawn_blocking(work).await.map_err(InferenceError::LoadStopped)
}

fn describe(manifest: &Manifest) -> Model {
    let metrics = manifest.metrics.iter().flat_map(|(split, measured)| {
        [("track_accuracy", measured.track_accuracy), ("chunk_accuracy", measured.chunk_accuracy)]
            .map(|(metric, value)| (format!("{split}/{metric}"), value))
    });
    Model {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        feature_id: manifest.feature_id.clone(),
        labels: manifest.labels.clone(),
        architecture: manifest.architecture.clone(),
        metrics: metrics.collect(),
        unknown_below: manifest.unknown_below,
    }
}
