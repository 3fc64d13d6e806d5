//! What callers do, and what they must find.

use std::{sync::Arc, time::Instant};

use chorale_proto::v1::{
    ClassifyStreamRequest, Verdict, classifier_service_client::ClassifierServiceClient,
    classify_stream_request::Payload,
};
use chorale_tests::verdict::{assert_coherent, assert_same_sound};
use tokio::{
    sync::mpsc,
    time::{Duration, sleep, timeout},
};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt;

use crate::{
    caller::{Attempt, Call, Caller, Ending},
    corpus::{Corpus, Expected, Sample},
    fleet::REPLICAS,
    ledger::Seen,
    plan::{Manner, Plan},
    weather::{Weather, excuses},
};

/// For how long a caller tries again before its track is lost.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long to wait before the next attempt, where the last one's failure did not say.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a process that ends waits for its calls: `shutdown.grace`.
const GRACE: Duration = Duration::from_secs(30);
/// How far a probability may differ between two forward passes.
const TOLERANCE: f32 = 1e-5;

/// What all callers share.
pub(crate) struct World {
    pub(crate) corpus: Corpus,
    pub(crate) caller: Caller,
    pub(crate) weather: Weather,
}

/// Does what is planned. Fails the run if what comes back is not right.
pub(crate) async fn act(world: Arc<World>, plan: Plan) {
    let call = plan.call(&world.corpus);
    world.caller.ledger.count(plan.manner.name());
    match plan.manner {
        Manner::Honest => insist(&world, &plan, &call).await,
        Manner::Leaves { share, linger, alone: false } => {
            leave(&world, &plan, &call, world.caller.client(plan.gateway), share, linger).await;
        }
        Manner::Leaves { share, linger, alone: true } => {
            leave(&world, &plan, &call, world.caller.narrow_client(plan.gateway), share, linger).await;
        }
        Manner::StopsReading { linger } => {
            leave(&world, &plan, &call, world.caller.narrow_client(plan.gateway), 1.0, linger).await;
        }
        Manner::GoesQuiet => go_quiet(&world, &plan, &call).await,
        Manner::Hurries(_) | Manner::TakesPart(_) | Manner::Lies => try_once(&world, &plan, &call).await,
        Manner::Babbles => babble(&world, &plan, &call).await,
    }
}

async fn attempt(world: &World, plan: &Plan, call: &Call, gateway: usize) -> Attempt {
    let attempt =
        if plan.unary { world.caller.unary(gateway, call).await } else { world.caller.stream(gateway, call).await };
    check_votes(plan, &attempt, plan.sample(&world.corpus));
    attempt
}

/// Asks one gateway after the other until there is a verdict, or the refusal that is right.
async fn insist(world: &World, plan: &Plan, call: &Call) {
    let sample = plan.sample(&world.corpus);
    let began = Instant::now();
    for gateway in plan.gateway.. {
        let attempt = attempt(world, plan, call, gateway % REPLICAS).await;
        let status = match (&attempt.ending, &sample.expected) {
            (Ending::Verdict(verdict), Expected::Verdict(expected, _)) => {
                check(plan, call, sample, verdict, expected);
                world.caller.ledger.count(if verdict.cached { "verdicts from the cache" } else { "verdicts computed" });
                return;
            }
            (Ending::Verdict(verdict), Expected::Refusal(reason)) => {
                panic!("{}: expected {reason}, found a verdict: {verdict:?}", sample.name)
            }
            (Ending::Failure(status), Expected::Refusal(reason)) if Seen::of(status) == Seen::Said(reason.clone()) => {
                world.caller.ledger.count("refused as what they are");
                return;
            }
            (Ending::Failure(status), _) => status,
        };
        excuse(world, attempt.began, attempt.accepted, status, &sample.name);
        assert!(began.elapsed() < PATIENCE, "lost: {} has no verdict after {PATIENCE:?}: {status:?}", sample.name);
        world.caller.ledger.count("attempts again");
        let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
        sleep(retry.unwrap_or(PAUSE)).await;
    }
}

/// Fails the run unless some fault is a reason for this failure.
fn excuse(world: &World, began: Instant, accepted: bool, status: &Status, what: &str) {
    let seen = Seen::of(status);
    // A connection ends at its age. A call that is handed to it just then is not sent, and the caller's own transport says so.
    if !accepted && status.code() == Code::Cancelled && status.message() == "operation was canceled" {
        return;
    }
    let felt = world.weather.felt(began, Instant::now());
    // Even a gateway that ends finishes what it has accepted, if that does not take longer than it has.
    let unbroken = !(accepted && seen == Seen::Broken && began.elapsed() < GRACE);
    assert!(
        unbroken && felt.iter().any(|kind| excuses(*kind, &seen)),
        "{what}: {seen} is not what {felt:?} may cause, accepted: {accepted}, after {:.1?}: {status:?}",
        began.elapsed(),
    );
}

/// A caller that is in a hurry or lies has one try, and may have its verdict all the same.
async fn try_once(world: &World, plan: &Plan, call: &Call) {
    let sample = plan.sample(&world.corpus);
    let attempt = attempt(world, plan, call, plan.gateway).await;
    let Expected::Verdict(expected, _) = &sample.expected else {
        unreachable!("only honest callers send what is invalid")
    };
    match &attempt.ending {
        Ending::Verdict(verdict) => {
            assert_ne!(plan.manner, Manner::Lies, "a verdict for a wrong digest: {verdict:?}");
            check(plan, call, sample, verdict, expected);
        }
        Ending::Failure(status) => {
            let right = match (plan.manner, Seen::of(status)) {
                (Manner::Lies, Seen::Said(reason)) => reason == "DIGEST_MISMATCH",
                (_, Seen::Said(reason)) => reason == "DEADLINE_EXCEEDED",
                (_, seen) => seen == Seen::Late,
            };
            if !right {
                excuse(world, attempt.began, attempt.accepted, status, plan.manner.name());
            }
        }
    }
}

