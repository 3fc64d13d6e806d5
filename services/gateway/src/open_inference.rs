//! The Open Inference Protocol: the model `chorale`, whole audio files in, genres out.
//!
//! Each file of a request is a `Classify` call of its own, with the same admission, limits, cache and metrics.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use chorale_proto::{
    inference::{ModelInferRequest, ModelInferResponse, ModelMetadataResponse},
    v1::{
        ClassifyOptions, ClassifyRequest, ClassifyResponse, DeadlinePolicy, Model, Verdict,
        classifier_service_server::ClassifierService,
    },
};
use chorale_runtime::{
    REQUEST_ID,
    failure::Failure,
    open_inference::{
        Call, Datatype, OpenModels, Output, Parameters, RowLimit, TensorSpec, Values, WantedOutputs, quoted,
        take_texts, unknown_model,
    },
};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use tonic::{Request, Response, Status, metadata::MetadataMap};

use crate::{
    auth::Authenticator,
    classifier::Classifier,
    classify::deadline_passed,
    metrics::{CallLabels, GatewayMetrics, Rpc},
    model::{KnownModels, LatestModels},
    pcm_text::parse_pcm,
};

/// The one model of a gateway.
const NAME: &str = "chorale";
/// Files in one request.
const MAX_FILES: RowLimit = RowLimit { name: "max_files_per_request", rows: 16 };
/// Files of one request that are classified at a time.
const AT_A_TIME: usize = 4;
/// Parameters, with the names and the meaning of those fields of `ClassifyOptions`.
const PARAMETERS: [&str; 5] = ["content_type", "pcm", "early_error_rate", "bypass_cache", "deadline_policy"];

/// The model `chorale`, in the versions that the cluster serves.
#[derive(Debug)]
pub(crate) struct OpenTracks {
    classifier: Classifier,
    authenticator: Authenticator,
    models: LatestModels,
    metrics: GatewayMetrics,
}

impl OpenTracks {
    /// What `classifier` says of whole files, for those whom `authenticator` knows.
    pub(crate) fn new(
        classifier: Classifier,
        authenticator: Authenticator,
        models: LatestModels,
        metrics: GatewayMetrics,
    ) -> Self {
        Self { classifier, authenticator, models, metrics }
    }

    /// What a request asks for.
    fn read(&self, call: &Call, mut request: ModelInferRequest) -> Result<Asked, Failure> {
        self.allow(call)?;
        let known = self.models.get()?;
        check_version(&known, &request.model_name, &request.model_version)?;
        let parameters = Parameters::check(&request.parameters, &PARAMETERS)?;
        let wanted = WantedOutputs::of(&request, parameters, &outputs(&known.heaviest()))?;
        let mut options = options(parameters)?;
        let deadline = call.deadline(parameters.timeout()?);
        let files = take_texts(&mut request, &input(), MAX_FILES)?;
        options.model_version = if files.len() > 1 {
            one_version(&known, &request.model_version, files.first())?
        } else {
            request.model_version
        };
        Ok(Asked { id: request.id, known, wanted, options, deadline, files })
    }

    /// Counts and logs a request that fails before it is a call of `Classify` for each of its files.
    fn refuse(&self, failure: Failure) -> Status {
        let code = failure.reason.name();
        self.metrics.calls.get_or_create(&CallLabels { rpc: Rpc::Classify, code }).inc();
        self.metrics.count_limit(&failure);
        tracing::info!(code, message = failure.message, "inference request refused");
        failure.into()
    }

    /// Classifies the files of a request: the answer, and the ids of the calls in metadata.
    async fn classify(&self, call: &Call, asked: Asked) -> Result<Response<ModelInferResponse>, Status> {
        let Asked { id, known, wanted, options, deadline, files } = asked;
        let calls = files.into_iter().map(|file| self.classify_file(call, options.clone(), file, deadline).boxed());
        let answers: Vec<Response<ClassifyResponse>> = stream::iter(calls).buffered(AT_A_TIME).try_collect().await?;

        let mut metadata = MetadataMap::new();
        let mut verdicts = Vec::with_capacity(answers.len());
        for answer in answers {
            if let Some(request_id) = answer.metadata().get(REQUEST_ID) {
                metadata.append(REQUEST_ID, request_id.clone());
            }
            verdicts.extend(answer.into_inner().verdict);
        }
        let model_version = verdicts.first().map(|verdict| verdict.model_version.clone()).unwrap_or_default();
        let labels = self.labels_of(&known, &model_version, verdicts.first());
        let answer = wanted.answer(&tensors(&verdicts, &labels), &labels);
        let response = ModelInferResponse { model_name: NAME.to_owned(), model_version, id, ..answer };
        Ok(Response::from_parts(metadata, response, Default::default()))
    }

