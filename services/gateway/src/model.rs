//! The model that answers: learned from the feature service, and kept up to date.

use std::{collections::HashSet, sync::Arc, time::Duration};

use chorale_model::{contract::feature_id, labels::UNKNOWN};
use chorale_proto::{
    service_names,
    v1::{DescribeFeatureRequest, DescribeFeatureResponse, Model, feature_service_client::FeatureServiceClient},
};
use chorale_runtime::{
    failure::{Failure, Reason},
    health::Readiness,
    replicas::Replicas,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};

use crate::analysis::feature_failure;

/// How often the model is asked for once it is known, and until then.
const REFRESH_INTERVAL: Duration = Duration::from_secs(3);
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// How long a feature replica may take to describe itself.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(2);
/// A gateway whose feature service was silent for this long is not ready.
const LOST_AFTER: Duration = Duration::from_secs(10);
/// More labels than any model of ours has: the tally keeps a share for each.
const MAX_LABELS: usize = 1_000;

/// A model that was checked.
#[derive(Debug, PartialEq)]
pub(crate) struct KnownModel {
    /// What `GetModel` says.
    pub(crate) model: Model,
    /// `model.labels`, to share.
    pub(crate) labels: Arc<[String]>,
}

/// The latest model. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct LatestModel {
    state: watch::Receiver<Result<Arc<KnownModel>, Failure>>,
    refresh: Arc<Notify>,
}

impl LatestModel {
    /// A model that is not known yet, and the task that learns it and says when the gateway is `readiness`.
    pub(crate) fn learn(replicas: Replicas, readiness: Readiness) -> (Self, impl Future<Output = ()>) {
        let unknown = Failure::new(Reason::DependencyUnavailable, "the feature service was not reached yet");
        let (sender, state) = watch::channel(Err(unknown));
        let refresh = Arc::new(Notify::new());
        let task = keep_learning(replicas, readiness, sender, Arc::clone(&refresh));
        (Self { state, refresh }, task)
    }

    /// The model, or why it is not known.
    pub(crate) fn get(&self) -> Result<Arc<KnownModel>, Failure> {
        self.state.borrow().clone()
    }

    /// Asks for the model again soon, as another one seems to answer.
    pub(crate) fn refresh(&self) {
        self.refresh.notify_one();
    }
}

async fn keep_learning(
    replicas: Replicas,
    readiness: Readiness,
    state: watch::Sender<Result<Arc<KnownModel>, Failure>>,
    refresh: Arc<Notify>,
) {
    let mut ready = false;
    let mut heard_at = Instant::now();
    loop {
        let described = describe(&replicas).await;
        let ready_now = match &described {
            Ok(_) => true,
            Err(failure) if failure.reason == Reason::FeatureMismatch => false,
            Err(_) => ready && heard_at.elapsed() <= LOST_AFTER,
        };
        let pause = if described.is_ok() { REFRESH_INTERVAL } else { RETRY_INTERVAL };
        if described.is_ok() {
            heard_at = Instant::now();
        }
        state.send_if_modified(|state| learn(state, described));
        // Only a change is reported, so that a gateway that withdrew its readiness to drain stays withdrawn.
        if ready != ready_now {
            ready = ready_now;
            readiness.set(service_names::CLASSIFIER, ready);
        }
        sleep(RETRY_INTERVAL).await;
        let _ = timeout(pause - RETRY_INTERVAL, refresh.notified()).await;
    }
}

/// Brings `state` up to date and says whether it changed. A service that is merely away does not unlearn a model.
fn learn(state: &mut Result<Arc<KnownModel>, Failure>, described: Result<KnownModel, Failure>) -> bool {
    let new_state = match (&*state, described) {
        (Ok(_), Err(failure)) if failure.reason != Reason::FeatureMismatch => return false,
        (Ok(known), Ok(model)) if **known == model => return false,
        (_, described) => described.map(Arc::new),
    };
    match &new_state {
        Ok(known) => tracing::info!(name = known.model.name, version = known.model.version, "model"),
        Err(failure) => tracing::debug!(%failure, "model not known"),
    }
    *state = new_state;
    true
}

