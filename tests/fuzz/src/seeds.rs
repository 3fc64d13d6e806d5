//! Inputs to begin with, where the repository has no file that is one.

use bytes::Bytes;
use chorale_gateway::fuzzing::CachedVerdicts;
use chorale_model::{Architecture, ModelFolder, SeedCnn, contract::CHUNK_CELLS, contract::feature_id};
use chorale_proto::{
    inference::{
        InferParameter, InferTensorContents, ModelInferRequest, ModelMetadataRequest,
        infer_parameter::ParameterChoice,
        model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
    },
    v1::{
        AnalyzeOptions, AnalyzeRequest, ClassifyOptions, ClassifyRequest, ClassifyStreamRequest, EventKind, GenreScore,
        InferRequest, PcmFormat, SampleFormat, Segment, Verdict, analyze_request, classify_stream_request,
    },
};
use prost::Message;
use serde_json::{Map, Value, json};

use crate::{
    cached_verdict::LABELS,
    model_folder::{FEATURE_ID, VERSION},
    training_data::array,
};

/// The seeds of the target called `name`.
#[must_use]
pub fn seeds(name: &str) -> Vec<Vec<u8>> {
    match name {
        "pcm" => samples(),
        "protocol" => calls(),
        "model_folder" => models(),
        "tracks_csv" => tables(),
        "mel_npy" => vec![array(1, 1), array(2, 30), array(1, 100)],
        "config" => configurations(),
        "cached_verdict" => verdicts(),
        "tensors" => inferences().iter().map(Message::encode_to_vec).collect(),
        _ => Vec::new(),
    }
}

fn tone(samples: u32) -> impl Iterator<Item = u8> {
    (0..samples).map(|n| (128.0 + 90.0 * (f64::from(n * n) * 1e-3).sin()) as u8)
}

fn samples() -> Vec<Vec<u8>> {
    let track = |format: u8, rate: u32, channels: u8, samples| {
        let [a, b, c, d] = rate.to_le_bytes();
        [format, format << 2, channels, a, b, c, d].into_iter().chain(tone(samples)).collect()
    };
    vec![
        track(0, 1_000, 1, 4_000),
        track(1, 2_000, 1, 8_000),
        track(2, 1_500, 2, 16_000),
        track(3, 1_000, 1, 5_000),
        track(4, 1_000, 1, 6_000),
    ]
}

fn calls() -> Vec<Vec<u8>> {
    fn call(rpc: u8, ending: u8, messages: Vec<Vec<u8>>) -> Vec<u8> {
        let framed = messages.into_iter().flat_map(|message| {
            let length = u16::try_from(message.len()).expect("a short message").to_le_bytes();
            length.into_iter().chain(message)
        });
        [rpc, ending].into_iter().chain(framed).collect()
    }
    let pcm = Some(PcmFormat { sample_format: SampleFormat::U8.into(), sample_rate: 1_000, channels: 1 });
    let audio: Bytes = tone(5_500).collect();
    let options = ClassifyOptions {
        content_type: "audio/pcm".to_owned(),
        pcm,
        events: vec![EventKind::ChunkVote.into(), EventKind::Progress.into()],
        top_k: 2,
        ..ClassifyOptions::default()
    };
    let claimed = ClassifyOptions {
        blake3_digest: blake3::hash(&audio).as_bytes().to_vec().into(),
        early_error_rate: 0.05,
        priority: 2,
        deadline_policy: 2,
        bypass_cache: true,
        want_embedding: true,
        ..options.clone()
    };
    let classify = |payload| ClassifyStreamRequest { payload: Some(payload) }.encode_to_vec();
    let parts = |options| {
        let audio = audio.chunks(2_000).map(|part| classify_stream_request::Payload::Audio(audio.slice_ref(part)));
        [classify_stream_request::Payload::Options(options)].into_iter().chain(audio).map(classify).collect::<Vec<_>>()
    };
    let analyze = |payload| AnalyzeRequest { payload: Some(payload) }.encode_to_vec();
    let analyze_options = AnalyzeOptions {
        content_type: "pcm".to_owned(),
        pcm,
        want_mel: true,
        want_envelope: true,
        want_embedding: true,
        feature_id: feature_id().to_owned(),
        ..AnalyzeOptions::default()
    };
    let chunk = |tag| {
        let mel = vec![9; CHUNK_CELLS].into();
        let want_embedding = tag > 1;
        let feature_id = feature_id().to_owned();
        InferRequest { tag, mel, feature_id, timeout_millis: 500, want_embedding, ..InferRequest::default() }
            .encode_to_vec()
    };
    let [about_chunks, _, about_files] = inferences().map(|request| request.encode_to_vec());
    let mut with_deadline = parts(claimed.clone());
    with_deadline.push(b"900m".to_vec());
    vec![
        call(0, 0, parts(options.clone())),
        call(0, 0, parts(claimed)),
        call(0, 2, with_deadline),
        call(0, 1, parts(options.clone())),
        call(
            1,
            0,
            vec![
                analyze(analyze_request::Payload::Options(analyze_options)),
                analyze(analyze_request::Payload::Audio(audio.slice(..3_000))),
                analyze(analyze_request::Payload::Audio(audio.slice(3_000..))),
            ],
        ),
        call(2, 0, vec![chunk(1), chunk(2)]),
        call(3, 0, vec![ClassifyRequest { options: Some(options), audio }.encode_to_vec()]),
        call(4, 0, vec![Vec::new()]),
        call(5, 0, vec![Vec::new()]),
        call(6, 0, vec![Vec::new()]),
        call(7, 0, vec![about_files.clone()]),
        call(8, 0, vec![about_chunks.clone()]),
        call(9, 0, vec![about_files.clone(), vec![0x1a, 0], about_files]),
        call(10, 1, vec![about_chunks.clone(), about_chunks]),
        call(11, 0, vec![ModelMetadataRequest { name: "chorale".to_owned(), ..Default::default() }.encode_to_vec()]),
    ]
}