    async fn classify_file(
        &self,
        call: &Call,
        options: ClassifyOptions,
        audio: Bytes,
        deadline: Option<Instant>,
    ) -> Result<Response<ClassifyResponse>, Status> {
        let message = ClassifyRequest { options: Some(options), audio };
        let mut request = Request::from_parts(call.metadata().clone(), call.extensions().clone(), message);
        if let Some(deadline) = deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(deadline_passed().into());
            }
            // What is left of it for this file.
            request.set_timeout(left);
        }
        self.classifier.classify(request).await
    }

    /// The labels of the model `version`, in its order. It may have come after `known` did, or have left: then those of the
    /// verdict are all that is known of them.
    fn labels_of(&self, known: &KnownModels, version: &str, verdict: Option<&Verdict>) -> Vec<String> {
        let latest = self.models.get().ok();
        let mut models = known.served().into_iter().chain(latest.iter().flat_map(|latest| latest.served()));
        let served = models.find_map(|served| served.model.filter(|model| model.version == version));
        let of_verdict = || {
            let mut labels: Vec<String> =
                verdict.iter().flat_map(|verdict| &verdict.scores).map(|score| score.genre.clone()).collect();
            labels.sort();
            labels
        };
        served.map_or_else(of_verdict, |model| model.labels)
    }
}

impl OpenModels for OpenTracks {
    fn allow(&self, call: &Call) -> Result<(), Failure> {
        self.authenticator.identify(call.metadata(), call.extensions()).map(drop)
    }

    fn describe(&self, name: &str, version: &str) -> Result<ModelMetadataResponse, Failure> {
        let known = self.models.get()?;
        check_version(&known, name, version)?;
        let models: Vec<Model> = known.served().into_iter().filter_map(|served| served.model).collect();
        let described = models.iter().find(|model| model.version == version).or(models.first());
        Ok(ModelMetadataResponse {
            name: NAME.to_owned(),
            outputs: described.map(outputs).iter().flatten().map(TensorSpec::metadata).collect(),
            versions: models.into_iter().map(|model| model.version).collect(),
            platform: "chorale".to_owned(),
            inputs: vec![input().metadata()],
        })
    }

    async fn infer(&self, call: &Call, request: ModelInferRequest) -> Result<Response<ModelInferResponse>, Status> {
        let asked = self.read(call, request).map_err(|failure| self.refuse(failure))?;
        self.classify(call, asked).await
    }
}

/// What a request asks for.
struct Asked {
    id: String,
    known: Arc<KnownModels>,
    wanted: WantedOutputs,
    options: ClassifyOptions,
    deadline: Option<Instant>,
    files: Vec<Bytes>,
}

/// Whether the model is served under this name, in this version if it is not empty.
fn check_version(known: &KnownModels, name: &str, version: &str) -> Result<(), Failure> {
    if name == NAME && (version.is_empty() || known.serve(version)) {
        return Ok(());
    }
    Err(unknown_model(name, version, &format!("{NAME} in version {}", known.summary())))
}

/// The version for all files of a request: the one that it names, or that of the first.
fn one_version(known: &KnownModels, asked: &str, first: Option<&Bytes>) -> Result<String, Failure> {
    let pinned = (!asked.is_empty()).then_some(asked);
    let digest = first.map(|file| blake3::hash(file));
    Ok(known.choose(pinned, digest.as_ref())?.version().to_owned())
}

fn options(parameters: Parameters<'_>) -> Result<ClassifyOptions, Failure> {
    let invalid = |name: &str, message: String| Failure::invalid(format!("parameters.{name}"), message);
    let pcm = parameters.text("pcm")?.map(parse_pcm).transpose().map_err(|message| invalid("pcm", message))?;
    let deadline_policy = match parameters.text("deadline_policy")? {
        None | Some("fail") => DeadlinePolicy::Fail,
        Some("partial") => DeadlinePolicy::Partial,
        Some(other) => {
            let message = format!("expected `fail` or `partial` as `deadline_policy`, found {}", quoted(other));
            return Err(invalid("deadline_policy", message));
        }
    };
    Ok(ClassifyOptions {
        content_type: parameters.text("content_type")?.unwrap_or_default().to_owned(),
        pcm,
        deadline_policy: deadline_policy.into(),
        bypass_cache: parameters.flag("bypass_cache")?.unwrap_or_default(),
        early_error_rate: parameters.number("early_error_rate")?.unwrap_or_default(),
        priority: parameters.priority()?.into(),
        ..ClassifyOptions::default()
    })
}

