//! One classification, from the options to the verdict. The streaming and the unary RPC are both this.
//!
//! ```text
//!  digest known ──▶ settle ──▶ known ───────────────────────────────────────────┐
//!       │             │ lead, alone                                             │
//!       └─ not known ─┴─▶ open a feature call ──▶ Accepted ──▶ hear ──▶ verdict ▼ answer
//!                                                               │ an equal call lands first
//!                                                               ├───────────────▲
//!                                                               │ settled early │
//!                                                               ├───────────────┘
//!                                                               │ the replica goes away
//!                                                               └─▶ open another one, and send the audio again
//! ```
//!
//! The deadline cuts through all of it: see [`Classification::run`].

use std::{
    collections::VecDeque,
    fmt,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use chorale_model::contract::CHUNK_CELLS;
use chorale_proto::v1::{
    Accepted, AnalyzeOptions, AnalyzeRequest, ChunkResult, Envelope, GenreScore, Progress, Summary, Timing, Verdict,
    analyze_request, analyze_response, classify_stream_response::Event,
};
use chorale_runtime::{
    failure::{Failure, Reason},
    replicas::Replicas,
    trace,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout_at},
};

use crate::{
    analysis::{Analysis, another_may_serve},
    answers::{Answers, Lookup, Settled},
    auth::Caller,
    cache::Terms,
    config::LimitsConfig,
    deadline::Deadline,
    flight::{Follower, Leader},
    heard::Heard,
    metrics::GatewayMetrics,
    model::{KnownModel, LatestModels},
    pace::Pace,
    replay::Replay,
    request::{CheckedOptions, Upload},
    told::{EventSender, Teller, Told},
    waveform::Waveform,
};

/// The largest piece of audio in one message to the feature service, in bytes.
const PIECE_BYTES: usize = 256 * 1024;

/// What all classifications of a gateway share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) limits: LimitsConfig,
    pub(crate) shared_wait: Duration,
    /// Whether verdicts of one caller with a token are for others, too.
    pub(crate) across_callers: bool,
    pub(crate) replicas: Replicas,
    pub(crate) models: LatestModels,
    pub(crate) answers: Answers,
    pub(crate) metrics: GatewayMetrics,
}

/// Where a call comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub(crate) request_id: &'a str,
    pub(crate) caller: &'a Caller,
    pub(crate) trace: &'a trace::Context,
}

/// One call.
pub(crate) struct Classification<'a> {
    context: &'a Context,
    origin: Origin<'a>,
    options: CheckedOptions,
    deadline: Option<Deadline>,
    teller: Teller<'a>,
    began: Instant,
    bytes_received: &'a AtomicU64,
    waveform: Waveform,
}

/// What a call that computes is to its equals.
enum Role {
    /// Others may wait for this call.
    Leader(Leader),
    /// An equal call may answer first.
    Follower(Follower),
    /// Neither, or not yet.
    Alone,
}

/// How hearing a track ended.
enum Outcome {
    /// To the end.
    Heard(Box<Summary>, Role),
    /// As far as could matter.
    Early,
    /// An equal call was quicker, or the answer was known.
    Known(Arc<Verdict>),
}

impl<'a> Classification<'a> {
    /// A call whose first message has just come.
    pub(crate) fn new(
        context: &'a Context,
        origin: Origin<'a>,
        options: CheckedOptions,
        deadline: Option<Deadline>,
        events: Option<&'a EventSender>,
        bytes_received: &'a AtomicU64,
    ) -> Self {
        let teller = Teller::new(events, context.limits.idle_timeout);
        let (began, waveform) = (Instant::now(), Waveform::default());
        Self { context, origin, options, deadline, teller, began, bytes_received, waveform }
    }