async fn describe(replicas: &Replicas) -> Result<KnownModel, Failure> {
    let away = |message: &str| Failure::new(Reason::DependencyUnavailable, message);
    let replica = replicas.pick().ok_or_else(|| away("no replica of the feature service is known"))?;
    let mut client = FeatureServiceClient::new(replica.channel());
    let answer = timeout(DESCRIBE_TIMEOUT, client.describe_feature(DescribeFeatureRequest {})).await;
    let result = match answer {
        Ok(Ok(response)) => check(response.into_inner()),
        Ok(Err(status)) => Err(feature_failure(&status)),
        Err(_elapsed) => Err(away("the feature service does not answer")),
    };
    if let Err(failure) = &result {
        replica.failed();
        tracing::debug!(address = %replica.address(), %failure, "feature service not described");
    }
    result
}

fn check(response: DescribeFeatureResponse) -> Result<KnownModel, Failure> {
    let expected = feature_id();
    let model = response.model.unwrap_or_default();
    for found in [&response.feature_id, &model.feature_id] {
        if found != expected {
            let message = format!("expected the feature contract {expected}, the feature service has {found:?}");
            return Err(Failure::new(Reason::FeatureMismatch, message));
        }
    }
    let distinct: HashSet<_> = model.labels.iter().collect();
    let labels_fit = (1..=MAX_LABELS).contains(&model.labels.len())
        && distinct.len() == model.labels.len()
        && model.labels.iter().all(|label| !label.is_empty() && label != UNKNOWN);
    if !labels_fit || model.version.is_empty() {
        let message = "the feature service describes a model without a version or without distinct labels";
        return Err(Failure::new(Reason::Internal, message));
    }
    if !(0.0..1.0).contains(&model.unknown_below) {
        let found = model.unknown_below;
        let message = format!("expected a model with unknown_below from 0 to below 1, found {found}");
        return Err(Failure::new(Reason::Internal, message));
    }
    let labels = model.labels.clone().into();
    Ok(KnownModel { model, labels })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description() -> DescribeFeatureResponse {
        let model = Model {
            version: "v1".to_owned(),
            feature_id: feature_id().to_owned(),
            labels: vec!["jazz".to_owned(), "rock".to_owned()],
            ..Model::default()
        };
        DescribeFeatureResponse { feature_id: feature_id().to_owned(), model: Some(model) }
    }

    #[test]
    fn another_feature_contract_is_a_mismatch() {
        assert!(check(description()).is_ok());
        let other_service = DescribeFeatureResponse { feature_id: "other".to_owned(), ..description() };
        assert_eq!(check(other_service).unwrap_err().reason, Reason::FeatureMismatch);
        let mut other_model = description();
        other_model.model.as_mut().unwrap().feature_id = "other".to_owned();
        assert_eq!(check(other_model).unwrap_err().reason, Reason::FeatureMismatch);
    }

    #[test]
    fn a_model_that_cannot_be_voted_on_is_refused() {
        for labels in [vec![], vec!["jazz"; 2], vec!["unknown"], vec![""]] {
            let mut description = description();
            description.model.as_mut().unwrap().labels = labels.into_iter().map(str::to_owned).collect();
            assert_eq!(check(description).unwrap_err().reason, Reason::Internal);
        }
        for (unknown_below, fits) in [(0.0, true), (0.99, true), (1.0, false), (-0.1, false), (f64::NAN, false)] {
            let mut description = description();
            description.model.as_mut().unwrap().unknown_below = unknown_below;
            assert_eq!(check(description).is_ok(), fits, "{unknown_below}");
        }
    }

    #[test]
    fn a_service_that_is_away_does_not_unlearn_the_model() {
        let away = || Failure::new(Reason::DependencyUnavailable, "away");
        let mut state = Err(away());
        assert!(learn(&mut state, check(description())));
        assert!(!learn(&mut state, check(description())));
        assert!(!learn(&mut state, Err(away())));
        assert!(state.is_ok());
        assert!(learn(&mut state, Err(Failure::new(Reason::FeatureMismatch, "other"))));
        assert!(state.is_err());
    }
}