/// `audio`: whole files, each as `Classify` takes one.
fn input() -> TensorSpec {
    TensorSpec { name: "audio", datatype: Datatype::Bytes, shape: vec![-1] }
}

/// What `model` says of each file: the genre, its probability, the probability of each label, and once, which label is which.
fn outputs(model: &Model) -> [TensorSpec; 4] {
    let labels = i64::try_from(model.labels.len()).unwrap_or(i64::MAX);
    [
        TensorSpec { name: "genre", datatype: Datatype::Bytes, shape: vec![-1] },
        TensorSpec { name: "confidence", datatype: Datatype::Fp32, shape: vec![-1] },
        TensorSpec { name: "probabilities", datatype: Datatype::Fp32, shape: vec![-1, labels] },
        TensorSpec { name: "labels", datatype: Datatype::Bytes, shape: vec![labels] },
    ]
}

fn tensors(verdicts: &[Verdict], labels: &[String]) -> [Output; 4] {
    let (rows, columns) = (verdicts.len(), labels.len());
    let probability = |verdict: &Verdict, label: &String| {
        verdict.scores.iter().find(|score| score.genre == *label).map_or(0.0, |score| score.probability as f32)
    };
    let confidence = verdicts.iter().map(|verdict| verdict.confidence as f32).collect();
    let probabilities =
        verdicts.iter().flat_map(|verdict| labels.iter().map(move |label| probability(verdict, label))).collect();
    [
        Output {
            name: "genre",
            shape: vec![rows],
            values: Values::texts(verdicts.iter().map(|verdict| &verdict.genre)),
        },
        Output { name: "confidence", shape: vec![rows], values: Values::Fp32(confidence) },
        Output { name: "probabilities", shape: vec![rows, columns], values: Values::Fp32(probabilities) },
        Output { name: "labels", shape: vec![columns], values: Values::texts(labels) },
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use chorale_proto::{
        inference::{InferParameter, infer_parameter::ParameterChoice},
        v1::{GenreScore, Priority},
    };

    use super::*;

    fn text(text: &str) -> InferParameter {
        InferParameter { parameter_choice: Some(ParameterChoice::StringParam(text.to_owned())) }
    }

    fn options_of(entries: &[(&str, &str)]) -> Result<ClassifyOptions, Failure> {
        let values: HashMap<_, _> = entries.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect();
        options(Parameters::check(&values, &PARAMETERS)?)
    }

    #[test]
    fn parameters_are_options() {
        let found = options_of(&[
            ("content_type", "mp3"),
            ("pcm", "u8,8000,2"),
            ("early_error_rate", "0.05"),
            ("bypass_cache", "true"),
            ("deadline_policy", "partial"),
            ("priority", "bulk"),
        ]);
        let found = found.unwrap();
        assert_eq!((found.content_type.as_str(), found.early_error_rate, found.bypass_cache), ("mp3", 0.05, true));
        assert_eq!((found.deadline_policy(), found.priority()), (DeadlinePolicy::Partial, Priority::Bulk));
        assert_eq!(found.pcm.unwrap().sample_rate, 8_000);
        for (name, value) in [("pcm", "mp3"), ("deadline_policy", "late"), ("early_error_rate", "x")] {
            assert_eq!(options_of(&[(name, value)]).unwrap_err().field.unwrap(), format!("parameters.{name}"));
        }
        assert!(options_of(&[("top_k", "3")]).unwrap_err().message.contains("found \"top_k\""));
    }

    #[test]
    fn probabilities_are_in_the_order_of_the_labels() {
        let labels = ["jazz", "pop", "rock"].map(str::to_owned);
        let score =
            |genre: &str, probability| GenreScore { genre: genre.to_owned(), probability, ..GenreScore::default() };
        let verdicts = [
            Verdict {
                genre: "pop".to_owned(),
                confidence: 0.5,
                scores: vec![score("pop", 0.5), score("jazz", 0.25)],
                ..Verdict::default()
            },
            Verdict { genre: "unknown".to_owned(), ..Verdict::default() },
        ];
        let [genre, confidence, probabilities, label] = tensors(&verdicts, &labels);
        assert_eq!(genre.values, Values::texts(["pop", "unknown"]));
        assert_eq!(confidence.values, Values::Fp32(vec![0.5, 0.0]));
        assert_eq!(probabilities.values, Values::Fp32(vec![0.25, 0.5, 0.0, 0.0, 0.0, 0.0]));
        assert_eq!((probabilities.shape.as_slice(), label.shape.as_slice()), (&[2, 3][..], &[3][..]));
    }
}
