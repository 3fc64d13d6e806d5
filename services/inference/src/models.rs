//! The models of this replica: those that are served, each with its weight, and those that tracks under way still ask for.
//!
//! ```text
//!             switch                      switch to a set without it
//!   loaded ──────────▶ served ───────────────────────────────────────▶ lingering
//!                        ▲                                                │  │ nobody asked for it for the linger time
//!                        └────────────────────────────────────────────────┘  ▼
//!                                 switch to a set with it                  gone
//! ```
//!
//! A chunk takes its model along when it is accepted, so that a switch between that and its forward pass changes nothing.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use chorale_model::DeviceSpec;
use chorale_proto::v1::{Model, ServedModel};
use chorale_runtime::failure::{Failure, Reason};

use crate::{metrics::InferenceMetrics, network::Network};

/// Models that linger at most: a set that is switched again and again must not fill the memory.
const MAX_LINGERING: usize = 8;

/// A version of a model on every device.
pub(crate) struct LoadedModel {
    version: String,
    networks: Vec<Network>,
}

impl fmt::Debug for LoadedModel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("LoadedModel").field(&self.version).finish()
    }
}

impl LoadedModel {
    /// A version whose networks were warmed up, one for each device.
    pub(crate) fn new(version: String, networks: Vec<Network>) -> Self {
        Self { version, networks }
    }

    /// The hash of its weights.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Its network on `device`; there is one for every device of the role.
    pub(crate) fn on(&self, device: DeviceSpec) -> Option<&Network> {
        self.networks.iter().find(|network| network.device() == device)
    }
}

/// A model that is served.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    pub(crate) description: Model,
    pub(crate) weight: u32,
    pub(crate) loaded: Arc<LoadedModel>,
}

/// A model that left the set.
#[derive(Debug)]
struct Lingering {
    name: String,
    loaded: Arc<LoadedModel>,
    asked_at: Instant,
}

#[derive(Debug)]
struct State {
    /// The heaviest first.
    served: Vec<Served>,
    lingering: Vec<Lingering>,
}

/// The models of this replica.
#[derive(Debug)]
pub(crate) struct Models {
    state: Mutex<State>,
    metrics: Arc<InferenceMetrics>,
}

/// What a switch changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Switched {
    /// Other versions or other weights.
    Changed,
    /// Nothing that matters to a track.
    Unchanged,
}

