//! The watched folder of models: what it says is served, without a restart.
//!
//! ```text
//!             looks other than before                looks the same a second later
//!   watched ─────────────────────────▶ settling ───────────────────────────────────▶ loading
//!      ▲                                                                              │    │
//!      ├─────────────── refused: what was served before serves on ────────────────────┘    │
//!      └─────────────── switched: from the next chunk on ──────────────────────────────────┘
//! ```
//!
//! It is looked at every second in place of waiting for events, which network file systems do not have, and which the links
//! of Kubernetes' volumes hide.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use crate::{
    InferenceError,
    loader::Loader,
    metrics::{InferenceMetrics, Load},
    models::{Models, Switched},
    serving_file::{SERVING_FILE, Stamp},
};

/// How often the folder is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// A folder whose models are served.
#[derive(Debug)]
pub(crate) struct ModelsFolder {
    pub(crate) path: PathBuf,
    /// How long a model stays that left the set and that nobody asks for.
    pub(crate) linger: Duration,
    pub(crate) models: Arc<Models>,
    pub(crate) loader: Loader,
    pub(crate) metrics: Arc<InferenceMetrics>,
}

impl ModelsFolder {
    /// Follows the folder for ever, where what it held at `served` is served.
    pub(crate) async fn watch(self, served: Stamp) {
        let mut tried = served.clone();
        let mut seen = served;
        loop {
            sleep(INTERVAL).await;
            self.models.retire(self.linger, Instant::now());
            let Some(stamp) = look(&self.path).await else { continue };
            // A copy that is under way looks different every time.
            let settled = std::mem::replace(&mut seen, stamp.clone()) == stamp;
            if settled && stamp != tried {
                tried = stamp;
                self.follow().await;
            }
        }
    }

    async fn follow(&self) {
        let began = Instant::now();
        let folder = self.path.display();
        let loaded = self.loader.load_folder(&self.path, |version| self.models.loaded(version)).await;
        let load = match loaded.map(|served| self.models.switch(served, Instant::now())) {
            Ok(Switched::Changed) => {
                tracing::info!(%folder, models = self.models.summary(), elapsed = ?began.elapsed(), "models switched");
                Load::Switched
            }
            Ok(Switched::Unchanged) => {
                tracing::info!(%folder, models = self.models.summary(), "models as before");
                Load::Unchanged
            }
            Err(error) => {
                self.complain(&error);
                Load::Refused
            }
        };
        self.metrics.model_load(load);
    }

    fn complain(&self, error: &InferenceError) {
        tracing::error!(
            %error,
            models = self.models.summary(),
            "models refused: those from before serve on; mend the model, or write the old set into {SERVING_FILE}"
        );
    }
}

/// How the folder looks; none if that cannot be found out now.
pub(crate) async fn look(path: &Path) -> Option<Stamp> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || Stamp::of(&path)).await.ok()
}
