//! Values in this process's memory: bounded in bytes, the least useful dropped first.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use moka::future::Cache;

use super::{Backend, BackendError, CacheKey};

/// What an entry costs beside its value, in bytes: the key and moka's own records, roughly.
const ENTRY_OVERHEAD: u32 = 256;

/// Verdicts in memory.
#[derive(Debug)]
pub(super) struct MemoryCache {
    entries: Cache<CacheKey, Bytes>,
}

impl MemoryCache {
    /// At most `max_bytes`, each value for `ttl`.
    pub(super) fn new(max_bytes: u64, ttl: Duration) -> Self {
        let weight =
            |_: &CacheKey, value: &Bytes| u32::try_from(value.len()).unwrap_or(u32::MAX).saturating_add(ENTRY_OVERHEAD);
        Self { entries: Cache::builder().max_capacity(max_bytes).weigher(weight).time_to_live(ttl).build() }
    }
}

impl Backend for MemoryCache {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn get(&self, key: CacheKey, _max_bytes: usize) -> BoxFuture<'_, Result<Option<Bytes>, BackendError>> {
        Box::pin(async move { Ok(self.entries.get(&key).await) })
    }

    fn put(&self, key: CacheKey, value: Bytes) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(async move {
            self.entries.insert(key, value).await;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn holds_what_fits_and_no_more() {
        let cache = MemoryCache::new(10_000, Duration::from_secs(60));
        for index in 0..100 {
            cache.put(CacheKey::of_bytes([index; 32]), vec![index; 1_000].into()).await.unwrap();
        }
        cache.entries.run_pending_tasks().await;
        assert!(cache.entries.weighted_size() <= 10_000);
        assert!(cache.entries.entry_count() > 0);
    }

    #[tokio::test]
    async fn forgets_what_is_older_than_its_time_to_live() {
        let cache = MemoryCache::new(10_000, Duration::from_millis(20));
        let key = CacheKey::of_bytes([1; 32]);
        cache.put(key, Bytes::from_static(b"value")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(40)).await;
        assert_eq!(cache.get(key, 100).await.unwrap(), None);
    }
}