impl Models {
    /// Serves `served`.
    pub(crate) fn new(served: Vec<Served>, metrics: Arc<InferenceMetrics>) -> Self {
        let models = Self { state: Mutex::new(State { served: Vec::new(), lingering: Vec::new() }), metrics };
        models.switch(served, Instant::now());
        models
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The model of this version, which then lingers anew if it has left the set. The empty version is the heaviest one.
    ///
    /// # Errors
    /// `MODEL_UNKNOWN` with the versions that are there.
    pub(crate) fn find(&self, version: &str) -> Result<Arc<LoadedModel>, Failure> {
        let mut state = self.lock();
        let mut served = state.served.iter().map(|served| &served.loaded);
        if let Some(loaded) = served.find(|loaded| version.is_empty() || loaded.version() == version) {
            return Ok(Arc::clone(loaded));
        }
        if let Some(lingering) = state.lingering.iter_mut().find(|lingering| lingering.loaded.version() == version) {
            lingering.asked_at = Instant::now();
            return Ok(Arc::clone(&lingering.loaded));
        }
        let versions: Vec<&str> = state.served.iter().map(|served| served.loaded.version()).collect();
        let message = format!("expected one of the model versions {}, found {version:?}", versions.join(", "));
        Err(Failure::new(Reason::ModelUnknown, message))
    }

    /// What is on the devices already of this version.
    pub(crate) fn loaded(&self, version: &str) -> Option<Arc<LoadedModel>> {
        let state = self.lock();
        let served = state.served.iter().map(|served| &served.loaded);
        let lingering = state.lingering.iter().map(|lingering| &lingering.loaded);
        served.chain(lingering).find(|loaded| loaded.version() == version).cloned()
    }

    /// What is served, the heaviest first.
    pub(crate) fn describe(&self) -> Vec<ServedModel> {
        let state = self.lock();
        let describe = |served: &Served| ServedModel { model: Some(served.description.clone()), weight: served.weight };
        state.served.iter().map(describe).collect()
    }

    /// What is served, for people.
    pub(crate) fn summary(&self) -> String {
        let say = |served: &Served| {
            format!("{} {} with weight {}", served.description.name, served.loaded.version(), served.weight)
        };
        self.lock().served.iter().map(say).collect::<Vec<_>>().join(", ")
    }

    /// Serves `new` from now on. What is served and not in it lingers.
    pub(crate) fn switch(&self, mut new: Vec<Served>, now: Instant) -> Switched {
        // Stable: of equal weights, the one that stands first in the file.
        new.sort_by_key(|served| std::cmp::Reverse(served.weight));
        let mut state = self.lock();
        let old = std::mem::replace(&mut state.served, new);
        for served in &old {
            self.metrics.model_gone(&served.description.name, served.loaded.version());
        }
        let shares = |set: &[Served]| -> Vec<(String, u32)> {
            set.iter().map(|served| (served.loaded.version().to_owned(), served.weight)).collect()
        };
        let switched = if shares(&old) == shares(&state.served) { Switched::Unchanged } else { Switched::Changed };

        let State { served, lingering } = &mut *state;
        let serves = |version: &str| served.iter().any(|served| served.loaded.version() == version);
        lingering.retain(|lingering| !serves(lingering.loaded.version()));
        let left = old.into_iter().filter(|served| !serves(served.loaded.version()));
        lingering.extend(left.map(|Served { description, loaded, .. }| Lingering {
            name: description.name,
            loaded,
            asked_at: now,
        }));
        // Those that left first are in front.
        let too_many = lingering.len().saturating_sub(MAX_LINGERING);
        let gone: Vec<Lingering> = lingering.drain(..too_many).collect();
        for gone in &gone {
            self.metrics.model_gone(&gone.name, gone.loaded.version());
        }
        for lingering in lingering.iter() {
            self.metrics.model(&lingering.name, lingering.loaded.version(), 0);
        }
        for served in served.iter() {
            self.metrics.model(&served.description.name, served.loaded.version(), served.weight);
        }
        // To free a GPU's memory may take as long as a batch: callers do not wait for that.
        drop(state);
        drop(gone);
        switched
    }

    /// Lets go of what left the set and was not asked for since `linger` before `now`.
    pub(crate) fn retire(&self, linger: Duration, now: Instant) {
        let idle = |lingering: &mut Lingering| now.saturating_duration_since(lingering.asked_at) >= linger;
        // Freed without the lock, as in `switch`.
        let gone: Vec<Lingering> = self.lock().lingering.extract_if(.., idle).collect();
        for Lingering { name, loaded, .. } in gone {
            self.metrics.model_gone(&name, loaded.version());
            tracing::info!(name, version = loaded.version(), "model let go");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{metrics, served};

    fn versions(models: &Models) -> Vec<(String, u32)> {
        let of = |served: ServedModel| (served.model.unwrap().version, served.weight);
        models.describe().into_iter().map(of).collect()
    }

    fn has(models: &Models, version: &str) -> bool {
        models.loaded(version).is_some()
    }

    #[test]
    fn the_heaviest_answers_who_names_no_version() {
        let models = Models::new(vec![served("a", 1), served("b", 7), served("c", 7)], metrics());
        assert_eq!(models.find("").unwrap().version(), "b");
        assert_eq!(models.find("a").unwrap().version(), "a");
        assert_eq!(versions(&models).into_iter().map(|(version, _)| version).collect::<String>(), "bca");
        let failure = models.find("d").unwrap_err();
        assert_eq!(failure.reason, Reason::ModelUnknown);
        assert!(failure.message.contains("b, c, a") && failure.message.contains("\"d\""), "{failure}");
    }

    #[test]
    fn a_model_that_left_stays_as_long_as_tracks_ask_for_it() {
        let (linger, start) = (Duration::from_secs(60), Instant::now());
        let models = Models::new(vec![served("a", 1)], metrics());
        assert_eq!(models.switch(vec![served("b", 1)], start), Switched::Changed);
        assert_eq!(versions(&models), [("b".to_owned(), 1)]);
        models.retire(linger, start + linger / 2);
        assert_eq!(models.find("a").unwrap().version(), "a");
        let asked = Instant::now();
        models.retire(linger, asked + linger / 2);
        assert!(has(&models, "a"));
        models.retire(linger, asked + linger * 2);
        assert!(!has(&models, "a") && models.find("a").is_err());
    }

    #[test]
    fn a_model_that_comes_back_is_served_and_does_not_linger() {
        let start = Instant::now();
        let models = Models::new(vec![served("a", 1)], metrics());
        models.switch(vec![served("b", 1)], start);
        assert_eq!(models.switch(vec![served("a", 1)], start), Switched::Changed);
        models.retire(Duration::ZERO, start);
        assert!(has(&models, "a") && !has(&models, "b"));
    }

    #[test]
    fn another_weight_is_a_change_and_another_description_is_not() {
        let models = Models::new(vec![served("a", 1), served("b", 1)], metrics());
        let mut renamed = served("a", 1);
        renamed.description.name = "renamed".to_owned();
        assert_eq!(models.switch(vec![renamed, served("b", 1)], Instant::now()), Switched::Unchanged);
        assert_eq!(models.describe()[0].model.as_ref().unwrap().name, "renamed");
        assert_eq!(models.switch(vec![served("a", 1), served("b", 2)], Instant::now()), Switched::Changed);
        assert_eq!(models.find("").unwrap().version(), "b");
    }

    #[test]
    fn switching_again_and_again_keeps_no_more_than_it_must() {
        let models = Models::new(vec![served("first", 1)], metrics());
        for index in 0..=MAX_LINGERING {
            models.switch(vec![served(&index.to_string(), 1)], Instant::now());
        }
        assert!(!has(&models, "first"), "the one that left first goes");
        assert!(has(&models, "0"));
    }
}
