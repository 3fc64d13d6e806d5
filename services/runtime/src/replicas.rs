//! The replicas of another role: found by address or DNS, balanced by outstanding work.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    net::SocketAddr,
    str::FromStr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, seq::IndexedRandom};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Channel, Endpoint};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// A name is looked up again after this long, give or take a quarter, so that clients do not ask in step.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(5);
/// A replica that failed gets no new work for this long while another one is there.
const COOL_DOWN: Duration = Duration::from_secs(1);

/// Where a role is: `host:port`, with or without `http://`. A host name stands for every address that it resolves to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Target {
    host: String,
    port: u16,
}

/// A target that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("expected `http://host:port`, found {0:?}")]
pub struct TargetError(String);

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || TargetError(text.to_owned());
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url = url::Url::parse(&with_scheme).map_err(|_| error())?;
        let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.username().is_empty();
        match (url.scheme(), url.host_str(), url.port_or_known_default()) {
            ("http", Some(host), Some(port)) if bare => Ok(Self { host: host.to_owned(), port }),
            _ => Err(error()),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = TargetError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        let host = match address {
            SocketAddr::V4(address) => address.ip().to_string(),
            SocketAddr::V6(address) => format!("[{}]", address.ip()),
        };
        Self { host, port: address.port() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "http://{}:{}", self.host, self.port)
    }
}

/// One replica.
#[derive(Debug)]
pub struct Replica {
    address: SocketAddr,
    channel: Channel,
    outstanding: AtomicUsize,
    failed_at: Mutex<Option<Instant>>,
}

