//! Calls that do not follow the protocol are told which part of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use bytes::Bytes;
use chorale_proto::v1::{
    ClassifyOptions, ClassifyRequest, ClassifyStreamRequest, PcmFormat, SampleFormat, classify_stream_request::Payload,
};
use chorale_tests::{Server, client::reason, fixtures, sound, verdict::assert_same};
use tonic::{Code, Status};
use tonic_types::StatusExt;

fn field(status: &Status) -> String {
    assert_eq!((status.code(), reason(status)), (Code::InvalidArgument, "REQUEST_INVALID".to_owned()), "{status}");
    let details = status.get_details_bad_request().expect("the details name the field");
    details.field_violations[0].field.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_begins_with_its_options_and_has_them_once() {
    let server = Server::start("up", &[]).await;
    let mut rpc = server.client().await.rpc;
    let options = || ClassifyStreamRequest { payload: Some(Payload::Options(ClassifyOptions::default())) };
    let audio = || ClassifyStreamRequest { payload: Some(Payload::Audio(fixtures::clip())) };
    let empty = || ClassifyStreamRequest { payload: None };
    for messages in [vec![audio()], vec![options(), audio(), options()], vec![empty()], vec![]] {
        let wrong = format!("{} messages", messages.len());
        let answered = rpc.classify_stream(tokio_stream::iter(messages)).await;
        let refusal = match answered {
            Err(status) => status,
            Ok(response) => {
                let mut events = response.into_inner();
                loop {
                    match events.message().await {
                        Ok(Some(_)) => {}
                        Ok(None) => panic!("{wrong} were not refused"),
                        Err(status) => break status,
                    }
                }
            }
        };
        assert_eq!(reason(&refusal), "REQUEST_INVALID", "{wrong}: {refusal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn options_that_make_no_sense_are_named() {
    let server = Server::start("up", &[]).await;
    let client = server.client().await;
    let pcm = |sample_format: SampleFormat, sample_rate, channels| ClassifyOptions {
        pcm: Some(PcmFormat { sample_format: sample_format.into(), sample_rate, channels }),
        ..ClassifyOptions::default()
    };
    let digest = ClassifyOptions { blake3_digest: Bytes::from_static(b"short"), ..ClassifyOptions::default() };
    let cases = [
        (pcm(SampleFormat::Unspecified, 22_050, 1), "options.pcm"),
        (pcm(SampleFormat::S16le, 0, 1), "options.pcm"),
        (pcm(SampleFormat::S16le, 22_050, 0), "options.pcm"),
        (digest, "options.blake3_digest"),
    ];
    for (options, expected) in cases {
        let audio = sound::wav(&sound::chord(2.0, 7));
        let refusal = client.classify_with(audio, options).await.unwrap_err();
        let field = field(&refusal);
        assert!(field.starts_with(expected), "expected {expected}, found {field}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn audio_that_is_not_what_its_digest_promised_is_refused() {
    let server = Server::start("up", &[]).await;
    let client = server.client().await;
    let promised = blake3::hash(b"something else").as_bytes().to_vec();
    let options = ClassifyOptions { blake3_digest: promised.into(), ..ClassifyOptions::default() };
    for _ in 0..2 {
        let refusal = client.classify_with(fixtures::clip(), options.clone()).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument, "{refusal}");
        assert_eq!(reason(&refusal), "DIGEST_MISMATCH", "the wrong answer is not kept either");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_message_is_answered_like_a_stream() {
    let server = Server::start("up", &[]).await;
    let client = server.client().await;
    let anew = ClassifyOptions { bypass_cache: true, ..ClassifyOptions::default() };
    let request = ClassifyRequest { options: Some(anew.clone()), audio: fixtures::clip() };
    let unary = client.rpc.clone().classify(request).await.unwrap().into_inner().verdict.unwrap();
    let streamed = client.classify_with(fixtures::clip(), anew).await.unwrap();
    assert_same(&unary, &streamed);
    let refusal = client.rpc.clone().classify(ClassifyRequest::default()).await.unwrap_err();
    assert_eq!(reason(&refusal), "AUDIO_EMPTY");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_named_with_its_value() {
    let server = Server::start_with("up", &[], &[("CHORALE_GATEWAY__LIMITS__MAX_AUDIO_BYTES", "20kB")]).await;
    let refusal = server.client().await.classify(fixtures::clip()).await.unwrap_err();
    assert_eq!((refusal.code(), reason(&refusal)), (Code::ResourceExhausted, "LIMIT_EXCEEDED".to_owned()), "{refusal}");
    let metadata = refusal.get_details_error_info().unwrap().metadata;
    assert_eq!(metadata.get("limit").map(String::as_str), Some("max_audio_bytes"), "{metadata:?}");
    assert_eq!(metadata.get("value").map(String::as_str), Some("20000"), "{metadata:?}");
}
