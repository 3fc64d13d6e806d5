//! Audio bytes that are still arriving, or lie in a file.

use crate::error::FeatureError;
use crate::recent::{Found, Recent};
use crate::turns::SharedTurn;
use bytes::{Buf, Bytes, BytesMut};
use std::fs::File;
use std::io::{self, Cursor, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use symphonia::core::io::MediaSource;
use tempfile::SpooledTempFile;
use tokio::sync::mpsc;

/// Bytes of an upload that are kept in memory before a temporary file takes over.
const SPOOL_MEMORY_BYTES: usize = 8 << 20;
const COPY_BYTES: usize = 64 << 10;

/// The sending half of [`AudioSource::channel`].
///
/// The upload is complete only after [`finish`](Self::finish). Dropping the sender before aborts the analysis.
#[derive(Debug)]
pub struct AudioSender {
    chunks: mpsc::Sender<Bytes>,
    finished: Arc<AtomicBool>,
}

/// The analysis has ended and takes no more audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the analysis has ended and takes no more audio")]
pub struct AudioClosed;

impl AudioSender {
    /// Hands over the next bytes; waits while the analysis is behind.
    ///
    /// # Errors
    ///
    /// [`AudioClosed`] if the analysis has ended; its result says why.
    pub async fn send(&self, bytes: Bytes) -> Result<(), AudioClosed> {
        self.chunks.send(bytes).await.map_err(|_| AudioClosed)
    }

    /// Says that the audio is complete.
    pub fn finish(self) {
        // The channel closes after this store, when `self` is dropped: who sees it closed sees the flag.
        self.finished.store(true, Ordering::Release);
    }
}

/// Where the bytes of a track come from.
///
/// Reading blocks the thread until bytes arrive: use it on a thread where that is allowed.
#[derive(Clone)]
pub struct AudioSource {
    // One thread reads; the lock is there because symphonia wants its sources to be `Sync`.
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    origin: Origin,
    /// What was read so far of an upload, in case that it must be read again.
    recording: Option<SpooledTempFile>,
    recent: Option<Recent>,
    position: u64,
    max_bytes: u64,
    failure: Option<Failure>,
    waited: Duration,
    codec: Option<&'static str>,
}

enum Origin {
    Upload {
        chunks: mpsc::Receiver<Bytes>,
        finished: Arc<AtomicBool>,
        current: Bytes,
        received: u64,
        /// Rests while nothing has arrived.
        turn: Option<SharedTurn>,
    },
    Seekable {
        bytes: Box<dyn ReadSeek>,
        length: u64,
    },
}

trait ReadSeek: Read + Seek + Send + Sync {}
impl<T: Read + Seek + Send + Sync> ReadSeek for T {}

/// Why reading ended early. Kept, because demuxers hide the errors of their sources.
#[derive(Clone, Copy)]
enum Failure {
    Aborted,
    TooLarge { received: u64 },
    Io(ErrorKind),
}

impl AudioSource {
    /// A source that is fed while it is being read. At most `capacity` sent chunks of bytes wait in between.
    #[must_use]
    pub fn channel(capacity: usize) -> (AudioSender, Self) {
        let (sender, chunks) = mpsc::channel(capacity.max(1));
        let finished = Arc::new(AtomicBool::new(false));
        let finished_here = Arc::clone(&finished);
        let origin = Origin::Upload { chunks, finished: finished_here, current: Bytes::new(), received: 0, turn: None };
        (AudioSender { chunks: sender, finished }, Self::new(origin))
    }

    /// Lets `turn` rest while the upload is behind.
    pub(crate) fn take_turns(&self, with: SharedTurn) {
        if let Origin::Upload { turn, .. } = &mut self.lock().origin {
            *turn = Some(with);
        }
    }

    /// Notes what it was found to hold.
    pub(crate) fn found_codec(&self, codec: &'static str) {
        self.lock().codec = Some(codec);
    }

    /// What it was found to hold, if that is known.
    pub(crate) fn codec(&self) -> Option<&'static str> {
        self.lock().codec
    }

    /// A whole track in memory.
    #[must_use]
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let length = bytes.len() as u64;
        Self::new(Origin::Seekable { bytes: Box::new(Cursor::new(bytes)), length })
    }

    /// A file.
    ///
    /// # Errors
    ///
    /// If it cannot be opened.
    pub fn file(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self::new(Origin::Seekable { bytes: Box::new(file), length }))
    }

    fn new(origin: Origin) -> Self {
        let inner = Inner {
            origin,
            recording: None,
            recent: None,
            position: 0,
            max_bytes: u64::MAX,
            failure: None,
            waited: Duration::ZERO,
            codec: None,
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses audio of more than `max_bytes` bytes.
    pub(crate) fn limit(&self, max_bytes: u64) -> Result<(), FeatureError> {
        let mut inner = self.lock();
        inner.max_bytes = max_bytes;
        match inner.origin {
            Origin::Seekable { length, .. } => inner.check_size(length),
            Origin::Upload { .. } => Ok(()),
        }
        .map_err(|failure| inner.error(failure))
    }

    /// The first bytes, at most `count`, fewer only if there are no more. They will be read again.
    pub(crate) fn peek(&self, count: usize) -> Result<Bytes, FeatureError> {
        let mut inner = self.lock();
        let peeked = inner.peek(count);
        peeked.map_err(|failure| inner.error(failure))
    }

    /// Bytes read so far.
    pub(crate) fn position(&self) -> u64 {
        self.lock().position
    }

    /// Time spent waiting for bytes to arrive.
    pub(crate) fn waited(&self) -> Duration {
        self.lock().waited
    }

    /// Why reading ended early, if it did.
    pub(crate) fn failure(&self) -> Option<FeatureError> {
        let inner = self.lock();
        inner.failure.map(|failure| inner.error(failure))
    }

    /// A reader that goes forward only, for decoding during the upload.
    pub(crate) fn stream(&self) -> SourceReader {
        SourceReader { source: self.clone(), seekable: false }
    }

    /// Keeps what is read from now on, so that [`spool`](Self::spool) can start over.
    pub(crate) fn start_recording(&self) {
        let mut inner = self.lock();
        if matches!(inner.origin, Origin::Upload { .. }) {
            inner.recording = Some(SpooledTempFile::new(SPOOL_MEMORY_BYTES));
        }
    }

    /// Gives up the way back: from here on nothing is kept.
    pub(crate) fn stop_recording(&self) {
        self.lock().recording = None;
    }

    /// Remembers the last bytes that were read, or forgets them.
    pub(crate) fn remember(&self, remember: bool) {
        self.lock().recent = remember.then(Recent::default);
    }

    /// Looks for `packet` in the last bytes that were read, from position `from` on.
    pub(crate) fn find_recent(&self, packet: &[u8], from: u64) -> Option<Found> {
        self.lock().recent.as_ref()?.find(packet, from)
    }

    /// Runs `visit` over what can be read again now, from its start: the recording, or all of a file.
    pub(crate) fn revisit<T>(&self, visit: impl FnOnce(&mut dyn SeekableBytes) -> T) -> Option<T> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let mut bytes: &mut dyn ReadSeek = match (&mut inner.recording, &mut inner.origin) {
            (Some(recording), _) => recording,
            (None, Origin::Seekable { bytes, .. }) => bytes.as_mut(),
            (None, Origin::Upload { .. }) => return None,
        };
        let position = bytes.stream_position().ok()?;
        bytes.rewind().ok()?;
        let visited = visit(&mut bytes);
        bytes.seek(SeekFrom::Start(position)).ok()?;
        Some(visited)
    }

    /// Receives the rest of the upload into a temporary file, and returns a reader of the whole that can seek.
    pub(crate) fn spool(&self) -> Result<SourceReader, FeatureError> {
        let mut inner = self.lock();
        let spooled = inner.spool();
        spooled.map_err(|failure| inner.error(failure))?;
        drop(inner);
        Ok(SourceReader { source: self.clone(), seekable: true })
    }

    /// Receives and forgets the rest of the upload.
    pub(crate) fn drain(&self) -> Result<(), FeatureError> {
        let mut inner = self.lock();
        if matches!(inner.origin, Origin::Seekable { .. }) {
            return Ok(());
        }
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            match inner.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(failure) => return Err(inner.error(failure)),
            }
        }
    }
}