    /// Classifies `upload`: the answer, at most `top_k` scores long.
    ///
    /// When the deadline comes near, all work ends, and what was heard so far is the answer if the options say so.
    ///
    /// # Errors
    /// As `classifier.proto` lists them.
    pub(crate) async fn run(mut self, upload: Upload) -> Result<Verdict, Failure> {
        let digest = self.known_digest(&upload)?;
        let model = self.choose_model(digest.as_ref())?;
        let mut heard = Heard::new(model, self.options.analyze.want_embedding);
        if matches!(upload, Upload::Whole(_)) {
            heard.digest = digest;
        }
        let partial_at_deadline = self.options.partial_at_deadline;
        let answer_by = self.deadline.map(|deadline| deadline.answer_by(partial_at_deadline));
        let work = Box::pin(self.steps(upload, &mut heard));
        let result = match answer_by {
            None => work.await,
            Some(answer_by) => timeout_at(answer_by, work).await.unwrap_or_else(|_elapsed| Err(deadline_passed())),
        };
        let mut verdict = match result {
            Err(failure) if failure.reason == Reason::DeadlineExceeded && partial_at_deadline => {
                heard.partial_verdict(self.began).ok_or(failure)?
            }
            result => result?,
        };
        truncate(&mut verdict.scores, self.options.top_k);
        Ok(verdict)
    }

    /// The digest of the audio, if it is known before the audio was heard: computed, or as the caller claims.
    fn known_digest(&self, upload: &Upload) -> Result<Option<blake3::Hash>, Failure> {
        let Upload::Whole(audio) = upload else { return Ok(self.options.claimed_digest) };
        if audio.is_empty() {
            return Err(empty());
        }
        let digest = blake3::hash(audio);
        self.check_claim(digest)?;
        Ok(Some(digest))
    }

    /// The model for audio with this `digest`, which the feature service is asked for from now on.
    fn choose_model(&mut self, digest: Option<&blake3::Hash>) -> Result<Arc<KnownModel>, Failure> {
        let model = self.context.models.get()?.choose(self.options.pinned_version.as_deref(), digest)?;
        self.options.analyze.model_version = model.version().to_owned();
        Ok(model)
    }

    async fn steps(&mut self, mut upload: Upload, heard: &mut Heard) -> Result<Verdict, Failure> {
        let model = Arc::clone(&heard.model);
        let known_digest = heard.digest.or(self.options.claimed_digest);
        let role = match known_digest.filter(|_| self.options.reads_cache()) {
            None => Role::Alone,
            Some(digest) => {
                let wait = self.wait_for_equals();
                let span = self.origin.trace.child("cache");
                let settled = self.context.answers.settle(&digest, &model, self.terms(), wait).await;
                span.set("chorale.cached", matches!(settled, Settled::Known(_)));
                drop(span);
                match settled {
                    Settled::Known(verdict) => {
                        self.accept(&model, false).await?;
                        return Ok(cached(&verdict));
                    }
                    Settled::Lead(leader) => self.lead(leader),
                    Settled::Alone => Role::Alone,
                }
            }
        };

        let analysis = self.open().await?;
        self.accept(&model, true).await?;
        match self.hear(&mut upload, analysis, heard, role).await? {
            Outcome::Known(verdict) => Ok(cached(&verdict)),
            Outcome::Early => {
                self.context.metrics.early_verdicts.inc();
                Ok(heard.early_verdict(self.began))
            }
            Outcome::Heard(summary, role) => self.conclude(heard, *summary, role),
        }
    }

