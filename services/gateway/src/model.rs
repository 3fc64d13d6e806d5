//! The models that answer: learned from the feature service, and kept up to date.

use std::{cmp::Reverse, collections::HashSet, sync::Arc, time::Duration};

use chorale_model::{contract::feature_id, labels::UNKNOWN};
use chorale_proto::{
    service_names,
    v1::{
        DescribeFeatureRequest, DescribeFeatureResponse, Model, ServedModel,
        feature_service_client::FeatureServiceClient,
    },
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

use crate::{analysis::feature_failure, metrics::GatewayMetrics, share};

/// How often the models are asked for once they are known, and until then.
const REFRESH_INTERVAL: Duration = Duration::from_secs(3);
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// How long a feature replica may take to describe itself.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(2);
/// A gateway whose feature service was silent for this long is not ready.
const LOST_AFTER: Duration = Duration::from_secs(10);
/// More models than are served at a time.
const MAX_MODELS: usize = 64;
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

impl KnownModel {
    /// The hash of its weights.
    pub(crate) fn version(&self) -> &str {
        &self.model.version
    }
}

/// The models that are served, and their weights.
#[derive(Debug, PartialEq)]
pub(crate) struct KnownModels {
    heaviest: Arc<KnownModel>,
    /// All of them, the heaviest first.
    all: Vec<(Arc<KnownModel>, u32)>,
}

impl KnownModels {
    /// The model for a call over the audio with this `digest`, if that is known: the version `pinned`, if it names one.
    ///
    /// # Errors
    /// `MODEL_UNKNOWN` if `pinned` is not served.
    pub(crate) fn choose(
        &self,
        pinned: Option<&str>,
        digest: Option<&blake3::Hash>,
    ) -> Result<Arc<KnownModel>, Failure> {
        let chosen = match (pinned, digest) {
            (Some(version), _) => self.find(version).ok_or_else(|| self.unknown(version))?,
            (None, None) => &self.heaviest,
            (None, Some(digest)) => {
                let score = |(model, weight): &(Arc<KnownModel>, u32)| share::score(digest, model.version(), *weight);
                let best = self.all.iter().max_by(|one, other| score(one).total_cmp(&score(other)));
                best.map_or(&self.heaviest, |(model, _)| model)
            }
        };
        Ok(Arc::clone(chosen))
    }

    /// Whether `version` is served.
    pub(crate) fn serve(&self, version: &str) -> bool {
        self.find(version).is_some()
    }

    fn find(&self, version: &str) -> Option<&Arc<KnownModel>> {
        self.all.iter().map(|(model, _)| model).find(|model| model.version() == version)
    }

    fn unknown(&self, version: &str) -> Failure {
        let served = self.summary();
        let message = format!("expected a model version that is served, {served}; found {version:?}");
        Failure::new(Reason::ModelUnknown, message).with("model_version", version)
    }

    /// What any of them may say.
    fn labels(&self) -> impl Iterator<Item = &str> {
        self.all.iter().flat_map(|(model, _)| model.labels.iter().map(String::as_str))
    }

    /// What is served, for people.
    pub(crate) fn summary(&self) -> String {
        let say = |(model, weight): &(Arc<KnownModel>, u32)| format!("{} with weight {weight}", model.version());
        self.all.iter().map(say).collect::<Vec<_>>().join(", ")
    }

    /// The heaviest, as `GetModel` says it.
    pub(crate) fn heaviest(&self) -> Model {
        self.heaviest.model.clone()
    }

    /// All of them, as `GetModel` says it.
    pub(crate) fn served(&self) -> Vec<ServedModel> {
        let served = |(model, weight): &(Arc<KnownModel>, u32)| ServedModel {
            model: Some(model.model.clone()),
            weight: *weight,
        };
        self.all.iter().map(served).collect()
    }
}

type Known = Result<Arc<KnownModels>, Failure>;

/// The latest models. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct LatestModels {
    state: watch::Receiver<Known>,
    refresh: Arc<Notify>,
}

impl LatestModels {
    /// Models that are not known yet, and the task that learns them and says when the gateway is `readiness`.
    pub(crate) fn learn(
        replicas: Replicas,
        readiness: Readiness,
        metrics: GatewayMetrics,
    ) -> (Self, impl Future<Output = ()>) {
        let unknown = Failure::new(Reason::DependencyUnavailable, "the feature service was not reached yet");
        let (sender, state) = watch::channel(Err(unknown));
        let refresh = Arc::new(Notify::new());
        let task = keep_learning(replicas, readiness, metrics, sender, Arc::clone(&refresh));
        (Self { state, refresh }, task)
    }

    /// The models, or why they are not known.
    pub(crate) fn get(&self) -> Known {
        self.state.borrow().clone()
    }

    /// Asks for the models again soon, as others seem to answer.
    pub(crate) fn refresh(&self) {
        self.refresh.notify_one();
    }
}

