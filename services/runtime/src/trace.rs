//! Traces: spans that follow a track through all three services, to an OpenTelemetry collector.
//!
//! Spans are handed on by hand, not by what a thread or a task happens to run: a track crosses threads, streams that all
//! tracks share, and batches. Between services, the context of a span travels as W3C `traceparent`: in the metadata of a call,
//! and in every chunk on the stream that tracks share. Where nothing is exported, or a trace is not sampled, a span costs next
//! to nothing, and the trace id of the caller still gets into the logs.

use std::{
    borrow::Cow,
    time::{Duration, Instant, SystemTime},
};

use opentelemetry::{
    Context as OtelContext, KeyValue, Value, global,
    propagation::{Extractor, Injector, TextMapPropagator},
    trace::{Link, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, Tracer, TracerProvider},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider},
};
use serde::{Deserialize, Serialize};
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};

use crate::{connector::Connector, replicas::Target, telemetry::TelemetryError, tls::ClientTlsConfig};

/// The instrumentation scope of every span.
const SCOPE: &str = "chorale";
/// How long the last spans may take to get to the collector when a process ends, and how long any export may.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// Spans that wait to be exported; further ones are lost. A long track has a thousand at once, and the default is 2,048.
const MAX_QUEUED_SPANS: usize = 16_384;
/// Links of a span: as many as the largest batch has chunks. OpenTelemetry's default is 128.
const MAX_LINKS: u32 = 1_024;
const TRACEPARENT: &str = "traceparent";

/// Where traces go.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// An OpenTelemetry collector that takes OTLP over gRPC, for example `http://127.0.0.1:4317`. Default: none, which traces
    /// nothing.
    pub otlp_endpoint: Option<Target>,
    /// Whom to believe that is the collector, if it is `https://`.
    pub otlp_tls: ClientTlsConfig,
    /// The share of calls that are traced, from 0 to 1, where the caller has not decided already. Default: 0.01.
    pub sample_ratio: f64,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { otlp_endpoint: None, otlp_tls: ClientTlsConfig::default(), sample_ratio: 0.01 }
    }
}

/// What exports spans. To drop it is to send the last ones.
#[derive(Debug)]
pub struct Exporter {
    provider: Option<SdkTracerProvider>,
}

impl Exporter {
    /// Starts to export the spans of `service`, if `config` names a collector. Needs a runtime, but not that the collector is
    /// there.
    ///
    /// # Errors
    /// If the configuration cannot be used.
    pub fn start(config: &TelemetryConfig, service: &str) -> Result<Self, TelemetryError> {
        if !(0.0..=1.0).contains(&config.sample_ratio) {
            return Err(TelemetryError::SampleRatio(config.sample_ratio));
        }
        let Some(collector) = &config.otlp_endpoint else { return Ok(Self { provider: None }) };
        let channel = Connector::new(std::slice::from_ref(collector), &config.otlp_tls)?.connect_lazily(collector)?;
        let exporter =
            SpanExporter::builder().with_tonic().with_channel(channel).with_timeout(EXPORT_TIMEOUT).build()?;
        let resource = Resource::builder_empty()
            .with_service_name(service.to_owned())
            .with_attribute(KeyValue::new("service.namespace", SCOPE))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("service.instance.id", format!("{:032x}", rand::random::<u128>())))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(
                BatchSpanProcessor::builder(exporter)
                    .with_batch_config(BatchConfigBuilder::default().with_max_queue_size(MAX_QUEUED_SPANS).build())
                    .build(),
            )
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample_ratio))))
            .with_max_links_per_span(MAX_LINKS)
            .with_resource(resource)
            .build();
        global::set_tracer_provider(provider.clone());
        Ok(Self { provider: Some(provider) })
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let Some(provider) = &self.provider else { return };
        if let Err(error) = provider.shutdown_with_timeout(EXPORT_TIMEOUT) {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

/// A span that runs until it is dropped.
#[derive(Debug)]
pub struct Span {
    context: OtelContext,
}

/// Where a span is in its trace: what its children need to know. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Context {
    context: OtelContext,
}

impl Span {
    /// Serves a call of `rpc`, `package.Service/Method`, or over HTTP `METHOD /route`: in the trace of who calls, if `metadata`
    /// says so, or in a new one.
    #[must_use]
    pub fn serve(rpc: &'static str, metadata: &MetadataMap) -> Self {
        let caller = TraceContextPropagator::new().extract_with_context(&OtelContext::new(), &Incoming(metadata));
        let attributes = match (rpc.split_once(' '), rpc.split_once('/')) {
            (Some((method, route)), _) => {
                vec![KeyValue::new("http.request.method", method), KeyValue::new("http.route", route)]
            }
            (None, names) => {
                let (service, method) = names.unwrap_or(("", rpc));
                vec![
                    KeyValue::new("rpc.system", "grpc"),
                    KeyValue::new("rpc.service", service),
                    KeyValue::new("rpc.method", method),
                ]
            }
        };
        start(builder(rpc).with_kind(SpanKind::Server).with_attributes(attributes), &caller)
    }

    /// Where it is.
    #[must_use]
    pub fn context(&self) -> Context {
        Context { context: self.context.clone() }
    }

    /// A part of this span, which begins now.
    #[must_use]
    pub fn child(&self, name: &'static str) -> Self {
        self.context().child(name)
    }