/// Bytes that can be visited in any order.
pub(crate) trait SeekableBytes: Read + Seek {}
impl<T: Read + Seek + ?Sized> SeekableBytes for T {}

impl Inner {
    fn error(&self, failure: Failure) -> FeatureError {
        match failure {
            Failure::Aborted => FeatureError::Aborted,
            Failure::TooLarge { received } => {
                FeatureError::LimitExceeded { limit: "max_audio_bytes", value: received, allowed: self.max_bytes }
            }
            Failure::Io(kind) => FeatureError::Io(kind.into()),
        }
    }

    fn check_size(&self, received: u64) -> Result<(), Failure> {
        if received > self.max_bytes { Err(Failure::TooLarge { received }) } else { Ok(()) }
    }

    /// The next bytes of the upload; `None` at its end.
    fn receive(&mut self) -> Result<Option<Bytes>, Failure> {
        let Origin::Upload { chunks, finished, received, turn, .. } = &mut self.origin else { return Ok(None) };
        let next = match chunks.try_recv() {
            Ok(bytes) => Some(bytes),
            Err(_) => {
                let started = Instant::now();
                let next = match turn {
                    Some(turn) => turn.rest(|| chunks.blocking_recv()),
                    None => chunks.blocking_recv(),
                };
                self.waited += started.elapsed();
                next
            }
        };
        match next {
            Some(bytes) => {
                *received += bytes.len() as u64;
                let received = *received;
                self.check_size(received)?;
                Ok(Some(bytes))
            }
            None if finished.load(Ordering::Acquire) => Ok(None),
            None => Err(Failure::Aborted),
        }
    }