/// A request about two chunks, one about a file in typed contents, and one about files in raw ones.
fn inferences() -> [ModelInferRequest; 3] {
    let parameter = |name: &str, value| (name.to_owned(), InferParameter { parameter_choice: Some(value) });
    let request = |model: &str, name: &str, datatype: &str, shape: &[i64]| ModelInferRequest {
        model_name: model.to_owned(),
        id: "1".to_owned(),
        inputs: vec![InferInputTensor {
            name: name.to_owned(),
            datatype: datatype.to_owned(),
            shape: shape.to_vec(),
            ..InferInputTensor::default()
        }],
        ..ModelInferRequest::default()
    };
    let chunks = ModelInferRequest {
        raw_input_contents: vec![vec![9; CHUNK_CELLS].into()],
        parameters: [parameter("feature_id", ParameterChoice::StringParam(feature_id().to_owned()))].into(),
        ..request("chorale-gtzan-small", "mel", "UINT8", &[1, 128, 96])
    };
    let mut typed = request("chorale", "audio", "BYTES", &[1]);
    let file: Bytes = tone(5_500).collect();
    let bytes_contents = vec![file.clone()];
    typed.inputs[0].contents = Some(InferTensorContents { bytes_contents, ..InferTensorContents::default() });
    typed.parameters = [
        parameter("pcm", ParameterChoice::StringParam("u8,1000,1".to_owned())),
        parameter("early_error_rate", ParameterChoice::DoubleParam(0.05)),
        parameter("bypass_cache", ParameterChoice::BoolParam(true)),
        parameter("priority", ParameterChoice::Uint64Param(2)),
        parameter("timeout", ParameterChoice::Int64Param(900_000)),
    ]
    .into();
    let classification = parameter("classification", ParameterChoice::Int64Param(1));
    typed.outputs =
        vec![InferRequestedOutputTensor { name: "probabilities".to_owned(), parameters: [classification].into() }];
    let length = u32::try_from(file.len()).expect("a short file").to_le_bytes();
    let element = [&length[..], &file].concat();
    let raw = ModelInferRequest {
        raw_input_contents: vec![element.repeat(2).into()],
        parameters: typed.parameters.clone(),
        ..request("chorale", "audio", "BYTES", &[2])
    };
    [chunks, typed, raw]
}

fn models() -> Vec<Vec<u8>> {
    let embedded = [ModelFolder::embedded(), ModelFolder::embedded_small()];
    let folders = embedded.into_iter().map(|folder| folder.expect("an embedded model"));
    let mut seeds: Vec<Vec<u8>> = folders
        .map(|folder| {
            let shapes = folder.weights().iter().map(|(name, array)| (name.to_owned(), array.shape().to_vec()));
            model(&folder.manifest().architecture, &folder.manifest().labels, shapes)
        })
        .collect();
    let labels = ["jazz", "rock"].map(str::to_owned);
    seeds.push(model(Architecture::SeedCnn.name(), &labels, SeedCnn::tensors(labels.len()).into_iter()));
    // With cells, and with nothing but zeros, which make every filter answer with a constant.
    let cells = [[0.01_f32, 0.02, -0.0, 0.005], [0.0; 4]].map(|cells| cells.map(f32::to_le_bytes).concat());
    let mut seeds: Vec<Vec<u8>> =
        seeds.iter().flat_map(|seed| cells.each_ref().map(|cells| [seed.as_slice(), cells].concat())).collect();
    let scale = |n_mels, fmax, sample_rate, n_fft| json!({"n_mels": n_mels, "fmin": 0, "fmax": fmax, "sample_rate": sample_rate, "n_fft": n_fft, "hop": 256});
    let adapter = json!({
        "source_bands": scale(128, 11_025, 22_050, 2_048),
        "target_bands": scale(96, 8_000, 16_000, 512),
        "level_db": 1.5,
        "band_offset_db": vec![0.0; 96],
    });
    seeds.push(format!("{adapter}\0{{}}\0").into_bytes());
    seeds
}

