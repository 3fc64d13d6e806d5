//! Which panics are findings.

use std::{
    backtrace::Backtrace,
    collections::BTreeSet,
    panic::{self, Location},
    sync::{
        LazyLock, Mutex, Once, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// What catches panics of symphonia in the feature service, and makes an error of them: a function, and where it stands. How
/// much of its name a backtrace has depends on how it was compiled.
const GUARD: (&str, &str) = ("guard", "feature/src/audio_track.rs");

static UNGUARDED: AtomicBool = AtomicBool::new(false);
static GUARDED: LazyLock<Mutex<BTreeSet<String>>> = LazyLock::new(Mutex::default);

/// Tells panics that cost their own track from those that are findings, from now on. Of the former, each place is reported
/// once, on standard error; the others go to the hook that was there before.
pub fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let otherwise = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if is_guarded(&Backtrace::force_capture().to_string()) {
                let place = panic.location().map(Location::to_string).unwrap_or_default();
                let mut known = GUARDED.lock().unwrap_or_else(PoisonError::into_inner);
                if known.insert(place) {
                    eprintln!("survived a panic of symphonia: {panic}");
                }
            } else {
                UNGUARDED.store(true, Ordering::SeqCst);
                otherwise(panic);
            }
        }));
    });
}

/// Whether a frame of `backtrace`, a line with the function and one with the place each, is the guard's.
fn is_guarded(backtrace: &str) -> bool {
    let lines: Vec<&str> = backtrace.lines().collect();
    lines.windows(2).any(|frame| frame[0].contains(GUARD.0) && frame[1].contains(GUARD.1))
}

/// Whether a panic was a finding, on any thread: tasks hide theirs.
pub(crate) fn any_unguarded() -> bool {
    UNGUARDED.load(Ordering::SeqCst)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_is_known_however_it_was_compiled() {
        let below = "   9: probe\n             at symphonia-core-0.6.1/src/formats/probe.rs:457:28\n";
        let short = "  16: guard<T, chorale_feature::decode::open::{closure_env#0}>\n             \
            at ./services/feature/src/audio_track.rs:17:5\n";
        let long = "  16: chorale_feature::audio_track::guard::<T>\n             at ./services/feature/src/audio_track.rs:17:5";
        let other = "  17: open\n             at ./services/feature/src/audio_track.rs:60:5\n";
        assert!(is_guarded(&format!("{below}{short}{other}")) && is_guarded(&format!("{below}{long}")));
        assert!(!is_guarded(&format!("{below}{other}")) && !is_guarded(""));
    }
}