    fn peek(&mut self, count: usize) -> Result<Bytes, Failure> {
        if let Origin::Seekable { bytes, .. } = &mut self.origin {
            let mut head = Vec::new();
            let read = bytes.by_ref().take(count as u64).read_to_end(&mut head).and_then(|_| bytes.rewind());
            return read.map(|()| head.into()).map_err(|error| Failure::Io(error.kind()));
        }
        let mut head = BytesMut::new();
        if let Origin::Upload { current, .. } = &mut self.origin {
            head.extend_from_slice(current);
        }
        while head.len() < count {
            match self.receive()? {
                Some(bytes) => head.extend_from_slice(&bytes),
                None => break,
            }
        }
        let head = head.freeze();
        if let Origin::Upload { current, .. } = &mut self.origin {
            *current = head.clone();
        }
        Ok(head.slice(..head.len().min(count)))
    }

    /// Fills `buffer`; less only at the end. Demuxers take a short read for the end of the stream.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let filled = self.fill(buffer).inspect_err(|failure| self.failure = Some(*failure))?;
        self.position += filled as u64;
        if let Some(recent) = &mut self.recent {
            recent.push(buffer.get(..filled).unwrap_or_default());
        }
        Ok(filled)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let read = match &mut self.origin {
                Origin::Seekable { bytes, .. } => match bytes.read(rest) {
                    Ok(0) => break,
                    Ok(read) => read,
                    Err(error) if error.kind() == ErrorKind::Interrupted => 0,
                    Err(error) => return Err(Failure::Io(error.kind())),
                },
                Origin::Upload { current, .. } if current.has_remaining() => {
                    let read = rest.len().min(current.len());
                    current.copy_to_slice(&mut rest[..read]);
                    if let Some(recording) = &mut self.recording {
                        recording.write_all(&rest[..read]).map_err(|error| Failure::Io(error.kind()))?;
                    }
                    read
                }
                Origin::Upload { .. } => match self.receive()? {
                    Some(bytes) => {
                        if let Origin::Upload { current, .. } = &mut self.origin {
                            *current = bytes;
                        }
                        0
                    }
                    None => break,
                },
            };
            filled += read;
        }
        Ok(filled)
    }

    fn spool(&mut self) -> Result<(), Failure> {
        if matches!(self.origin, Origin::Upload { .. }) {
            let mut buffer = vec![0; COPY_BYTES];
            while self.read(&mut buffer)? > 0 {}
            let spooled = self.recording.take().unwrap_or_else(|| SpooledTempFile::new(SPOOL_MEMORY_BYTES));
            let length = match self.origin {
                Origin::Upload { received, .. } => received,
                Origin::Seekable { length, .. } => length,
            };
            self.origin = Origin::Seekable { bytes: Box::new(spooled), length };
        }
        if let Origin::Seekable { bytes, .. } = &mut self.origin {
            bytes.rewind().map_err(|error| Failure::Io(error.kind()))?;
        }
        self.position = 0;
        Ok(())
    }
}

