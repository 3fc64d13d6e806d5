//! `chorale doctor`: looks at a deployment from outside, one step after the other, and says what is wrong and what to do.

use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use chorale_client::BearerToken;
use chorale_proto::{
    service_names::CLASSIFIER,
    v1::{
        ClassifyOptions, ClassifyRequest, GetModelRequest, GetModelResponse, PcmFormat, SampleFormat, Verdict,
        classifier_service_client::ClassifierServiceClient,
    },
};
use chorale_runtime::{
    connector::Connector,
    failure::{Failure, Reason},
    replicas::Target,
};
use serde::Serialize;
use tokio::time::timeout;
use tonic::{Request, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::block_on;
use crate::{admin, cli::DoctorArguments, client, exit::Exit, render};

/// How long any step may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The samples that are sent: 10 s of mono at this rate.
const SAMPLE_RATE: u32 = 22_050;
const SECONDS: u32 = 10;
/// A verdict over them that takes longer says that something is slow.
const SLOW: Duration = Duration::from_secs(5);

/// How a step went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Finding {
    /// As it should be.
    Well,
    /// It works, and somebody should look.
    Odd,
    /// It does not work.
    Ill,
}

/// One step.
#[derive(Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) step: String,
    pub(crate) finding: Finding,
    /// What was found.
    pub(crate) what: String,
    /// What to do about it; empty if it is well.
    pub(crate) advice: String,
}

pub(crate) fn run(arguments: &DoctorArguments) -> anyhow::Result<Exit> {
    let report = block_on(async {
        let mut report = Report { steps: Vec::new(), json: arguments.json };
        // What a step cannot go on without has been reported.
        let _ = examine_gateway(arguments, &mut report).await;
        for target in &arguments.admin {
            examine_process(target, &mut report).await;
        }
        anyhow::Ok(report)
    })?;
    let ill = report.steps.iter().filter(|step| step.finding == Finding::Ill).count();
    if arguments.json {
        anstream::println!("{}", serde_json::to_string(&report.steps)?);
    } else {
        anstream::println!("{}", render::diagnosis(&report.steps));
    }
    Ok(Exit::unless(ill > 0))
}

/// What was found so far. Steps are printed as they come, except as JSON.
struct Report {
    steps: Vec<Step>,
    json: bool,
}

/// A step failed that the next ones build on.
struct GivenUp;

impl Report {
    fn add(&mut self, step: &str, finding: Finding, what: impl Into<String>, advice: impl Into<String>) {
        let step = Step { step: step.to_owned(), finding, what: what.into(), advice: advice.into() };
        if !self.json {
            anstream::println!("{}", render::step(&step));
        }
        self.steps.push(step);
    }

    fn well(&mut self, step: &str, what: impl Into<String>) {
        self.add(step, Finding::Well, what, "");
    }

    fn odd(&mut self, step: &str, what: impl Into<String>, advice: impl Into<String>) {
        self.add(step, Finding::Odd, what, advice);
    }

    fn ill(&mut self, step: &str, what: impl Into<String>, advice: impl Into<String>) -> GivenUp {
        self.add(step, Finding::Ill, what, advice);
        GivenUp
    }
}

/// From the name of the endpoint to a verdict that comes from the cache.
async fn examine_gateway(arguments: &DoctorArguments, report: &mut Report) -> Result<(), GivenUp> {
    let endpoint = &arguments.endpoint;
    let began = Instant::now();
    let connected = async {
        let connector = Connector::new(std::slice::from_ref(endpoint), &arguments.credentials.tls())?;
        anyhow::Ok(connector.connect(endpoint).await?)
    };
    let channel = match timeout(PATIENCE, connected).await.unwrap_or_else(|elapsed| Err(elapsed.into())) {
        Ok(channel) => channel,
        Err(error) => {
            let advice = if endpoint.is_secure() {
                "is it running, does the name resolve, is the port open, and does --tls-ca hold the authority of its certificate?"
            } else {
                "is it running, does the name resolve, is the port open, and does it want https://?"
            };
            return Err(report.ill("connection", format!("{endpoint}: {error:#}"), advice));
        }
    };
    report.well("connection", format!("{endpoint} answers after {}", seconds(began.elapsed())));

    let mut health = HealthClient::new(channel.clone());
    let asked = HealthCheckRequest { service: CLASSIFIER.to_owned() };
    match within(health.check(asked)).await.map(|answer| answer.status()) {
        Ok(ServingStatus::Serving) => report.well("health", format!("{CLASSIFIER} serves")),
        Ok(status) => {
            let advice = "the gateway is not ready: it knows no feature service that has a model, or it drains; look at its \
                          /readyz, and at the log of feature and inference";
            report.ill("health", format!("{CLASSIFIER} is {}", status.as_str_name()), advice);
        }
        Err(failure) => {
            return Err(report.ill(
                "health",
                failure.to_string(),
                "is this the port of a gateway, not of another role?",
            ));
        }
    }

    let mut caller = Caller::new(channel, arguments).map_err(|error| {
        report.ill("token", format!("{error:#}"), "the file of --token-file, or CHORALE_TOKEN, cannot be used")
    })?;
    let known = caller.model().await.map_err(|failure| report.ill("model", failure.to_string(), advice(&failure)))?;
    let versions: Vec<String> = known
        .models
        .iter()
        .filter_map(|served| Some(format!("{} with weight {}", served.model.as_ref()?.version, served.weight)))
        .collect();
    let name = known.model.as_ref().map(|model| model.name.clone()).unwrap_or_default();
    report.well("model", format!("{name}: {}", versions.join(", ")));

    let began = Instant::now();
    let first = caller.classify(true).await;
    let first = first.map_err(|failure| report.ill("verdict", failure.to_string(), advice(&failure)))?;
    let took = began.elapsed();
    let what = format!("{} of {SECONDS} s of sound after {}{}", first.genre, seconds(took), parts(&first));
    if took > SLOW {
        let advice = "look at which part is slow: decode and mel are feature's, queue and compute inference's; what is left is the \
                      network, or the wait for a core of feature (chorale_feature_turn_wait_seconds)";
        report.odd("verdict", what, advice);
    } else {
        report.well("verdict", what);
    }
    examine_cache(&mut caller, report).await;
    Ok(())
}