    /// What the verdict depends on beside audio and model.
    fn terms(&self) -> Terms<'_> {
        let Caller { key, is_tenant, .. } = self.origin.caller;
        let tenant = (*is_tenant && !self.context.across_callers).then_some(&**key);
        let AnalyzeOptions { pcm, want_embedding, .. } = &self.options.analyze;
        Terms { pcm: pcm.as_ref(), tenant, embedding: *want_embedding }
    }

    /// Opens a call of the feature service.
    async fn open(&self) -> Result<Analysis, Failure> {
        let remaining = self.deadline.map(|deadline| deadline.remaining());
        let Context { replicas, metrics, .. } = self.context;
        Analysis::open(replicas, &self.options.analyze, self.origin, remaining, metrics).await
    }

    /// Opens a call on another replica than the one that `failure` ended, if the whole audio can be sent again: it, and that
    /// audio.
    async fn reopen(
        &mut self,
        failure: Failure,
        heard: &mut Heard,
        replay: &mut Replay,
    ) -> Result<(Analysis, Vec<Bytes>), Failure> {
        let Context { replicas, metrics, .. } = self.context;
        if !another_may_serve(&failure, replicas.current().len()) {
            return Err(failure);
        }
        let audio = replay.again().ok_or(failure)?;
        metrics.replays.inc();
        self.follow_switch(heard)?;
        Ok((self.open().await?, audio))
    }

    /// Begins again with the model that is chosen now, if the one before is not served any more, and the caller neither named
    /// it nor was told what it says. Those calls may still find it where it lingers.
    fn follow_switch(&mut self, heard: &mut Heard) -> Result<(), Failure> {
        let told = heard.tally.chunks() > 0 && (self.options.chunk_votes || self.options.progress);
        let bound = told || self.options.pinned_version.is_some();
        if bound || self.context.models.get()?.serve(heard.model.version()) {
            return Ok(());
        }
        let digest = heard.digest.or(self.options.claimed_digest);
        heard.begin_again(self.choose_model(digest.as_ref())?);
        Ok(())
    }

    /// Lets equal calls wait for this one, unless it may end with a verdict that is not for them.
    fn lead(&self, leader: Leader) -> Role {
        if self.options.early_error_rate > 0.0 { Role::Alone } else { Role::Leader(leader) }
    }

    /// How long to wait for an equal call: half of the time that is left, so that the other half is enough to
    /// compute the answer after all.
    fn wait_for_equals(&self) -> Duration {
        let wait = self.context.shared_wait;
        self.deadline.map_or(wait, |deadline| wait.min(deadline.remaining() / 2))
    }

    /// Moves audio to the feature service and results back, until the track was heard to its end.
    async fn hear(
        &mut self,
        upload: &mut Upload,
        mut analysis: Analysis,
        heard: &mut Heard,
        mut role: Role,
    ) -> Result<Outcome, Failure> {
        let idle_timeout = self.context.limits.idle_timeout;
        let mut uploading = true;
        let mut summary: Option<Summary> = None;
        // What came and was not sent yet, or must be sent again.
        let mut unsent = VecDeque::new();
        // A track that is there as a whole takes no more memory for being kept.
        let whole = matches!(upload, Upload::Whole(_));
        let mut replay = Replay::new(if whole { u64::MAX } else { self.context.limits.replay_window.as_u64() });
        let mut known_chunks = 0;
        let mut moved_at = Instant::now();
        let mut pace = Pace::new(self.context.limits.min_upload_rate.as_u64(), idle_timeout);
        loop {
            if !uploading && unsent.is_empty() {
                analysis.requests = None;
            }
            if let Some(summary) = summary.take_if(|_| !uploading) {
                analysis.end();
                return Ok(Outcome::Heard(Box::new(summary), role));
            }
            let caller_is_behind = uploading && unsent.is_empty();
            tokio::select! {
                // Results first: they free what they stand for.
                biased;
                message = analysis.responses.message(), if summary.is_none() => {
                    let message = match message {
                        Ok(message) => message,
                        Err(status) => {
                            let failure = analysis.broke_off(&status);
                            let (again, audio) = self.reopen(failure, heard, &mut replay).await?;
                            (analysis, unsent) = (again, audio.into());
                            known_chunks = heard.tally.chunks();
                            continue;
                        }
                    };
                    let message = message.ok_or_else(|| feature_bug("ended without a summary"))?;
                    match message.event {
                        // Heard before the audio was sent again.
                        Some(analyze_response::Event::Chunk(chunk)) if chunk.index < known_chunks => {}
                        Some(analyze_response::Event::Chunk(chunk)) => {
                            self.hear_chunk(heard, chunk).await?;
                            if heard.tally.is_settled(self.options.early_error_rate) {
                                return Ok(Outcome::Early);
                            }
                        }
                        Some(analyze_response::Event::Summary(found)) => summary = Some(found),
                        Some(analyze_response::Event::Envelope(envelope)) => self.hear_envelope(envelope).await?,
                        None => {}
                    }
                }
                landed = landing(&mut role) => match landed {
                    Some(verdict) => {
                        self.context.metrics.flights_shared.inc();
                        return Ok(Outcome::Known(verdict));
                    }
                    None => role = Role::Alone,
                },
                room = room(analysis.requests.clone()), if !unsent.is_empty() => match room {
                    Some(room) => {
                        if let Some(audio) = next_piece(&mut unsent) {
                            room.send(AnalyzeRequest { payload: Some(analyze_request::Payload::Audio(audio)) });
                        }
                    }
                    // The feature service has heard enough; the rest counts for the digest only.
                    None => unsent.clear(),
                },
                next = upload.next(), if caller_is_behind => match next? {
                    // An empty message must not keep an idle upload alive.
                    Some(audio) if audio.is_empty() => continue,
                    Some(audio) => {
                        self.receive(heard, &audio)?;
                        replay.keep(&audio);
                        unsent.push_back(audio);
                    }
                    None => {
                        uploading = false;
                        let digest = self.end_of_upload(heard)?;
                        if self.options.reads_cache() && !matches!(role, Role::Leader(_)) {
                            let span = self.origin.trace.child("cache");
                            let found = self.context.answers.look_up(&digest, &heard.model, self.terms()).await;
                            span.set("chorale.cached", matches!(found, Lookup::Known(_)));
                            drop(span);
                            role = match found {
                                Lookup::Known(verdict) => return Ok(Outcome::Known(verdict)),
                                Lookup::Lead(leader) => self.lead(leader),
                                Lookup::Follow(follower) => Role::Follower(follower),
                            };
                        }
                    }
                },
                () = sleep_until(moved_at + idle_timeout) => {
                    return Err(if caller_is_behind {
                        let message = format!("the upload paused for more than {idle_timeout:?}");
                        Failure::limit("idle_timeout", format_args!("{idle_timeout:?}"), message)
                    } else {
                        let message = format!("the feature service did nothing for {idle_timeout:?}");
                        Failure::new(Reason::DependencyUnavailable, message)
                    });
                }
            }
            let now = Instant::now();
            if caller_is_behind {
                pace.waited(now - moved_at, self.bytes_received.load(Ordering::Relaxed))?;
            }
            moved_at = now;
            self.tell_progress(heard);
        }
    }

    /// Counts and digests audio that came.
    fn receive(&self, heard: &mut Heard, audio: &[u8]) -> Result<(), Failure> {
        let length = audio.len() as u64;
        let received = self.bytes_received.fetch_add(length, Ordering::Relaxed) + length;
        self.context.metrics.audio_bytes.inc_by(length);
        let limit = self.context.limits.max_audio_bytes.as_u64();
        if received > limit {
            let message = format!("expected at most {limit} bytes of audio");
            return Err(Failure::limit("max_audio_bytes", limit, message));
        }
        if heard.digest.is_none() {
            heard.hasher.update(audio);
        }
        Ok(())
    }

    fn end_of_upload(&self, heard: &mut Heard) -> Result<blake3::Hash, Failure> {
        if self.bytes_received.load(Ordering::Relaxed) == 0 {
            return Err(empty());
        }
        let digest = heard.digest.unwrap_or_else(|| heard.hasher.finalize());
        heard.digest = Some(digest);
        self.check_claim(digest)?;
        Ok(digest)
    }

    fn check_claim(&self, digest: blake3::Hash) -> Result<(), Failure> {
        match self.options.claimed_digest {
            Some(claimed) if claimed != digest => {
                let message = format!("expected audio with the BLAKE3 digest {claimed}, found {digest}");
                Err(Failure::new(Reason::DigestMismatch, message).with("digest", digest))
            }
            _ => Ok(()),
        }
    }

    async fn hear_chunk(&self, heard: &mut Heard, chunk: ChunkResult) -> Result<(), Failure> {
        let max_duration = self.context.limits.max_duration.as_secs_f64();
        if chunk.start_seconds > max_duration {
            return Err(too_long(max_duration));
        }
        if self.options.analyze.want_mel && chunk.mel.len() != CHUNK_CELLS {
            return Err(feature_bug(format_args!("sent {} cells of a chunk of {CHUNK_CELLS}", chunk.mel.len())));
        }
        let vote = heard.add(chunk).map_err(feature_bug)?;
        self.context.metrics.count_vote(&vote);
        if !heard.one_model {
            self.context.models.refresh();
        }
        if self.options.chunk_votes {
            let labels = Arc::clone(&heard.model.labels);
            self.teller.tell(Told { event: Event::ChunkVote(vote), labels }).await?;
        }
        Ok(())
    }

    /// Passes a stretch of the waveform on, unless the caller has it from before the audio was sent again.
    async fn hear_envelope(&mut self, envelope: Envelope) -> Result<(), Failure> {
        if self.options.envelopes && self.waveform.extend(&envelope).map_err(feature_bug)? {
            self.teller.tell(Told::of(Event::Envelope(envelope))).await?;
        }
        Ok(())
    }

    /// The verdict over a track that was heard to its end. Others get it too, if it is the one that they would get.
    fn conclude(&self, heard: &Heard, summary: Summary, role: Role) -> Result<Verdict, Failure> {
        let max_duration = self.context.limits.max_duration.as_secs_f64();
        if summary.duration_seconds > max_duration {
            return Err(too_long(max_duration));
        }
        let feature_id = &heard.model.model.feature_id;
        if summary.feature_id != *feature_id {
            let found = &summary.feature_id;
            let message = format!("expected chunks of the feature contract {feature_id}, found {found:?}");
            return Err(Failure::new(Reason::FeatureMismatch, message));
        }
        let whole = summary.chunk_count == heard.tally.chunks() && summary.chunk_count > 0;
        if !whole || !summary.duration_seconds.is_finite() || summary.duration_seconds < 0.0 {
            return Err(feature_bug(format_args!(
                "summed up {} chunks in {} s after sending {}",
                summary.chunk_count,
                summary.duration_seconds,
                heard.tally.chunks()
            )));
        }

        let _vote = self.origin.trace.child("vote");
        let timing = Timing { decode: summary.decode, mel: summary.mel, ..heard.timing(self.began) };
        let verdict = Verdict {
            warnings: summary.warnings,
            audio_format: summary.audio_format,
            ..heard.verdict(summary.duration_seconds, timing)
        };
        if let Some(digest) = heard.digest.filter(|_| heard.one_model && !self.options.bypass_cache) {
            let leader = match role {
                Role::Leader(leader) => Some(leader),
                _ => None,
            };
            self.context.answers.keep(&digest, &heard.model, self.terms(), leader, &verdict);
        }
        Ok(verdict)
    }

    async fn accept(&self, model: &KnownModel, audio_wanted: bool) -> Result<(), Failure> {
        let accepted = Accepted {
            request_id: self.origin.request_id.to_owned(),
            audio_wanted,
            model_version: model.version().to_owned(),
        };
        self.teller.tell(Told::of(Event::Accepted(accepted))).await
    }

    /// Sends the running tally if it is wanted and due.
    fn tell_progress(&mut self, heard: &Heard) {
        if !self.options.progress {
            return;
        }
        self.teller.tell_now_and_then(|| {
            let mut scores = heard.tally.scores();
            truncate(&mut scores, self.options.top_k);
            Event::Progress(Progress {
                bytes_received: self.bytes_received.load(Ordering::Relaxed),
                seconds_heard: heard.tally.seconds_heard(),
                chunks: heard.tally.chunks(),
                scores,
            })
        });
    }
}