/// A reader of an [`AudioSource`], as symphonia wants it.
pub(crate) struct SourceReader {
    source: AudioSource,
    seekable: bool,
}

impl Read for SourceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.source.lock().read(buffer).map_err(|failure| match failure {
            Failure::Aborted => ErrorKind::ConnectionAborted.into(),
            Failure::TooLarge { .. } => ErrorKind::Other.into(),
            Failure::Io(kind) => kind.into(),
        })
    }
}

impl Seek for SourceReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let mut inner = self.source.lock();
        match &mut inner.origin {
            Origin::Seekable { bytes, .. } if self.seekable => {
                let position = bytes.seek(to)?;
                inner.position = position;
                Ok(position)
            }
            _ => Err(ErrorKind::Unsupported.into()),
        }
    }
}

impl MediaSource for SourceReader {
    fn is_seekable(&self) -> bool {
        self.seekable
    }

    fn byte_len(&self) -> Option<u64> {
        match &self.source.lock().origin {
            Origin::Seekable { length, .. } if self.seekable => Some(*length),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(parts: &[&'static [u8]], finish: bool) -> AudioSource {
        let (sender, source) = AudioSource::channel(16);
        for part in parts {
            sender.chunks.try_send(Bytes::from_static(part)).unwrap();
        }
        if finish {
            sender.finish();
        }
        source
    }

    #[test]
    fn an_upload_reads_as_one_stream_and_ends() {
        let source = upload(&[b"ab", b"", b"cdef", b"g"], true);
        assert_eq!(source.peek(3).unwrap(), &b"abc"[..]);
        let mut all = Vec::new();
        source.stream().read_to_end(&mut all).unwrap();
        assert_eq!(all, b"abcdefg");
        assert_eq!(source.position(), 7);
        assert!(source.failure().is_none());
    }

    #[test]
    fn a_lost_sender_is_not_an_end() {
        let source = upload(&[b"abc"], false);
        let mut all = Vec::new();
        assert_eq!(source.stream().read_to_end(&mut all).unwrap_err().kind(), ErrorKind::ConnectionAborted);
        assert!(matches!(source.failure(), Some(FeatureError::Aborted)));
        assert!(matches!(source.drain(), Err(FeatureError::Aborted)));
    }

    #[test]
    fn a_size_limit_holds_while_receiving() {
        let source = upload(&[b"abc", b"def"], true);
        source.limit(5).unwrap();
        assert!(source.stream().read_to_end(&mut Vec::new()).is_err());
        let failure = source.failure();
        assert!(
            matches!(failure, Some(FeatureError::LimitExceeded { limit: "max_audio_bytes", value: 6, allowed: 5 })),
            "{failure:?}"
        );
        assert!(AudioSource::bytes(&b"abcdef"[..]).limit(5).is_err());
    }

    #[test]
    fn a_spooled_upload_starts_over() {
        let source = upload(&[b"abc", b"def"], true);
        source.start_recording();
        let mut head = [0; 4];
        source.stream().read_exact(&mut head).unwrap();
        let length = source.revisit(|bytes| {
            let mut seen = Vec::new();
            bytes.read_to_end(&mut seen).unwrap();
            seen.len()
        });
        assert_eq!(length, Some(4));
        let mut reader = source.spool().unwrap();
        assert_eq!(reader.byte_len(), Some(6));
        let mut all = String::new();
        reader.read_to_string(&mut all).unwrap();
        assert_eq!(all, "abcdef");
        reader.seek(SeekFrom::Start(2)).unwrap();
        reader.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"cdef");
    }
}
