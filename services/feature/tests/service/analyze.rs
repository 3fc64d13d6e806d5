//! Audio goes in, classified chunks come out in order.

use std::{
    f32::consts::TAU,
    net::SocketAddr,
    num::NonZeroUsize,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::available_parallelism,
    time::Duration,
};

use bytes::Bytes;
use chorale_feature::{AudioInput, DispatchConfig, FeatureConfig, Limits, analyze_bytes, start};
use chorale_model::contract;
use chorale_proto::v1::{
    AnalyzeOptions, AnalyzeRequest, AnalyzeResponse, ChunkResult, DescribeFeatureRequest, Envelope, PcmFormat,
    SampleFormat, Summary, analyze_request::Payload, analyze_response::Event,
    feature_service_client::FeatureServiceClient,
};
use chorale_runtime::{
    failure::{Failure, Reason},
    process::Process,
    replicas::Target,
    server::RunningRole,
    shutdown::ShutdownConfig,
};
use futures::{Stream, StreamExt};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming, transport::Channel};

use crate::fake::{Action, FakeInference, fingerprint};

/// A rising tone in a mono WAV file of 16 bits at the contract's rate: no two chunks are alike. It is silent from
/// second `silence.0` to `silence.1`.
fn wav(seconds: usize, silence: (usize, usize)) -> Bytes {
    let rate = contract::SAMPLE_RATE as usize;
    let data_bytes = (seconds * rate * 2) as u32;
    let mut wav = Vec::new();
    wav.extend(b"RIFF");
    wav.extend((36 + data_bytes).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(16_u32.to_le_bytes());
    wav.extend([1_u16, 1].map(u16::to_le_bytes).concat());
    wav.extend([contract::SAMPLE_RATE, contract::SAMPLE_RATE * 2].map(u32::to_le_bytes).concat());
    wav.extend([2_u16, 16].map(u16::to_le_bytes).concat());
    wav.extend(b"data");
    wav.extend(data_bytes.to_le_bytes());
    let mut phase = 0.0;
    for sample in 0..seconds * rate {
        phase = (phase + (200.0 + sample as f32 / 500.0) / rate as f32).fract();
        let silent = (silence.0 * rate..silence.1 * rate).contains(&sample);
        let level = if silent { 0.0 } else { (phase * TAU).sin() * 20_000.0 };
        wav.extend((level as i16).to_le_bytes());
    }
    wav.into()
}

/// The chunks of `audio`, computed here: fingerprint and silence.
fn expected(audio: &Bytes) -> Vec<(f32, bool)> {
    let mut chunks = Vec::new();
    analyze_bytes(audio.clone(), &AudioInput::default(), &Limits::default(), &mut |event| {
        if let chorale_feature::Event::Chunk(chunk) = event {
            let chunk = chunk.quantize();
            chunks.push((fingerprint(&chunk.cells), chunk.silent));
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    chunks
}

struct Service {
    role: RunningRole,
    process: Process,
    client: FeatureServiceClient<Channel>,
}

fn config(fakes: &[&FakeInference]) -> FeatureConfig {
    FeatureConfig {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        inference: fakes.iter().map(|fake| fake.target()).collect(),
        dispatch: DispatchConfig { connect_patience: Duration::from_millis(500), ..DispatchConfig::default() },
        ..FeatureConfig::default()
    }
}

impl Service {
    async fn start(config: FeatureConfig) -> Self {
        let process = Process::default();
        let role = start(config, &process).await.unwrap();
        tokio::time::timeout(Duration::from_secs(5), role.ready()).await.unwrap();
        let client = FeatureServiceClient::connect(Target::from(role.address()).to_string()).await.unwrap();
        Self { role, process, client }
    }

    async fn over(fakes: &[&FakeInference]) -> Self {
        Self::start(config(fakes)).await
    }

    fn measured(&self, line: &str) -> bool {
        self.process.metrics.encode().lines().any(|found| found == line)
    }

    async fn measures(&self, line: &str) {
        for _ in 0..200 {
            if self.measured(line) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{line:?} was not measured:\n{}", self.process.metrics.encode());
    }

    async fn open(
        &self,
        requests: impl Stream<Item = AnalyzeRequest> + Send + 'static,
    ) -> Result<Streaming<AnalyzeResponse>, Status> {
        Ok(self.client.clone().analyze(requests).await?.into_inner())
    }

    async fn analyze(&self, options: AnalyzeOptions, audio: &Bytes) -> Result<Analysis, Failure> {
        let responses = self.open(futures::stream::iter(upload(options, audio))).await;
        collect(responses.map_err(|status| Failure::from_status(&status))?).await
    }
}

fn options_request(options: AnalyzeOptions) -> AnalyzeRequest {
    AnalyzeRequest { payload: Some(Payload::Options(options)) }
}

fn audio_request(audio: Bytes) -> AnalyzeRequest {
    AnalyzeRequest { payload: Some(Payload::Audio(audio)) }
}

fn upload(options: AnalyzeOptions, audio: &Bytes) -> Vec<AnalyzeRequest> {
    let pieces = (0..audio.len()).step_by(50_000).map(|start| audio.slice(start..audio.len().min(start + 50_000)));
    std::iter::once(options_request(options)).chain(pieces.map(audio_request)).collect()
}

#[derive(Debug, Default)]
struct Analysis {
    chunks: Vec<ChunkResult>,
    envelopes: Vec<Envelope>,
    summary: Summary,
}

async fn collect(mut responses: Streaming<AnalyzeResponse>) -> Result<Analysis, Failure> {
    let mut analysis = Analysis::default();
    while let Some(response) = responses.message().await.map_err(|status| Failure::from_status(&status))? {
        assert_eq!(analysis.summary, Summary::default(), "the summary is the last event");
        match response.event.unwrap() {
            Event::Chunk(chunk) => analysis.chunks.push(chunk),
            Event::Envelope(envelope) => analysis.envelopes.push(envelope),
            Event::Summary(summary) => analysis.summary = summary,
        }
    }
    Ok(analysis)
}

/// Every chunk is there once, in order, with the answer for itself.
fn check(analysis: &Analysis, expected: &[(f32, bool)]) {
    assert_eq!(analysis.chunks.len(), expected.len());
    assert_eq!(analysis.summary.chunk_count as usize, expected.len());
    assert_eq!(analysis.summary.feature_id, contract::feature_id());
    for (index, (chunk, &(fingerprint, silent))) in analysis.chunks.iter().zip(expected).enumerate() {
        assert_eq!((chunk.index as usize, chunk.silent), (index, silent));
        let answer = chunk.prediction.as_ref().map(|prediction| prediction.probabilities.clone());
        assert_eq!(answer, (!silent).then(|| vec![fingerprint]), "chunk {index}");
    }
}

#[tokio::test]
async fn results_come_in_order_though_answers_do_not() {
    let fakes = [(); 2].map(|()| FakeInference::start(|nth| Action::AnswerAfter(Duration::from_millis(nth * 37 % 50))));
    let service = Service::over(&[&fakes[0], &fakes[1]]).await;
    let audio = wav(60, (20, 30));
    let expected = expected(&audio);
    let analysis = service.analyze(AnalyzeOptions::default(), &audio).await.unwrap();
    check(&analysis, &expected);

    let voiced = expected.iter().filter(|(_, silent)| !silent).count();
    assert_eq!(expected.len() - voiced, 2, "the windows at both ends of the silence hear the tone");
    assert_eq!(fakes[0].asked() + fakes[1].asked(), voiced as u64, "silence is not sent to inference");
    assert_eq!(analysis.summary.duration_seconds, 60.0);
    assert_eq!(analysis.summary.audio_format.unwrap().sample_rate, contract::SAMPLE_RATE);
    assert!(analysis.summary.decode.is_some() && analysis.summary.mel.is_some());
    assert!(analysis.envelopes.is_empty() && analysis.chunks.iter().all(|chunk| chunk.mel.is_empty()));
    service.measures("chorale_feature_calls_total{rpc=\"Analyze\",code=\"OK\"} 1").await;
    service.measures("chorale_feature_chunks_total{kind=\"silent\"} 2").await;
    service.measures("chorale_feature_open_streams 0").await;
}

#[tokio::test]
async fn embeddings_come_if_wanted_from_whichever_replica_answers() {
    let dying = FakeInference::start(|nth| if nth == 2 { Action::Die } else { Action::Answer });
    let obliging = FakeInference::obliging();
    let service = Service::over(&[&dying, &obliging]).await;
    let audio = wav(30, (10, 20));
    let expected = expected(&audio);
    for want_embedding in [true, false] {
        let options = AnalyzeOptions { want_embedding, ..AnalyzeOptions::default() };
        let analysis = service.analyze(options, &audio).await.unwrap();
        check(&analysis, &expected);
        for (chunk, (fingerprint, silent)) in analysis.chunks.iter().zip(&expected) {
            let embedding = chunk.prediction.as_ref().map(|prediction| prediction.embedding.clone());
            let wanted = if want_embedding { vec![-fingerprint] } else { Vec::new() };
            assert_eq!(embedding, (!silent).then_some(wanted), "chunk {}", chunk.index);
        }
    }
}

#[tokio::test]
async fn mel_and_envelope_come_if_wanted() {
    let fake = FakeInference::obliging();
    let service = Service::over(&[&fake]).await;
    let audio = wav(9, (0, 0));
    let options = AnalyzeOptions { want_mel: true, want_envelope: true, ..AnalyzeOptions::default() };
    let analysis = service.analyze(options, &audio).await.unwrap();
    check(&analysis, &expected(&audio));
    for chunk in &analysis.chunks {
        assert_eq!(chunk.prediction.as_ref().unwrap().probabilities, [fingerprint(&chunk.mel)]);
    }
    let spans: usize = analysis.envelopes.iter().map(|envelope| envelope.minima.len()).sum();
    assert_eq!(spans, 90);
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_when_a_replica_dies_or_drains() {
    for end in [|| Action::Die, || Action::Drain] {
        let ending =
            FakeInference::start(
                move |nth| {
                    if nth < 8 { Action::AnswerAfter(Duration::from_millis(nth * 3)) } else { end() }
                },
            );
        let staying = FakeInference::start(|nth| Action::AnswerAfter(Duration::from_millis(nth % 5)));
        let service = Service::over(&[&ending, &staying]).await;
        let audio = wav(100, (0, 0));
        let expected = expected(&audio);
        let (first, second) = tokio::join!(
            service.analyze(AnalyzeOptions::default(), &audio),
            service.analyze(AnalyzeOptions::default(), &audio)
        );
        check(&first.unwrap(), &expected);
        check(&second.unwrap(), &expected);
    }
}

#[tokio::test]
async fn a_caller_who_leaves_stops_the_work() {
    let fake = FakeInference::start(|nth| if nth < 3 { Action::Ignore } else { Action::Answer });
    let config = FeatureConfig { max_concurrent_streams: NonZeroUsize::MIN, ..config(&[&fake]) };
    let service = Service::start(config).await;
    let (requests, outgoing) = mpsc::channel(4);
    let responses = service.open(ReceiverStream::new(outgoing)).await.unwrap();
    for request in upload(AnalyzeOptions::default(), &wav(9, (0, 0))) {
        requests.send(request).await.unwrap();
    }
    while fake.asked() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(service.measured("chorale_feature_open_streams 1"));
    drop((requests, responses));
    service.measures("chorale_feature_calls_total{rpc=\"Analyze\",code=\"CANCELLED\"} 1").await;
    assert!(service.measured("chorale_feature_audio_seconds_total 0.0"), "the lost end is not taken for an end");

    // The only place is free again when the decoder's thread has ended.
    let began = Instant::now();
    while let Err(failure) = service.analyze(AnalyzeOptions::default(), &wav(9, (0, 0))).await {
        assert_eq!(failure.reason, Reason::Overloaded);
        assert!(began.elapsed() < Duration::from_secs(2), "{failure}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn slow_inference_slows_the_upload() {
    let fake = FakeInference::start(|_| Action::Ignore);
    let mut config = config(&[&fake]);
    config.dispatch.window = NonZeroUsize::new(4).unwrap();
    let service = Service::start(config).await;
    let audio = wav(600, (0, 0));
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&taken);
    let requests = futures::stream::iter(upload(AnalyzeOptions::default(), &audio))
        .inspect(move |_| _ = counter.fetch_add(50_000, Ordering::SeqCst));
    let _responses = service.open(requests).await.unwrap();
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = taken.load(Ordering::SeqCst);
        if now == before && now > 0 {
            break;
        }
        before = now;
    }
    assert!(before < 4_000_000, "{before} of {} bytes were taken", audio.len());
    assert_eq!(fake.asked(), 4);
}

#[tokio::test]
async fn tracks_whose_uploads_pause_keep_no_core_from_others() {
    let fake = FakeInference::obliging();
    let service = Service::over(&[&fake]).await;
    let audio = wav(20, (0, 0));
    let mut paused = Vec::new();
    for _ in 0..available_parallelism().unwrap().get() {
        let (requests, outgoing) = mpsc::channel(1);
        let responses = service.open(ReceiverStream::new(outgoing)).await.unwrap();
        requests.send(options_request(AnalyzeOptions::default())).await.unwrap();
        requests.send(audio_request(audio.slice(..audio.len() / 2))).await.unwrap();
        paused.push((requests, responses));
    }
    let expected = expected(&audio);
    for _ in 0..paused.len() {
        let other = service.analyze(AnalyzeOptions::default(), &audio);
        check(&timeout(Duration::from_secs(10), other).await.expect("a core is free").unwrap(), &expected);
    }
    for (requests, responses) in paused {
        requests.send(audio_request(audio.slice(audio.len() / 2..))).await.unwrap();
        drop(requests);
        check(&collect(responses).await.unwrap(), &expected);
    }
}

#[tokio::test]
async fn tracks_that_wait_for_answers_keep_no_core_from_others() {
    let cores = available_parallelism().unwrap().get();
    let fake = FakeInference::start(move |nth| if nth < cores as u64 { Action::Ignore } else { Action::Answer });
    let mut config = config(&[&fake]);
    config.dispatch.window = NonZeroUsize::MIN;
    let service = Service::start(config).await;
    let audio = wav(60, (0, 0));
    let mut stuck = Vec::new();
    for asked in 1..=cores {
        let requests = futures::stream::iter(upload(AnalyzeOptions::default(), &audio));
        stuck.push(service.open(requests).await.unwrap());
        while fake.asked() < asked as u64 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let other = service.analyze(AnalyzeOptions::default(), &audio);
    check(&timeout(Duration::from_secs(10), other).await.expect("a core is free").unwrap(), &expected(&audio));
}

#[tokio::test]
async fn bad_audio_and_limits_are_named() {
    let fake = FakeInference::obliging();
    let mut config = config(&[&fake]);
    config.limits.max_audio_bytes = bytesize::ByteSize::kib(300);
    config.limits.max_duration = Duration::from_secs(5);
    config.limits.max_channels = 2;
    let service = Service::start(config).await;
    let fails = async |options: AnalyzeOptions, audio: Bytes| service.analyze(options, &audio).await.unwrap_err();
    let plain = AnalyzeOptions::default;

    assert_eq!(fails(plain(), Bytes::new()).await.reason, Reason::AudioEmpty);
    assert_eq!(fails(plain(), "certainly no audio ".repeat(500).into()).await.reason, Reason::AudioUnsupported);
    assert_eq!(fails(plain(), wav(1, (0, 0)).slice(..20_000)).await.reason, Reason::AudioTooShort);
    let raw = |sample_rate, channels| {
        let pcm = PcmFormat { sample_format: SampleFormat::S16le.into(), sample_rate, channels };
        AnalyzeOptions { pcm: Some(pcm), ..plain() }
    };
    for (options, audio, limit) in [
        (plain(), wav(6, (0, 0)), "max_duration"),
        (raw(48_000, 2), vec![0; 400_000].into(), "max_audio_bytes"),
        (raw(8_000, 3), vec![0; 50_000].into(), "max_channels"),
    ] {
        let failure = fails(options, audio).await;
        assert_eq!((failure.reason, &*failure.metadata["limit"]), (Reason::LimitExceeded, limit), "{failure}");
    }

    check(&service.analyze(plain(), &wav(5, (0, 0))).await.unwrap(), &expected(&wav(5, (0, 0))));
    service.measures("chorale_feature_open_streams 0").await;
    service.measures("chorale_feature_decode_errors_total{codec=\"unknown\",kind=\"AUDIO_EMPTY\"} 1").await;
}

#[tokio::test]
async fn requests_that_break_the_protocol_are_refused() {
    let fake = FakeInference::obliging();
    let service = Service::over(&[&fake]).await;
    let fails = async |requests: Vec<AnalyzeRequest>| {
        collect(service.open(futures::stream::iter(requests)).await.unwrap()).await.unwrap_err()
    };
    let options = || options_request(AnalyzeOptions::default());
    for (requests, field) in [
        (vec![], "options"),
        (vec![audio_request(wav(4, (0, 0)))], "options"),
        (vec![options(), options()], "audio"),
        (vec![options(), AnalyzeRequest { payload: None }], "audio"),
    ] {
        let failure = fails(requests).await;
        assert_eq!((failure.reason, failure.field.as_deref()), (Reason::RequestInvalid, Some(field)), "{failure}");
    }
    let failure = fails(vec![options(), audio_request(vec![0; 5 << 20].into())]).await;
    assert_eq!((failure.reason, &*failure.metadata["limit"]), (Reason::LimitExceeded, "max_message_bytes"));
    let other = AnalyzeOptions { feature_id: "another".to_owned(), ..AnalyzeOptions::default() };
    assert_eq!(fails(vec![options_request(other)]).await.reason, Reason::FeatureMismatch);
}

#[tokio::test]
async fn a_deadline_bounds_it_all() {
    let fake = FakeInference::start(|_| Action::Ignore);
    let service = Service::over(&[&fake]).await;
    let began = Instant::now();
    let mut request = Request::new(futures::stream::iter(upload(AnalyzeOptions::default(), &wav(8, (0, 0)))));
    request.metadata_mut().insert("grpc-timeout", "300m".parse().unwrap());
    let responses = service.client.clone().analyze(request).await.unwrap().into_inner();
    assert_eq!(collect(responses).await.unwrap_err().reason, Reason::DeadlineExceeded);
    assert!(began.elapsed() < Duration::from_secs(2));
    service.measures("chorale_feature_open_streams 0").await;
}

#[tokio::test]
async fn one_stream_too_many_is_told_to_come_back() {
    let fake = FakeInference::obliging();
    let service = Service::start(FeatureConfig { max_concurrent_streams: NonZeroUsize::MIN, ..config(&[&fake]) }).await;
    let (requests, outgoing) = mpsc::channel(4);
    let responses = service.open(ReceiverStream::new(outgoing)).await.unwrap();
    requests.send(options_request(AnalyzeOptions::default())).await.unwrap();
    let failure = service.analyze(AnalyzeOptions::default(), &wav(4, (0, 0))).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Overloaded);
    assert!(failure.retry_after.is_some());

    requests.send(audio_request(wav(4, (0, 0)))).await.unwrap();
    drop(requests);
    assert_eq!(collect(responses).await.unwrap().chunks.len(), 1);
    service.measures("chorale_feature_open_streams 0").await;
    service.analyze(AnalyzeOptions::default(), &wav(4, (0, 0))).await.unwrap();
}

#[tokio::test]
async fn a_drain_finishes_what_was_accepted() {
    let fake = FakeInference::obliging();
    let service = Service::over(&[&fake]).await;
    let (requests, outgoing) = mpsc::channel(4);
    let responses = service.open(ReceiverStream::new(outgoing)).await.unwrap();
    requests.send(options_request(AnalyzeOptions::default())).await.unwrap();

    let readiness = service.process.readiness.clone();
    let drained = tokio::spawn(async move { service.role.drain(&ShutdownConfig::default()).await });
    let name = chorale_proto::service_names::FEATURE;
    while readiness.snapshot()[name] {
        tokio::task::yield_now().await;
    }
    let audio = wav(12, (0, 0));
    requests.send(audio_request(audio.clone())).await.unwrap();
    drop(requests);
    check(&collect(responses).await.unwrap(), &expected(&audio));
    tokio::time::timeout(Duration::from_secs(5), drained).await.unwrap().unwrap();
    assert!(!readiness.snapshot()[name]);
}

#[tokio::test]
async fn ready_means_that_inference_answers_on_the_same_contract() {
    let fake = FakeInference::obliging();
    let service = Service::over(&[&fake]).await;
    let described = service.client.clone().describe_feature(DescribeFeatureRequest {}).await.unwrap().into_inner();
    assert_eq!(described.feature_id, contract::feature_id());
    assert_eq!(described.model.unwrap().name, "fake");
    assert_eq!(described.models.len(), 1);

    let other = FakeInference::with_feature_id("another", |_| Action::Answer);
    let process = Process::default();
    let role = start(config(&[&other]), &process).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(500), role.ready()).await.is_err());
    let mut client = FeatureServiceClient::connect(Target::from(role.address()).to_string()).await.unwrap();
    let status = client.describe_feature(DescribeFeatureRequest {}).await.unwrap_err();
    assert_eq!(Failure::from_status(&status).reason, Reason::FeatureMismatch);
}

#[tokio::test]
async fn inference_that_is_gone_is_told() {
    let fake = FakeInference::obliging();
    let service = Service::over(&[&fake]).await;
    fake.die();
    let failure = service.analyze(AnalyzeOptions::default(), &wav(8, (0, 0))).await.unwrap_err();
    assert_eq!(failure.reason, Reason::DependencyUnavailable, "{failure}");
}