/// Sends a share of the track, reads nothing, and leaves after a while.
async fn leave(
    world: &World,
    plan: &Plan,
    call: &Call,
    client: ClassifierServiceClient<Channel>,
    share: f64,
    linger: Duration,
) {
    let (requests, outgoing) = mpsc::channel(1);
    let (first, messages) = (call.first(), call.messages());
    let count = call.audio.len().div_ceil(call.message_bytes);
    let sent = (count as f64 * share) as usize;
    world
        .caller
        .leave_after(plan.gateway, client, outgoing, async |_unread| {
            let sending = async {
                let _ = requests.send(first).await;
                for message in messages.take(sent) {
                    let _ = requests.send(message).await;
                }
            };
            // Against a gateway that takes nothing.
            let _ = timeout(call.deadline, sending).await;
            sleep(linger).await;
        })
        .await;
}

/// A caller that says nothing more is told so, when the gateway has waited for long enough.
async fn go_quiet(world: &World, plan: &Plan, call: &Call) {
    let half = call.audio.len().div_ceil(2);
    let call = Call { message_bytes: half, pause: call.deadline * 2, ..call.clone() };
    let attempt = world.caller.stream(plan.gateway, &call).await;
    match &attempt.ending {
        Ending::Failure(status) if Seen::of(status) == Seen::Said("LIMIT_EXCEEDED".to_owned()) => {
            let info = status.get_details_error_info().expect("the reason is known");
            assert_eq!(info.metadata.get("limit").map(String::as_str), Some("idle_timeout"), "{status:?}");
        }
        Ending::Failure(status) => excuse(world, attempt.began, attempt.accepted, status, plan.manner.name()),
        // Half of a track that is settled is enough.
        Ending::Verdict(verdict) => assert!(verdict.early, "{verdict:?}"),
    }
}

/// Audio where options should be.
async fn babble(world: &World, plan: &Plan, call: &Call) {
    let began = Instant::now();
    let (requests, outgoing) = mpsc::channel(1);
    let payload = Some(Payload::Audio(call.audio.slice(..call.audio.len().min(1_000))));
    requests.send(ClassifyStreamRequest { payload }).await.expect("the receiver is here");
    let status = world
        .caller
        .leave_after(plan.gateway, world.caller.narrow_client(plan.gateway), outgoing, async |events| match events {
            Some(events) => {
                timeout(call.deadline, events.message()).await.expect("stuck: a call without options").err()
            }
            None => None,
        })
        .await;
    // Without one, the gateway was away.
    let status = status.unwrap_or_else(|| Status::unavailable("not connected"));
    if Seen::of(&status) != Seen::Said("REQUEST_INVALID".to_owned()) {
        excuse(world, began, false, &status, plan.manner.name());
    }
}

/// Fails the run unless this is the verdict over that track, as far as it was to be heard.
fn check(plan: &Plan, call: &Call, sample: &Sample, verdict: &Verdict, expected: &Verdict) {
    assert_coherent(verdict);
    let partial = matches!(plan.manner, Manner::TakesPart(_)) && !verdict.warnings.is_empty();
    assert!(!verdict.early || plan.early, "{}: early, which nobody asked for", sample.name);
    if verdict.early || (partial && verdict.chunk_count < expected.chunk_count) {
        assert!(verdict.chunk_count <= expected.chunk_count, "{}: {verdict:?}", sample.name);
        return;
    }
    let facts = |verdict: &Verdict| {
        let Verdict { genre, chunk_count, silent_chunk_count, duration_seconds, model_version, feature_id, .. } =
            verdict;
        (genre.clone(), *chunk_count, *silent_chunk_count, *duration_seconds, model_version.clone(), feature_id.clone())
    };
    if !partial {
        assert_eq!(facts(verdict), facts(expected), "{}", sample.name);
        assert_eq!(verdict.warnings, expected.warnings, "{}", sample.name);
        assert_eq!(verdict.blake3_digest, blake3::hash(&call.audio).as_bytes()[..], "{}", sample.name);
    }
    assert_same_sound(verdict, expected);
}

/// Fails the run unless votes came in order, each once, and the same as ever: one for each chunk of a `verdict`.
fn check_votes(plan: &Plan, attempt: &Attempt, sample: &Sample) {
    let (votes, Expected::Verdict(_, expected)) = (&attempt.votes, &sample.expected) else { return };
    assert!(plan.votes || votes.is_empty(), "{}: votes that nobody asked for", sample.name);
    assert!(votes.len() <= expected.len(), "{}: {} votes, of {} chunks", sample.name, votes.len(), expected.len());
    if let Ending::Verdict(verdict) = &attempt.ending
        && plan.votes
        // An equal call that was quicker answers for the rest.
        && !verdict.cached
    {
        assert_eq!(votes.len(), verdict.chunk_count as usize, "{}: each chunk has one vote", sample.name);
    }
    for ((index, vote), expected) in votes.iter().enumerate().zip(expected) {
        assert_eq!(vote.index as usize, index, "{}: votes come in order, each once", sample.name);
        let near = |(left, right): (&f32, &f32)| (left - right).abs() <= TOLERANCE;
        let same = vote.silent == expected.silent
            && vote.genre == expected.genre
            && vote.probabilities.len() == expected.probabilities.len()
            && vote.probabilities.iter().zip(&expected.probabilities).all(near);
        assert!(same, "{}, chunk {index}: {vote:?} and {expected:?}", sample.name);
    }
}
