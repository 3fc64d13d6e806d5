//! A wish to stop, and who hears of it.

use tokio::sync::watch;

/// Who may wish to stop.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// Who hears of the wish. Clones hear of it, too.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

/// A wish that nobody has yet, and who hears of it.
#[must_use]
pub fn stop_signal() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Wishes to stop.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// True once somebody wishes to stop.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until somebody wishes to stop.
    pub async fn wanted(&mut self) {
        if self.0.wait_for(|wanted| *wanted).await.is_err() {
            // Who could have wished to stop is gone.
            std::future::pending::<()>().await;
        }
    }
}