/// Waits for the call that this one follows; for ever if there is none.
async fn landing(role: &mut Role) -> Option<Arc<Verdict>> {
    match role {
        Role::Follower(follower) => follower.landed().await,
        _ => pending().await,
    }
}

/// The next piece of what is to be sent.
fn next_piece(unsent: &mut VecDeque<Bytes>) -> Option<Bytes> {
    let first = unsent.front_mut()?;
    let piece = first.split_to(first.len().min(PIECE_BYTES));
    if first.is_empty() {
        unsent.pop_front();
    }
    Some(piece)
}

/// Waits for room for one more piece; `None` if the feature service takes no more.
async fn room(requests: Option<mpsc::Sender<AnalyzeRequest>>) -> Option<mpsc::OwnedPermit<AnalyzeRequest>> {
    requests?.reserve_owned().await.ok()
}

fn cached(verdict: &Verdict) -> Verdict {
    Verdict { cached: true, ..verdict.clone() }
}

fn truncate(scores: &mut Vec<GenreScore>, top_k: u32) {
    if top_k > 0 {
        scores.truncate(usize::try_from(top_k).unwrap_or(usize::MAX));
    }
}

pub(crate) fn deadline_passed() -> Failure {
    Failure::new(Reason::DeadlineExceeded, "the deadline passed before the verdict")
}

fn empty() -> Failure {
    Failure::new(Reason::AudioEmpty, "expected audio, found no bytes")
}

fn too_long(max_seconds: f64) -> Failure {
    let message = format!("expected at most {max_seconds} s of audio");
    Failure::limit("max_duration_seconds", max_seconds, message)
}

fn feature_bug(what: impl fmt::Display) -> Failure {
    let failure = Failure::new(Reason::Internal, format!("the feature service broke its protocol: {what}"));
    tracing::error!(%failure, "feature service");
    failure
}
