//! How the networks that we know are trained.

use std::collections::BTreeMap;

use chorale_model::Architecture;

use crate::{
    Backbone, EnsembleLearner, EnsembleOptions, NetworkOptions, NetworkOutcome, NoAugmentation, Progress, Recipe,
    Result, SeedCnnLearner, Teaching, TrainerError, conclusion::conclude, teaching::Taught, train_network,
};

/// Trains an ensemble of this architecture, whose members start from `start`, and learn from a teacher if there is one.
///
/// # Errors
/// Those of [`train_network`], and where the architecture is no ensemble or an option makes no sense.
pub fn train_ensemble(
    options: &NetworkOptions,
    architecture: Architecture,
    start: &Backbone,
    teaching: Option<&Teaching>,
    ensemble: &EnsembleOptions,
    progress: Progress,
) -> Result<NetworkOutcome> {
    ensemble.check()?;
    if let Some(teaching) = teaching {
        teaching.check(start)?;
    }
    let shape = architecture.ensemble().ok_or_else(|| TrainerError::Option {
        option: "architecture",
        expected: "an ensemble",
        found: architecture.name().to_owned(),
    })?;
    let recipe = Recipe {
        architecture,
        build: &|train, seed, device| {
            let learner = EnsembleLearner::new(&start.start, shape, ensemble, train, seed, device)?;
            match teaching {
                Some(teaching) => Ok(Box::new(Taught::new(learner, &start.start, teaching, train, device)?)),
                None => Ok(Box::new(learner)),
            }
        },
        conclude: &|weights, train, not_music, device| {
            conclude(weights, shape, train, not_music, ensemble.discriminant, device)
        },
        augment: &ensemble.room,
        context: serde_json::json!({
            "ensemble": ensemble,
            "backbone": start.digest,
            "teacher": teaching.map(Teaching::context),
        }),
        provenance: std::iter::once(("backbone".to_owned(), start.origin.clone()))
            .chain(teaching.map(|teaching| ("teacher".to_owned(), teaching.origin())))
            .collect(),
        licences: start.licences.clone(),
    };
    train_network(options, &recipe, progress)
}

/// Trains the network `seed-cnn` from nothing.
///
/// # Errors
/// Those of [`train_network`].
pub fn train_seed_cnn(options: &NetworkOptions, progress: Progress) -> Result<NetworkOutcome> {
    let recipe = Recipe {
        architecture: Architecture::SeedCnn,
        build: &|train, seed, device| Ok(Box::new(SeedCnnLearner::new(train.labels(), seed, device)?)),
        conclude: &|_, _, _, _| Ok(()),
        augment: &NoAugmentation,
        context: serde_json::Value::Null,
        provenance: BTreeMap::new(),
        licences: Vec::new(),
    };
    train_network(options, &recipe, progress)
}
