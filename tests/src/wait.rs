//! Waiting for a condition instead of for a time.

use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(10);

/// Asks `condition` again and again until it has a value. Fails the test if that takes longer than `patience`.
pub async fn until<T>(what: &str, patience: Duration, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(started.elapsed() < patience, "{what}: not within {patience:?}");
        tokio::time::sleep(INTERVAL).await;
    }
}
