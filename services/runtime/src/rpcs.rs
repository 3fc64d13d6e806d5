//! Every RPC of a role, as `chorale_<role>_rpcs_total` and `chorale_<role>_rpc_seconds`: how many there are, how many fail, and
//! how long they take.
//!
//! A layer around the whole server, so that no RPC is left out: not those that admission refuses, nor health and reflection. A
//! stream is an RPC that lasts until its end. What a role counts besides is what its work came to, by its own reasons.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use hyper::body::{Frame, SizeHint};
use prometheus_client::metrics::{counter::Counter, family::Family, histogram::Histogram};
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::{
    Code, Status,
    codegen::{Body, BoxFuture, Bytes, Service, http},
};
use tower::Layer;

use crate::metrics::{Metrics, RegistryExt, latency_buckets};

/// The `rpc` of a call for what the role does not have: paths come from callers, and any number of them.
const UNKNOWN: &str = "unknown";
/// The names of the gRPC codes, in their order.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Measures the RPCs of a role. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RpcMeter {
    series: Arc<HashMap<String, Series>>,
    unknown: Series,
}

/// The metrics of one RPC.
#[derive(Debug, Clone)]
struct Series {
    by_code: [Counter; CODES.len()],
    seconds: Histogram,
}

impl RpcMeter {
    /// Registers the metrics of `role`, which has every RPC of `services`. All of them are there from the start, at zero.
    pub(crate) fn register(
        metrics: &Metrics,
        role: &'static str,
        services: impl Iterator<Item = &'static str>,
    ) -> Self {
        type Counts = Family<[(&'static str, String); 2], Counter>;
        type Seconds = Family<[(&'static str, String); 1], Histogram, fn() -> Histogram>;
        let (counts, seconds): (Counts, Seconds) = metrics.register(role, |registry| {
            let counts = registry.add("rpcs", "RPCs that ended, by name and gRPC code", Family::default());
            let seconds = registry.add(
                "rpc_seconds",
                "Duration of RPCs, streams until their end, by name, in seconds",
                Family::new_with_constructor((|| Histogram::new(latency_buckets())) as fn() -> Histogram),
            );
            (counts, seconds)
        });
        let series = |rpc: &str| Series {
            by_code: CODES
                .map(|code| counts.get_or_create_owned(&[("rpc", rpc.to_owned()), ("code", code.to_owned())])),
            seconds: seconds.get_or_create_owned(&[("rpc", rpc.to_owned())]),
        };
        let known = rpcs(&services.collect::<Vec<_>>()).map(|rpc| (format!("/{rpc}"), series(&rpc))).collect();
        Self { series: Arc::new(known), unknown: series(UNKNOWN) }
    }

    /// The call of `path` begins.
    fn begin(&self, path: &str) -> Measured {
        let series = self.series.get(path).unwrap_or(&self.unknown).clone();
        Measured { series, began: Instant::now(), ended: false }
    }
}

/// Every RPC of `services`, as `package.Service/Method`.
fn rpcs(services: &[&str]) -> impl Iterator<Item = String> {
    let sets = [
        chorale_proto::DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    // They are of this binary, and reflection does not start with broken ones.
    let files = sets.into_iter().flat_map(|set| FileDescriptorSet::decode(set).unwrap_or_default().file);
    files.flat_map(move |file| {
        let of_service = file.service.iter().flat_map(|service| {
            let name = format!("{}.{}", file.package(), service.name());
            let served = services.contains(&name.as_str());
            service.method.iter().filter(move |_| served).map(move |method| format!("{name}/{}", method.name()))
        });
        of_service.collect::<Vec<_>>()
    })
}

impl<S> Layer<S> for RpcMeter {
    type Service = MeasuredService<S>;

    fn layer(&self, service: S) -> Self::Service {
        MeasuredService { service, meter: self.clone() }
    }
}

/// A service whose calls are measured.
#[derive(Debug, Clone)]
pub struct MeasuredService<S> {
    service: S,
    meter: RpcMeter,
}

impl<S, Asked, Answered> Service<http::Request<Asked>> for MeasuredService<S>
where
    S: Service<http::Request<Asked>, Response = http::Response<Answered>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<MeasuredBody<Answered>>;
    type Error = S::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Asked>) -> Self::Future {
        let mut measured = self.meter.begin(request.uri().path());
        let answering = self.service.call(request);
        Box::pin(async move {
            let response = answering.await?;
            // An answer of headers alone.
            if let Some(status) = Status::from_header_map(response.headers()) {
                measured.end(status.code());
            }
            Ok(response.map(|body| MeasuredBody { body, measured }))
        })
    }
}

/// A call under way. Dropped without an end, nobody waited for it.
#[derive(Debug)]
struct Measured {
    series: Series,
    began: Instant,
    ended: bool,
}

impl Measured {
    fn end(&mut self, code: Code) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if let Some(count) = self.series.by_code.get(code as usize) {
            count.inc();
        }
        self.series.seconds.observe(self.began.elapsed().as_secs_f64());
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

/// An answer whose trailers say how the call ended.
#[derive(Debug)]
pub struct MeasuredBody<B> {
    body: B,
    measured: Measured,
}

impl<B: Body<Data = Bytes> + Unpin> Body for MeasuredBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(status) = frame.trailers_ref().and_then(Status::from_header_map) {
                    self.measured.end(status.code());
                }
            }
            // It broke, or ended without the trailers that gRPC wants.
            Some(Err(_)) | None => self.measured.end(Code::Unknown),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future};

    use futures::stream;
    use tower::{ServiceExt, service_fn};

    use super::*;

    const WATCH: &str = "grpc.health.v1.Health/Watch";
    const INFER: &str = "chorale.v1.InferenceService/Infer";

    fn counted(metrics: &Metrics, rpc: &str, code: &str) -> u64 {
        let start = format!("chorale_inference_rpcs_total{{rpc=\"{rpc}\",code=\"{code}\"}} ");
        let text = metrics.encode();
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap_or_else(|| panic!("no {start} in {text}")).parse().unwrap()
    }

    /// Calls `rpc`, which `answer` answers.
    async fn call(meter: &RpcMeter, rpc: &str, answer: http::Response<Frames>) -> http::Response<MeasuredBody<Frames>> {
        let mut answer = Some(answer);
        let service =
            service_fn(move |_: http::Request<()>| future::ready(Ok::<_, Infallible>(answer.take().unwrap())));
        let request = http::Request::builder().uri(format!("/{rpc}")).body(()).unwrap();
        meter.layer(service).oneshot(request).await.unwrap()
    }

    fn metered() -> (Metrics, RpcMeter) {
        let metrics = Metrics::new();
        let meter = RpcMeter::register(
            &metrics,
            "inference",
            ["chorale.v1.InferenceService", "grpc.health.v1.Health"].into_iter(),
        );
        (metrics, meter)
    }

    fn streamed(frames: Vec<Result<Frame<Bytes>, Status>>) -> http::Response<Frames> {
        http::Response::new(Frames(stream::iter(frames)))
    }

    fn refused(status: &Status) -> http::Response<Frames> {
        let mut answer = streamed(Vec::new());
        status.add_header(answer.headers_mut()).unwrap();
        answer
    }

    struct Frames(stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Status>>>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            futures::Stream::poll_next(Pin::new(&mut self.0), context)
        }
    }