async fn keep_learning(
    replicas: Replicas,
    readiness: Readiness,
    metrics: GatewayMetrics,
    state: watch::Sender<Known>,
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
        if let Ok(models) = &described {
            heard_at = Instant::now();
            metrics.expect_votes(models.labels());
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
fn learn(state: &mut Known, described: Result<KnownModels, Failure>) -> bool {
    let new_state = match (&*state, described) {
        (Ok(_), Err(failure)) if failure.reason != Reason::FeatureMismatch => return false,
        (Ok(known), Ok(models)) if **known == models => return false,
        (_, described) => described.map(Arc::new),
    };
    match &new_state {
        Ok(known) => tracing::info!(models = known.summary(), "models"),
        Err(failure) => tracing::debug!(%failure, "models not known"),
    }
    *state = new_state;
    true
}

async fn describe(replicas: &Replicas) -> Result<KnownModels, Failure> {
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

fn check(response: DescribeFeatureResponse) -> Result<KnownModels, Failure> {
    let DescribeFeatureResponse { feature_id, model, mut models } = response;
    check_contract(&feature_id)?;
    if models.is_empty() {
        // A service of an older release has one model.
        models.push(ServedModel { model, weight: 1 });
    }
    if models.len() > MAX_MODELS {
        let message = format!("expected at most {MAX_MODELS} models, the feature service has {}", models.len());
        return Err(Failure::new(Reason::Internal, message));
    }
    // Stable: the service says first which of equal weights is the heaviest.
    models.sort_by_key(|served| Reverse(served.weight));
    let known = |served: ServedModel| {
        check_model(served.model.unwrap_or_default()).map(|model| (Arc::new(model), served.weight))
    };
    let all = models.into_iter().map(known).collect::<Result<Vec<_>, _>>()?;
    let none = || Failure::new(Reason::Internal, "the feature service has no model");
    let heaviest = all.first().map(|(model, _)| Arc::clone(model)).ok_or_else(none)?;
    Ok(KnownModels { heaviest, all })
}

fn check_contract(found: &str) -> Result<(), Failure> {
    let expected = feature_id();
    if found == expected {
        return Ok(());
    }
    let message = format!("expected the feature contract {expected}, the feature service has {found:?}");
    Err(Failure::new(Reason::FeatureMismatch, message))
}

fn check_model(model: Model) -> Result<KnownModel, Failure> {
    check_contract(&model.feature_id)?;
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

    fn model(version: &str) -> Model {
        Model {
            version: version.to_owned(),
            feature_id: feature_id().to_owned(),
            labels: vec!["jazz".to_owned(), "rock".to_owned()],
            ..Model::default()
        }
    }

    /// What a service of an older release says.
    fn description() -> DescribeFeatureResponse {
        let feature_id = feature_id().to_owned();
        DescribeFeatureResponse { feature_id, model: Some(model("v1")), models: Vec::new() }
    }

    fn description_of(models: &[(&str, u32)]) -> DescribeFeatureResponse {
        let served = |&(version, weight): &(&str, u32)| ServedModel { model: Some(model(version)), weight };
        DescribeFeatureResponse { models: models.iter().map(served).collect(), ..description() }
    }

    #[test]
    fn a_call_gets_the_version_that_it_names_or_that_its_digest_falls_to_or_the_heaviest() {
        let known = check(description_of(&[("v1", 1), ("v2", 3), ("v3", 0)])).unwrap();
        let choose = |pinned, digest| known.choose(pinned, digest).unwrap().version().to_owned();
        assert_eq!(choose(None, None), "v2");
        let digests: Vec<_> = (0..400_u32).map(|index| blake3::hash(&index.to_le_bytes())).collect();
        let chosen: Vec<_> = digests.iter().map(|digest| choose(None, Some(digest))).collect();
        let of = |version: &str| chosen.iter().filter(|chosen| *chosen == version).count();
        assert!((60..140).contains(&of("v1")) && of("v3") == 0, "{} {}", of("v1"), of("v3"));
        assert!(digests.iter().zip(&chosen).all(|(digest, chosen)| choose(None, Some(digest)) == *chosen));
        for version in ["v1", "v2", "v3"] {
            assert_eq!(choose(Some(version), Some(&digests[0])), version);
        }
        let failure = known.choose(Some("v4"), None).unwrap_err();
        assert_eq!(failure.reason, Reason::ModelUnknown);
        assert!(["v1", "v2", "v3", "v4"].iter().all(|version| failure.message.contains(version)), "{failure}");
    }

    #[test]
    fn a_service_of_an_older_release_has_one_model() {
        let known = check(description()).unwrap();
        assert_eq!(known.served(), [ServedModel { model: Some(model("v1")), weight: 1 }]);
        assert_eq!(known.heaviest(), model("v1"));
        let many: Vec<_> = (0..=MAX_MODELS as u32).map(|weight| ("v1", weight)).collect();
        assert!(check(description_of(&many)).is_err());
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