    /// Says more about it.
    pub fn set(&self, key: &'static str, value: impl Into<Value>) {
        self.context.span().set_attribute(KeyValue::new(key, value));
    }

    /// Says that it failed, and why.
    pub fn fail(&self, why: impl Into<Cow<'static, str>>) {
        self.context.span().set_status(Status::error(why));
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        // Others may keep its context for longer.
        self.context.span().end();
    }
}

impl Context {
    /// Where `traceparent` says that a span is; nowhere if it is no such header.
    #[must_use]
    pub fn of_traceparent(traceparent: &str) -> Self {
        if traceparent.is_empty() {
            return Self::default();
        }
        Self { context: TraceContextPropagator::new().extract_with_context(&OtelContext::new(), &Header(traceparent)) }
    }

    /// The W3C header that names it; empty if nobody follows this trace.
    #[must_use]
    pub fn traceparent(&self) -> String {
        let mut header = Carried(String::new());
        if self.is_sampled() {
            TraceContextPropagator::new().inject_context(&self.context, &mut header);
        }
        header.0
    }

    /// Whether somebody follows this trace.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.span_context().is_sampled()
    }

    /// The id of the trace, if there is one.
    #[must_use]
    pub fn trace_id(&self) -> Option<String> {
        let span = self.span_context();
        span.is_valid().then(|| span.trace_id().to_string())
    }

    /// Names it in the metadata of a call that belongs to it.
    pub fn inject(&self, metadata: &mut MetadataMap) {
        TraceContextPropagator::new().inject_context(&self.context, &mut Outgoing(metadata));
    }

    /// A part of the span, which begins now.
    #[must_use]
    pub fn child(&self, name: &'static str) -> Span {
        self.start(builder(name))
    }

    /// A part of the span in another service, which begins now.
    #[must_use]
    pub fn call(&self, name: &'static str) -> Span {
        self.start(builder(name).with_kind(SpanKind::Client))
    }

    /// A part of the span, which begins now and is linked to all of `these`, 1,024 at most.
    #[must_use]
    pub fn child_for<'a>(&self, name: &'static str, these: impl IntoIterator<Item = &'a Self>) -> Span {
        let links = these.into_iter().map(Self::span_context).filter(SpanContext::is_sampled);
        let links: Vec<_> = links.map(|context| Link::new(context, Vec::new(), 0)).collect();
        self.start(builder(name).with_links(links))
    }

    /// A part of the span that is over: it took `duration`, until `ended`.
    pub fn record(&self, name: &'static str, ended: Instant, duration: Duration, attributes: &[(&'static str, f64)]) {
        let attributes: Vec<_> = attributes.iter().map(|&(key, value)| KeyValue::new(key, value)).collect();
        let _recorded = self.over(builder(name).with_attributes(attributes), Status::Unset, ended, duration);
    }

    /// The same of a part that failed, and why.
    pub fn record_failure(
        &self,
        name: &'static str,
        ended: Instant,
        duration: Duration,
        why: impl Into<Cow<'static, str>>,
    ) {
        let _recorded = self.over(builder(name), Status::error(why), ended, duration);
    }

    /// The same of what happened in `whole`, which may be in another trace: linked to that. Where the part is, for parts of it.
    #[must_use]
    pub fn record_of(&self, whole: &Span, name: &'static str, ended: Instant, duration: Duration) -> Self {
        let links = vec![Link::new(whole.context().span_context(), Vec::new(), 0)];
        self.over(builder(name).with_links(links), Status::Unset, ended, duration)
    }

    fn over(&self, builder: SpanBuilder, status: Status, ended: Instant, duration: Duration) -> Self {
        if !self.is_sampled() {
            return self.clone();
        }
        // Spans are told by the wall clock.
        let ended = SystemTime::now().checked_sub(ended.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH);
        let began = ended.checked_sub(duration).unwrap_or(SystemTime::UNIX_EPOCH);
        let span = self.start(builder.with_start_time(began));
        span.context.span().set_status(status);
        span.context.span().end_with_timestamp(ended);
        span.context()
    }

    /// Where nobody follows the trace, nothing begins.
    fn start(&self, builder: SpanBuilder) -> Span {
        if self.is_sampled() { start(builder, &self.context) } else { Span { context: self.context.clone() } }
    }

    fn span_context(&self) -> SpanContext {
        self.context.span().span_context().clone()
    }
}

fn builder(name: &'static str) -> SpanBuilder {
    SpanBuilder::from_name(name)
}

fn start(builder: SpanBuilder, parent: &OtelContext) -> Span {
    let tracer = global::tracer_provider().tracer(SCOPE);
    Span { context: parent.with_span(tracer.build_with_context(builder, parent)) }
}

struct Incoming<'a>(&'a MetadataMap);

impl Extractor for Incoming<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

struct Outgoing<'a>(&'a mut MetadataMap);

impl Injector for Outgoing<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) = (MetadataKey::from_bytes(key.as_bytes()), MetadataValue::try_from(value)) {
            self.0.insert(key, value);
        }
    }
}

struct Header<'a>(&'a str);

impl Extractor for Header<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

struct Carried(String);

impl Injector for Carried {
    fn set(&mut self, key: &str, value: String) {
        if key == TRACEPARENT {
            self.0 = value;
        }
    }
}
