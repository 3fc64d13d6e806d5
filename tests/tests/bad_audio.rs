//! Files that are not what they should be get one clear line each, and cost the server nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use chorale_proto::v1::{Warning, WarningKind};
use chorale_tests::{
    MIB, Server,
    client::reason,
    command, fixtures, note, sound,
    verdict::{assert_coherent, assert_same_sound},
};
use futures::{StreamExt, TryStreamExt};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tonic::Code;

const REFUSED: [&str; 6] = ["empty.mp3", "text.mp3", "clip.opus", "header-only.wav", "no-moov.m4a", "no-audio.mp4"];

fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut noise);
    noise
}

#[test]
fn the_tool_explains_each_bad_file_in_one_line_and_still_does_the_good_one() {
    let folder = tempfile::tempdir().unwrap();
    let random = folder.path().join("random.mp3");
    fs::write(&random, noise(100_000)).unwrap();
    let good = fixtures::formats().remove(0);
    let mut paths: Vec<_> = REFUSED.iter().map(|name| fixtures::broken(name)).collect();
    paths.extend([random, folder.path().join("missing.mp3"), good.clone()]);

    for path in &paths[..paths.len() - 1] {
        let finished = command::run(["classify".as_ref(), path.as_os_str()]).expect_code(1);
        assert_eq!(finished.stdout, "", "{}", path.display());
        let [line] = finished.stderr.lines().collect::<Vec<_>>()[..] else {
            panic!("expected one line, found {:?}", finished.stderr);
        };
        let message = line.strip_prefix(&format!("{}: ", path.display())).expect("the line names the file");
        note(message);
        assert!(message.len() > 10 && !message.contains("panicked"), "{message}");
    }

    let arguments = ["classify", "--json"].map(Path::new).into_iter().chain(paths.iter().map(PathBuf::as_path));
    let (answers, refusals) = command::run(arguments).expect_code(1).json_lines();
    assert_eq!(answers.iter().map(|answer| Path::new(&answer.path)).collect::<Vec<_>>(), [good]);
    let refused: Vec<&Path> = refusals.iter().map(|refusal| Path::new(&refusal.path)).collect();
    assert_eq!(refused, paths[..paths.len() - 1]);
    let codes: Vec<&str> = refusals.iter().map(|refusal| refusal.error.code.as_str()).collect();
    assert_eq!(codes[..codes.len() - 1], ["INVALID_ARGUMENT"; REFUSED.len() + 1]);
    assert_eq!(codes[codes.len() - 1], "NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_why_and_the_server_goes_on() {
    let server = Server::start("up", &[]).await;
    let client = server.client().await;
    let file = |name| fixtures::read(&fixtures::broken(name));
    let cases = [
        ("nothing", Bytes::new(), "AUDIO_EMPTY"),
        ("empty.mp3", file("empty.mp3"), "AUDIO_EMPTY"),
        ("text.mp3", file("text.mp3"), "AUDIO_UNSUPPORTED"),
        ("clip.opus", file("clip.opus"), "AUDIO_UNSUPPORTED"),
        ("no-moov.m4a", file("no-moov.m4a"), "AUDIO_UNREADABLE"),
    ];
    for (name, audio, expected) in cases {
        let refusal = client.classify(audio).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument, "{name}: {refusal}");
        assert_eq!(reason(&refusal), expected, "{name}: {refusal}");
        assert!(!refusal.message().contains('\n'), "{name}: {refusal}");
    }
    let refusal = client.classify(noise(200_000)).await.unwrap_err();
    assert!(["AUDIO_UNSUPPORTED", "AUDIO_UNREADABLE"].contains(&reason(&refusal).as_str()), "{refusal}");
    assert_coherent(&client.classify(fixtures::clip()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_costs_what_is_damaged_and_not_the_answer() {
    let server = Server::start("up", &[]).await;
    let client = server.client().await;
    let whole = client.classify(fixtures::clip()).await.unwrap();

    let damaged = client.classify(fixtures::read(&fixtures::broken("damaged-middle.mp3"))).await.unwrap();
    assert_coherent(&damaged);
    let [warning] = &damaged.warnings[..] else { panic!("expected one warning, found {:?}", damaged.warnings) };
    assert_eq!(warning.kind(), WarningKind::DecodeDamage);
    assert!(warning.count >= 1 && (1.0..4.0).contains(&warning.first_seconds), "{warning:?}");
    assert!((damaged.duration_seconds - whole.duration_seconds).abs() < 0.5, "{}", damaged.duration_seconds);

    let truncated = client.classify(fixtures::read(&fixtures::broken("truncated.mp3"))).await.unwrap();
    assert_coherent(&truncated);
    let kinds: Vec<WarningKind> = truncated.warnings.iter().map(Warning::kind).collect();
    assert!(kinds.contains(&WarningKind::Truncated), "{:?}", truncated.warnings);
    let share = truncated.duration_seconds / whole.duration_seconds;
    assert!((0.6..0.8).contains(&share), "{}", truncated.duration_seconds);

    let misnamed = client.classify(fixtures::read(&fixtures::broken("mp3-named.wav"))).await.unwrap();
    assert_same_sound(&misnamed, &whole);
    assert_eq!(misnamed.audio_format.unwrap().codec, "mp3");
}

#[test]
fn the_tool_shows_a_warning_with_the_verdict() {
    let path = fixtures::broken("damaged-middle.mp3");
    let finished = command::run(["classify".as_ref(), path.as_os_str()]).expect_code(0);
    assert!(finished.stdout.contains("warning:"), "{}", finished.stdout);
    let json = command::run(["classify".as_ref(), "--json".as_ref(), path.as_os_str()]).expect_code(0);
    assert_eq!(json.answers()[0].warnings.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_bad_uploads_leave_memory_where_it_was() {
    const WARM_UP: usize = 200;
    const UPLOADS: usize = 1_000;
    const AT_ONCE: usize = 8;
    let server = Server::start("up", &[]).await;
    let client = server.client().await;
    let mut files: Vec<Bytes> = REFUSED.iter().map(|name| fixtures::read(&fixtures::broken(name))).collect();
    files.push(noise(100_000).into());
    files.push(sound::wav(&sound::chord(0.5, 7)));
    let upload = |count: usize| {
        let (client, files) = (client.clone(), &files);
        async move {
            futures::stream::iter(0..count)
                .map(|index| client.classify(files[index % files.len()].clone()))
                .buffer_unordered(AT_ONCE)
                .map(|result| match result {
                    Err(status) if status.code() == Code::InvalidArgument => Ok(()),
                    other => Err(format!("expected a refusal, found {other:?}")),
                })
                .try_collect::<()>()
                .await
                .unwrap();
        }
    };
    // An answer too, so that everything that is kept for good is there before.
    client.classify(fixtures::clip()).await.unwrap();
    upload(WARM_UP).await;
    let before = server.memory().resident;
    upload(UPLOADS).await;
    let after = server.memory().resident;
    note(format_args!("{} MiB before, {} MiB after", before / MIB, after / MIB));
    assert!(after < before + 32 * MIB, "{} MiB more", (after - before) / MIB);
    assert_eq!(server.metric("chorale_gateway_open_streams"), Some(0.0));
}