impl Replica {
    fn new(address: SocketAddr) -> Result<Self, tonic::transport::Error> {
        let channel = Endpoint::from_shared(Target::from(address).to_string())?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true)
            .connect_lazy();
        Ok(Self { address, channel, outstanding: AtomicUsize::new(0), failed_at: Mutex::new(None) })
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection to it, which is made when it is first used and again when it breaks.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Says that it failed: it gets no new work for a moment while another replica is there.
    pub fn failed(&self) {
        *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn failed_at(&self) -> Option<Instant> {
        *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cooling_down(&self) -> bool {
        self.failed_at().is_some_and(|at| at.elapsed() < COOL_DOWN)
    }
}

/// A replica with one piece of work counted against it, until this is dropped.
#[derive(Debug)]
pub struct Assigned {
    replica: Arc<Replica>,
}

impl std::ops::Deref for Assigned {
    type Target = Replica;

    fn deref(&self) -> &Replica {
        &self.replica
    }
}

impl Drop for Assigned {
    fn drop(&mut self) {
        self.replica.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The replicas of a role, kept up to date until the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Replicas {
    current: watch::Receiver<Vec<Arc<Replica>>>,
    _stop: Arc<DropGuard>,
}

impl Replicas {
    /// Starts to look for the replicas behind `targets`.
    #[must_use]
    pub fn discover(targets: Vec<Target>) -> Self {
        let (sender, current) = watch::channel(Vec::new());
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(keep_resolving(targets, sender)));
        Self { current, _stop: Arc::new(stop.drop_guard()) }
    }

    /// Picks a replica for one piece of work by power of two choices on outstanding work, among those that did not just
    /// fail. If all did, of two choices the one that failed first, which is more likely to be back: one that is away fails at
    /// once, so that it has the least work outstanding. `None` if none is known.
    #[must_use]
    pub fn pick(&self) -> Option<Assigned> {
        self.pick_where(|_| true)
    }

    /// The same among those that `suits` says. `None` if there is none.
    #[must_use]
    pub fn pick_where(&self, suits: impl Fn(&Replica) -> bool) -> Option<Assigned> {
        let replicas = self.current.borrow();
        let suitable = replicas.iter().filter(|replica| suits(replica));
        let (cooling, rested): (Vec<_>, Vec<_>) = suitable.partition(|replica| replica.cooling_down());
        let two = |of: &[&Arc<Replica>]| of.sample(&mut rand::rng(), 2).copied().cloned().collect::<Vec<_>>();
        let least_busy = two(&rested).into_iter().min_by_key(|replica| replica.outstanding.load(Ordering::Relaxed));
        let replica = least_busy.or_else(|| two(&cooling).into_iter().min_by_key(|replica| replica.failed_at()))?;
        replica.outstanding.fetch_add(1, Ordering::Relaxed);
        Some(Assigned { replica })
    }

    /// The replicas known now.
    #[must_use]
    pub fn current(&self) -> Vec<Arc<Replica>> {
        self.current.borrow().clone()
    }

    /// Waits until at least one replica is known.
    pub async fn found(&self) {
        let mut current = self.current.clone();
        // The sender ends only with the last clone of `self`.
        let _ = current.wait_for(|replicas| !replicas.is_empty()).await;
    }
}

async fn keep_resolving(targets: Vec<Target>, sender: watch::Sender<Vec<Arc<Replica>>>) {
    let mut known: HashMap<Target, BTreeSet<SocketAddr>> = HashMap::new();
    loop {
        for target in &targets {
            match tokio::net::lookup_host((target.host.trim_matches(['[', ']']), target.port)).await {
                Ok(addresses) => {
                    known.insert(target.clone(), addresses.collect());
                }
                // The last answer stands: a name server that is away must not empty a working set.
                Err(error) => tracing::warn!(%target, %error, "name not resolved"),
            }
        }
        let addresses: BTreeSet<SocketAddr> = known.values().flatten().copied().collect();
        sender.send_if_modified(|replicas| update(replicas, &addresses));
        let jitter = rand::rng().random_range(0.75..1.25);
        tokio::time::sleep(RESOLVE_INTERVAL.mul_f64(jitter)).await;
    }
}

/// Makes `replicas` those of `addresses`; the ones that stay keep their connections. True if anything changed.
fn update(replicas: &mut Vec<Arc<Replica>>, addresses: &BTreeSet<SocketAddr>) -> bool {
    let before = replicas.len();
    replicas.retain(|replica| addresses.contains(&replica.address));
    let mut changed = replicas.len() != before;
    for &address in addresses {
        if replicas.iter().any(|replica| replica.address == address) {
            continue;
        }
        match Replica::new(address) {
            Ok(replica) => {
                replicas.push(Arc::new(replica));
                changed = true;
            }
            Err(error) => tracing::warn!(%address, %error, "replica not usable"),
        }
    }
    if changed {
        tracing::debug!(?addresses, "replicas");
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_host_and_a_port() {
        for text in ["http://feature:50052", "feature:50052", "http://feature:50052/"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), "http://feature:50052");
        }
        assert_eq!("http://[::1]:1".parse::<Target>().unwrap().to_string(), "http://[::1]:1");
        for wrong in ["", "https://feature:1", "ftp://feature:1", "http://feature:1/path", "feature:99999"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn work_goes_where_the_least_is_outstanding_and_returns_when_done() {
        let targets = ["127.0.0.1:1", "127.0.0.1:2"].map(|text| text.parse().unwrap()).to_vec();
        let replicas = Replicas::discover(targets);
        replicas.found().await;
        let assigned: Vec<Assigned> = (0..10).map(|_| replicas.pick().unwrap()).collect();
        for replica in replicas.current() {
            assert_eq!(replica.outstanding.load(Ordering::Relaxed), 5);
        }
        drop(assigned);
        let all = replicas.current();
        assert!(all.iter().all(|replica| replica.outstanding.load(Ordering::Relaxed) == 0));
    }

    #[tokio::test]
    async fn a_replica_that_failed_gets_no_work_while_another_one_is_there() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let replicas = Replicas::discover((1..=8).map(|port| address(port).into()).collect());
        replicas.found().await;
        let all = replicas.current();
        let (living, failed) = all.split_last().unwrap();
        for replica in failed {
            replica.failed();
        }
        for _ in 0..100 {
            assert_eq!(replicas.pick().unwrap().address(), living.address());
        }
        living.failed();
        assert!(replicas.pick().is_some(), "any is better than none");
    }

    #[tokio::test]
    async fn of_replicas_that_all_failed_the_first_one_is_tried_first() {
        let targets = ["127.0.0.1:1", "127.0.0.1:2"].map(|text| text.parse().unwrap()).to_vec();
        let replicas = Replicas::discover(targets);
        replicas.found().await;
        let all = replicas.current();
        for _ in 0..20 {
            for replica in &all {
                replica.failed();
                // The clock must tell them apart.
                std::thread::sleep(Duration::from_micros(10));
            }
            let _busy: Vec<Assigned> = (0..3).map(|_| replicas.pick().unwrap()).collect();
            assert_eq!(replicas.pick().unwrap().address(), all[0].address(), "however much it has to do");
        }
    }

    #[tokio::test]
    async fn replicas_that_stay_keep_their_connections() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let mut replicas = Vec::new();
        assert!(update(&mut replicas, &BTreeSet::from([address(1), address(2)])));
        let kept = Arc::clone(&replicas[1]);
        assert!(update(&mut replicas, &BTreeSet::from([address(2), address(3)])));
        assert!(Arc::ptr_eq(&kept, &replicas[0]));
        assert_eq!(replicas[1].address, address(3));
        assert!(!update(&mut replicas, &BTreeSet::from([address(2), address(3)])));
    }
}