async fn examine_cache(caller: &mut Caller, report: &mut Report) {
    let began = Instant::now();
    // The first one may be computed, and kept only after it was answered.
    let mut answer = caller.classify(false).await;
    for _ in 0..10 {
        if !matches!(&answer, Ok(verdict) if !verdict.cached) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        answer = caller.classify(false).await;
    }
    match answer {
        Ok(verdict) if verdict.cached => report.well("cache", format!("known after {}", seconds(began.elapsed()))),
        Ok(_) => report.odd(
            "cache",
            "the same sound is computed again",
            "the cache is off (gateway.cache.enabled), or its Redis does not answer: chorale_gateway_cache_lookups_total says which",
        ),
        Err(failure) => {
            report.ill("cache", failure.to_string(), advice(&failure));
        }
    }
}

/// The admin port of one process.
async fn examine_process(target: &Target, report: &mut Report) {
    let step = format!("{target}");
    let (ready, metrics) = match (admin::get(target, "/readyz").await, admin::get(target, "/metrics").await) {
        (Ok(ready), Ok((200, metrics))) => (ready, metrics),
        (Err(error), _) | (_, Err(error)) => {
            report.ill(&step, format!("{error:#}"), "is admin.listen set to an address that can be reached from here?");
            return;
        }
        (_, Ok((status, _))) => {
            report.ill(&step, format!("/metrics answers {status}"), "is this the admin port of Chorale?");
            return;
        }
    };
    match ready {
        (200, services) => report.well(&step, format!("ready: {services}")),
        (_, services) => {
            report.ill(&step, format!("not ready: {services}"), "its log says why");
        }
    }
    for (metric, sick, what, advice) in SIGNS {
        if sum(&metrics, metric).is_some_and(sick) {
            report.odd(&step, *what, *advice);
        }
    }
    for view in ["gateway.replicas", "feature.replicas"] {
        examine_replicas(target, &step, view, report).await;
    }
}

type Sign = (&'static str, fn(f64) -> bool, &'static str, &'static str);

/// What metrics say of a process that does not do well.
const SIGNS: &[Sign] = &[
    (
        "chorale_gateway_cache_breaker_open",
        |value| value > 0.0,
        "the cache is not asked: its Redis does not answer",
        "look at Redis, and at the network before it; calls are answered without it meanwhile",
    ),
    (
        "chorale_gateway_cache_failed_writes_total",
        |value| value > 0.0,
        "verdicts were not kept",
        "is Redis full (maxmemory), or a replica?",
    ),
    (
        "chorale_inference_serving_devices",
        |value| value == 0.0,
        "no device works",
        "the log names the error of the device; the process tries it again by itself",
    ),
    (
        "chorale_inference_forward_failures_total",
        |value| value > 0.0,
        "forward passes failed since the start",
        "the log names the error; look at the memory of the device",
    ),
];

async fn examine_replicas(target: &Target, step: &str, view: &str, report: &mut Report) {
    // A process has the views of its own roles only.
    let Ok((200, text)) = admin::get(target, &format!("/debug/{view}")).await else { return };
    let replicas: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap_or_default();
    let resting: Vec<&str> = replicas
        .iter()
        .filter(|replica| replica["cooling_down"] == true)
        .filter_map(|replica| replica["address"].as_str())
        .collect();
    if replicas.is_empty() {
        report.ill(step, format!("{view}: none is known"), "does the name of the next role resolve?");
    } else if !resting.is_empty() {
        report.odd(
            step,
            format!("{view}: {} of {} just failed", resting.join(", "), replicas.len()),
            "its log says why",
        );
    }
}

/// The sum of a metric over its labels.
fn sum(metrics: &str, name: &str) -> Option<f64> {
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(name)).filter(|rest| rest.starts_with(['{', ' ']));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).reduce(|one, other| one + other)
}