fn model(architecture: &str, labels: &[String], shapes: impl Iterator<Item = (String, Vec<usize>)>) -> Vec<u8> {
    let contract = json!({
        "architecture": architecture, "feature_id": FEATURE_ID, "labels": labels, "temperature": 1.0, "unknown_below": 0.1,
    });
    let manifest = json!({
        "name": "seed", "version": VERSION, "labels": labels, "feature_id": FEATURE_ID, "architecture": architecture,
        "temperature": 1.0, "unknown_below": 0.1,
    });
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({ "chorale": contract.to_string() }));
    let mut start = 0;
    for (name, shape) in shapes {
        let end = start + 4 * shape.iter().product::<usize>();
        header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]}));
        start = end;
    }
    format!("{manifest}\0{}\0", Value::Object(header)).into_bytes()
}

fn tables() -> Vec<Vec<u8>> {
    [
        "file,genre\na.mp3,jazz\nb.mp3,rock\nc.mp3,jazz\n",
        "track,file,genre,split\nA,a.mp3,jazz,train\nB,\"b,c.mp3\",rock,test\n",
        "row,track,genre,floor_db\n0,one,jazz,-80\n1,two,rock,-60.5\n",
        "row,track,genre,floor_db,split\r\n0,\"one \"\"1\"\"\",jazz,-80,train\r\n1,two,rock,-120,valid\r\n",
    ]
    .map(|table| table.as_bytes().to_vec())
    .to_vec()
}

fn configurations() -> Vec<Vec<u8>> {
    [
        "[gateway]\nlisten = '0.0.0.0:50051'\nfeature = ['http://a:1', 'b:2']\n[gateway.cache]\nurl = 'redis://u:p@h:6379/1'\n\
         ttl = '7d'\nmemory_size = '64 MiB'\ntimeout = '50ms'\nshared_wait = '10s'\nenabled = true\nsecret_file = 'x'\n",
        "[gateway.limits]\nmax_audio_bytes = '1 GiB'\nmax_message_bytes = '32MiB'\nmax_duration = '12h'\n\
         max_concurrent_streams = 1024\nreplay_window = '512 KiB'\nidle_timeout = '1m'\n",
        "[feature]\nlisten = '[::1]:0'\ninference = 'http://c:3'\nmax_concurrent_streams = 9\ntarget_wait = '2s'\n\
         [feature.limits]\nmax_audio_bytes = 1000\nmax_duration = '6h'\nmax_channels = 2\nmax_sample_rate = 48000\n\
         [feature.dispatch]\nwindow = 32\nconnect_patience = '5s'\noverload_patience = '30s'\nanswer_patience = '1m'\n",
        "[inference]\nlisten = '127.0.0.1:1'\nmodel = 'small'\ndevices = 'cpu'\nmax_batch = 32\nmax_queue_delay = '2ms'\n\
         queue_capacity = 1024\ntarget_wait = '1s'\n[admin]\nlisten = '127.0.0.1:9090'\n[log]\nlevel = 'info'\n\
         format = 'json'\n[shutdown]\ndelay = '0s'\ngrace = '30s'\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn verdicts() -> Vec<Vec<u8>> {
    let cached = CachedVerdicts::new(None, &LABELS);
    let score = |genre: &str, probability| GenreScore { genre: genre.to_owned(), probability, ..GenreScore::default() };
    let segment = |genre: &str, start_seconds| Segment {
        genre: genre.to_owned(),
        start_seconds,
        end_seconds: start_seconds + 2.0,
        confidence: 0.5,
        chunk_count: 1,
    };
    let [jazz, rock] = LABELS;
    let verdict = cached.about_this(Verdict {
        genre: jazz.to_owned(),
        confidence: 0.75,
        scores: vec![score(jazz, 0.75), score(rock, 0.25)],
        segments: vec![segment(jazz, 0.0), segment(rock, 2.0)],
        duration_seconds: 4.0,
        chunk_count: 2,
        ..Verdict::default()
    });
    let unknown = Verdict { genre: "unknown".to_owned(), scores: Vec::new(), segments: Vec::new(), ..verdict.clone() };
    let embedded = Verdict { embedding: vec![0.6, -0.8], ..verdict.clone() };
    [verdict, unknown, embedded].map(|verdict| cached.write(&verdict).to_vec()).to_vec()
}
