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

/// What catches panics of symphonia in the feature service, and makes an error of them.
const GUARD: &str = "chorale_feature::audio_track::guard";

static UNGUARDED: AtomicBool = AtomicBool::new(false);
static GUARDED: LazyLock<Mutex<BTreeSet<String>>> = LazyLock::new(Mutex::default);

/// Tells panics that cost their own track from those that are findings, from now on. Of the former, each place is reported
/// once, on standard error; the others go to the hook that was there before.
pub fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let otherwise = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if Backtrace::force_capture().to_string().contains(GUARD) {
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

/// Whether a panic was a finding, on any thread: tasks hide theirs.
pub(crate) fn any_unguarded() -> bool {
    UNGUARDED.load(Ordering::SeqCst)
}
