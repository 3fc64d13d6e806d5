//! What a call may send again, if the feature replica that hears it goes away.

use bytes::Bytes;

/// The audio of a call from its beginning, for as long as it fits the window.
///
/// Features are deterministic: another replica that hears the same bytes finds the same chunks, so that those that are known
/// already are passed over, and the caller notices nothing.
#[derive(Debug)]
pub(crate) struct Replay {
    /// None once more came than may be kept.
    audio: Option<Vec<Bytes>>,
    kept: u64,
    window: u64,
    left: u32,
}

/// How often the audio of one call is sent again. What kills replicas must not take them all down.
const MAX_REPLAYS: u32 = 3;

impl Replay {
    /// Keeps up to `window` bytes.
    pub(crate) fn new(window: u64) -> Self {
        Self { audio: Some(Vec::new()), kept: 0, window, left: MAX_REPLAYS }
    }

    /// Keeps audio that came, or nothing any more if it is too much.
    pub(crate) fn keep(&mut self, audio: &Bytes) {
        self.kept += audio.len() as u64;
        match &mut self.audio {
            Some(kept) if self.kept <= self.window => kept.push(audio.clone()),
            audio => *audio = None,
        }
    }

    /// All audio that came, to be sent again; `None` if that is too much, or was done too often.
    pub(crate) fn again(&mut self) -> Option<Vec<Bytes>> {
        self.left = self.left.checked_sub(1)?;
        self.audio.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_or_nothing_is_sent_again() {
        let mut replay = Replay::new(5);
        let (two, three) = (Bytes::from_static(b"ab"), Bytes::from_static(b"cde"));
        assert_eq!(replay.again().unwrap(), Vec::<Bytes>::new());
        replay.keep(&two);
        replay.keep(&three);
        assert_eq!(replay.again().unwrap(), [two.clone(), three]);
        replay.keep(&two);
        assert_eq!(replay.again(), None);
        replay.keep(&Bytes::new());
        assert_eq!(replay.again(), None, "a part is no track");
    }

    #[test]
    fn nothing_is_sent_again_for_ever() {
        let mut replay = Replay::new(5);
        for _ in 0..MAX_REPLAYS {
            assert!(replay.again().is_some());
        }
        assert!(replay.again().is_none());
        assert!(replay.again().is_none());
    }
}