    async fn read(answer: http::Response<MeasuredBody<Frames>>) {
        let mut body = answer.into_body();
        while future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await.is_some() {}
    }

    #[test]
    fn codes_are_in_the_order_of_their_numbers() {
        for (number, name) in (0..).zip(CODES) {
            let code = format!("{:?}", Code::from(number)).to_uppercase();
            assert_eq!(name.replace('_', ""), code);
        }
    }

    #[tokio::test]
    async fn every_rpc_of_the_role_is_there_before_it_was_called() {
        let (metrics, _meter) = metered();
        for rpc in [INFER, "chorale.v1.InferenceService/DescribeInference", WATCH, "grpc.health.v1.Health/Check"] {
            for code in CODES {
                assert_eq!(counted(&metrics, rpc, code), 0);
            }
        }
        assert!(!metrics.encode().contains("FeatureService"));
    }

    #[tokio::test]
    async fn a_call_counts_when_it_ends_by_the_code_of_its_trailers() {
        let (metrics, meter) = metered();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", "14".parse().unwrap());
        let frames = vec![Ok(Frame::data(Bytes::from_static(b"answer"))), Ok(Frame::trailers(trailers))];
        let answer = call(&meter, INFER, streamed(frames)).await;
        assert_eq!(counted(&metrics, INFER, "UNAVAILABLE"), 0, "it has not ended");
        read(answer).await;
        assert_eq!(counted(&metrics, INFER, "UNAVAILABLE"), 1);
        let text = metrics.encode();
        assert!(text.contains(&format!("chorale_inference_rpc_seconds_count{{rpc=\"{INFER}\"}} 1\n")), "{text}");
    }

    #[tokio::test]
    async fn a_refusal_a_break_and_a_caller_that_leaves_count_once_each() {
        let (metrics, meter) = metered();
        let refusal = refused(&Status::resource_exhausted("no place"));
        read(call(&meter, INFER, refusal).await).await;
        assert_eq!(counted(&metrics, INFER, "RESOURCE_EXHAUSTED"), 1);
        for broken in [vec![Err(Status::internal("broke"))], Vec::new()] {
            read(call(&meter, INFER, streamed(broken)).await).await;
        }
        assert_eq!(counted(&metrics, INFER, "UNKNOWN"), 2);
        drop(call(&meter, INFER, streamed(Vec::new())).await);
        assert_eq!(counted(&metrics, INFER, "CANCELLED"), 1);
        let never = service_fn(|_: http::Request<()>| future::pending::<Result<http::Response<Frames>, Infallible>>());
        let request = http::Request::builder().uri(format!("/{INFER}")).body(()).unwrap();
        drop(meter.layer(never).oneshot(request));
        let all: u64 = CODES.iter().map(|code| counted(&metrics, INFER, code)).sum();
        assert_eq!(all, 4, "a call that was never begun is none");
    }

    #[tokio::test]
    async fn what_the_role_does_not_have_is_one_series() {
        let (metrics, meter) = metered();
        for path in ["chorale.v1.FeatureService/Analyze", "x", "../../etc"] {
            read(call(&meter, path, refused(&Status::unimplemented("no"))).await).await;
        }
        assert_eq!(counted(&metrics, UNKNOWN, "UNIMPLEMENTED"), 3);
    }
}