struct Caller {
    classifier: ClassifierServiceClient<Channel>,
    token: Option<BearerToken>,
    sound: Bytes,
}

impl Caller {
    fn new(channel: Channel, arguments: &DoctorArguments) -> anyhow::Result<Self> {
        let token = client::token(&arguments.credentials).context("the bearer token")?;
        Ok(Self { classifier: ClassifierServiceClient::new(channel), token, sound: sound() })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(PATIENCE);
        if let Some(token) = &self.token {
            token.sign(&mut request);
        }
        request
    }

    async fn model(&mut self) -> Result<GetModelResponse, Failure> {
        let request = self.request(GetModelRequest {});
        within(self.classifier.get_model(request)).await
    }

    async fn classify(&mut self, bypass_cache: bool) -> Result<Verdict, Failure> {
        let pcm = PcmFormat { sample_format: SampleFormat::S16le.into(), sample_rate: SAMPLE_RATE, channels: 1 };
        let options = ClassifyOptions { pcm: Some(pcm), bypass_cache, ..ClassifyOptions::default() };
        let request = self.request(ClassifyRequest { options: Some(options), audio: self.sound.clone() });
        let answer = within(self.classifier.classify(request)).await?;
        answer.verdict.ok_or_else(|| Failure::new(Reason::Internal, "the server answered without a verdict"))
    }
}

/// A chord that no other run has sent: the cache knows none of it.
fn sound() -> Bytes {
    let mut samples = BytesMut::new();
    let detune = 1.0 + rand::random::<f64>() / 100.0;
    for index in 0..SAMPLE_RATE * SECONDS {
        let time = f64::from(index) / f64::from(SAMPLE_RATE);
        let tones = [220.0, 277.18, 329.63].map(|tone| (time * tone * detune * std::f64::consts::TAU).sin());
        let sample = tones.iter().sum::<f64>() / 4.0 * f64::from(i16::MAX);
        samples.extend_from_slice(&(sample as i16).to_le_bytes());
    }
    samples.freeze()
}

async fn within<T>(call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Result<T, Failure> {
    match timeout(PATIENCE, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => {
            let mut failure = Failure::from_peer(&status, "the server");
            // A server of something else may say a code and nothing more.
            if failure.message.is_empty() {
                failure.message = status.code().to_string();
            }
            Err(failure)
        }
        Err(_elapsed) => Err(Failure::new(Reason::DeadlineExceeded, format!("no answer within {PATIENCE:?}"))),
    }
}

/// What to do about a failed call.
fn advice(failure: &Failure) -> &'static str {
    match failure.reason {
        Reason::Unauthenticated => "this gateway wants a bearer token: --token-file, or CHORALE_TOKEN",
        Reason::Overloaded => {
            "more work comes than can be done: more replicas of feature and inference, or try again later"
        }
        Reason::Draining => "this replica is shutting down; try again",
        Reason::DependencyUnavailable => "a role behind the gateway is away: --admin looks at each process",
        Reason::FeatureMismatch => "roles of different releases run together: roll all of them out",
        Reason::DeadlineExceeded => "something hangs: --admin looks at each process",
        _ => "the log of the gateway has the call; its request id is in the metadata `x-request-id`",
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.0} ms", duration.as_secs_f64() * 1e3)
}

/// Where the time of a verdict went.
fn parts(verdict: &Verdict) -> String {
    let Some(timing) = &verdict.timing else { return String::new() };
    let parts = [("decode", timing.decode), ("mel", timing.mel), ("queue", timing.queue), ("compute", timing.compute)];
    let part = |(name, duration): (&str, Option<prost_types::Duration>)| {
        let duration = Duration::try_from(duration?).ok()?;
        Some(format!("{name} {:.1} ms", duration.as_secs_f64() * 1e3))
    };
    let parts: Vec<String> = parts.into_iter().filter_map(part).collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_by_their_whole_name() {
        let text = "a_total{x=\"1\"} 2\na_total{x=\"2\"} 3\na_total_more 9\nb 1\n";
        assert_eq!((sum(text, "a_total"), sum(text, "b"), sum(text, "c")), (Some(5.0), Some(1.0), None));
    }
}
