//! The replicas of another role: found by address or DNS, balanced by outstanding work.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::SocketAddr,
    str::FromStr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, seq::IndexedRandom};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;

use crate::connector::Connector;

/// A name is looked up again after this long, give or take a quarter, so that clients do not ask in step.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(5);
/// A replica that failed gets no new work for this long while another one is there; for twice as long each time that it fails
/// again right afterwards, up to the longest.
const COOL_DOWN: Duration = Duration::from_secs(1);
const LONGEST_COOL_DOWN: Duration = Duration::from_secs(16);
/// A replica that is new, or that comes back, has its full share of the work after this long.
const SLOW_START: Duration = Duration::from_secs(5);
/// The share of the work that it begins with.
const FIRST_SHARE: f64 = 0.1;

/// Where a role is: `host:port`, with or without `http://`, or `https://host:port`, which is spoken to over TLS. A host name
/// stands for every address that it resolves to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Target {
    secure: bool,
    host: String,
    port: u16,
}

/// A target that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("expected `http://host:port` or `https://host:port`, found {0:?}")]
pub struct TargetError(String);

impl Target {
    /// The target at `address`, over TLS if it is `secure`.
    #[must_use]
    pub fn of(address: SocketAddr, secure: bool) -> Self {
        let host = match address {
            SocketAddr::V4(address) => address.ip().to_string(),
            SocketAddr::V6(address) => format!("[{}]", address.ip()),
        };
        Self { secure, host, port: address.port() }
    }

    /// Whether it is spoken to over TLS.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// The port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The name or the bare address, without the brackets of an IPv6 one.
    pub(crate) fn bare_host(&self) -> &str {
        self.host.trim_matches(['[', ']'])
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || TargetError(text.to_owned());
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url = url::Url::parse(&with_scheme).map_err(|_| error())?;
        let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.username().is_empty();
        match (url.scheme(), url.host_str(), url.port_or_known_default()) {
            (scheme @ ("http" | "https"), Some(host), Some(port)) if bare => {
                Ok(Self { secure: scheme == "https", host: host.to_owned(), port })
            }
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
        Self::of(address, false)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(formatter, "{scheme}://{}:{}", self.host, self.port)
    }
}

/// One replica.
#[derive(Debug)]
pub struct Replica {
    address: SocketAddr,
    channel: Channel,
    outstanding: AtomicUsize,
    health: Mutex<Health>,
}

/// What is known of a replica.
///
/// ```text
///             failed                     cool-down over              SLOW_START over
///   steady ────────────▶ cooling down ──────────────────▶ warming up ────────────────▶ steady
///               ▲                                              │
///               └──── failed: twice the cool-down, unless ─────┘
///                     it answered in between
/// ```
#[derive(Debug, Clone, Copy, Default)]
struct Health {
    failed_at: Option<Instant>,
    /// Cool-downs in a row, without an answer between them.
    failures: u32,
    /// The end of the last cool-down, or when a replica joined others.
    warm_since: Option<Instant>,
}

impl Health {
    fn cooling_down(&self, now: Instant) -> bool {
        self.failed_at.is_some() && self.warm_since.is_some_and(|end| now < end)
    }

    /// The share of a steady replica's work that it should have: 1 if it is one.
    fn share(&self, now: Instant) -> f64 {
        let Some(since) = self.warm_since else { return 1.0 };
        let warmth = now.saturating_duration_since(since).as_secs_f64() / SLOW_START.as_secs_f64();
        warmth.clamp(FIRST_SHARE, 1.0)
    }

    fn fail(&mut self, now: Instant) {
        // All that was under way at the time fails together, and once.
        if !self.cooling_down(now) {
            let cool_down = COOL_DOWN.saturating_mul(1 << self.failures.min(16)).min(LONGEST_COOL_DOWN);
            self.failures += 1;
            self.warm_since = Some(now + cool_down);
        }
        self.failed_at = Some(now);
    }
}

impl Replica {
    /// A replica that joins others `late` is spared at first.
    fn new(address: SocketAddr, channel: Channel, late: bool) -> Self {
        let health = Health { warm_since: late.then(Instant::now), ..Health::default() };
        Self { address, channel, outstanding: AtomicUsize::new(0), health: Mutex::new(health) }
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
        self.health().fail(Instant::now());
    }

    /// Says that it answered: it works.
    pub fn answered(&self) {
        self.health().failures = 0;
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much it has to do for what it is worth.
    fn load(&self, health: &Health, now: Instant) -> f64 {
        (self.outstanding.load(Ordering::Relaxed) as f64 + 1.0) / health.share(now)
    }
}

/// What is known of a replica.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReplicaState {
    /// Where it is.
    pub address: SocketAddr,
    /// Pieces of work that it has not answered.
    pub outstanding: usize,
    /// Whether it gets no work, as it has just failed.
    pub cooling_down: bool,
    /// Cool-downs without an answer between them.
    pub failures_in_a_row: u32,
    /// The share of a steady replica's work that it should have now.
    pub share: f64,
    /// Of two, the one with less gets the next piece of work.
    pub load: f64,
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
    /// Starts to look for the replicas behind `targets`, which `connector` speaks to.
    #[must_use]
    pub fn discover(targets: Vec<Target>, connector: Connector) -> Self {
        let (sender, current) = watch::channel(Vec::new());
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(keep_resolving(targets, connector, sender)));
        Self { current, _stop: Arc::new(stop.drop_guard()) }
    }

    /// Picks a replica for one piece of work by power of two choices on outstanding work, among those that did not just
    /// fail; one that is new or was away gets less at first. If all did fail, of two choices the one that failed first, which
    /// is more likely to be back: one that is away fails at once, so that it has the least work outstanding. `None` if none is
    /// known.
    #[must_use]
    pub fn pick(&self) -> Option<Assigned> {
        self.pick_where(|_| true)
    }

    /// The same among those that `suits` says. `None` if there is none.
    #[must_use]
    pub fn pick_where(&self, suits: impl Fn(&Replica) -> bool) -> Option<Assigned> {
        let now = Instant::now();
        let replicas = self.current.borrow();
        let suitable = replicas.iter().filter(|replica| suits(replica)).map(|replica| (replica, *replica.health()));
        let (cooling, rested): (Vec<_>, Vec<_>) = suitable.partition(|(_, health)| health.cooling_down(now));
        let load = |(replica, health): &(&Arc<Replica>, Health)| replica.load(health, now);
        let least_busy = two_of(&rested).min_by(|one, other| load(one).total_cmp(&load(other)));
        let first_failed = || two_of(&cooling).min_by_key(|(_, health)| health.failed_at);
        let (replica, _) = least_busy.or_else(first_failed)?;
        replica.outstanding.fetch_add(1, Ordering::Relaxed);
        Some(Assigned { replica: Arc::clone(replica) })
    }

    /// The replicas known now.
    #[must_use]
    pub fn current(&self) -> Vec<Arc<Replica>> {
        self.current.borrow().clone()
    }

    /// Every replica with what is known of it, for people.
    #[must_use]
    pub fn describe(&self) -> Vec<ReplicaState> {
        let now = Instant::now();
        let describe = |replica: &Arc<Replica>| {
            let health = *replica.health();
            ReplicaState {
                address: replica.address,
                outstanding: replica.outstanding.load(Ordering::Relaxed),
                cooling_down: health.cooling_down(now),
                failures_in_a_row: health.failures,
                share: health.share(now),
                load: replica.load(&health, now),
            }
        };
        self.current.borrow().iter().map(describe).collect()
    }

    /// Waits until at least one replica is known.
    pub async fn found(&self) {
        let mut current = self.current.clone();
        // The sender ends only with the last clone of `self`.
        let _ = current.wait_for(|replicas| !replicas.is_empty()).await;
    }
}

/// Two of them, by chance; fewer if there are fewer.
fn two_of<T: Copy>(choices: &[T]) -> impl Iterator<Item = T> {
    choices.sample(&mut rand::rng(), 2).copied()
}

async fn keep_resolving(targets: Vec<Target>, connector: Connector, sender: watch::Sender<Vec<Arc<Replica>>>) {
    let mut known: HashMap<Target, Vec<SocketAddr>> = HashMap::new();
    loop {
        for target in &targets {
            match tokio::net::lookup_host((target.bare_host(), target.port)).await {
                Ok(addresses) => {
                    known.insert(target.clone(), addresses.collect());
                }
                // The last answer stands: a name server that is away must not empty a working set.
                Err(error) => tracing::warn!(%target, %error, "name not resolved"),
            }
        }
        let addresses: BTreeMap<SocketAddr, &Target> = known
            .iter()
            .flat_map(|(target, addresses)| addresses.iter().map(move |&address| (address, target)))
            .collect();
        sender.send_if_modified(|replicas| update(replicas, &addresses, &connector));
        let jitter = rand::rng().random_range(0.75..1.25);
        tokio::time::sleep(RESOLVE_INTERVAL.mul_f64(jitter)).await;
    }
}

/// Makes `replicas` those of `addresses`; the ones that stay keep their connections. True if anything changed.
fn update(replicas: &mut Vec<Arc<Replica>>, addresses: &BTreeMap<SocketAddr, &Target>, connector: &Connector) -> bool {
    let before = replicas.len();
    let late = before > 0;
    replicas.retain(|replica| addresses.contains_key(&replica.address));
    let mut changed = replicas.len() != before;
    for (&address, target) in addresses {
        if replicas.iter().any(|replica| replica.address == address) {
            continue;
        }
        match connector.channel(target, address) {
            Ok(channel) => {
                replicas.push(Arc::new(Replica::new(address, channel, late)));
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
        let secure: Target = "https://feature:1".parse().unwrap();
        assert_eq!((secure.is_secure(), secure.to_string()), (true, "https://feature:1".to_owned()));
        assert_eq!("http://[::1]:1".parse::<Target>().unwrap().to_string(), "http://[::1]:1");
        for wrong in ["", "ftp://feature:1", "http://feature:1/path", "feature:99999"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn work_goes_where_the_least_is_outstanding_and_returns_when_done() {
        let targets = ["127.0.0.1:1", "127.0.0.1:2"].map(|text| text.parse().unwrap()).to_vec();
        let replicas = Replicas::discover(targets, Connector::default());
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
        let replicas = Replicas::discover((1..=8).map(|port| address(port).into()).collect(), Connector::default());
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
        let replicas = Replicas::discover(targets, Connector::default());
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
    async fn who_comes_late_or_back_gets_less_at_first() {
        let replicas = Replicas::discover(vec!["127.0.0.1:1".parse().unwrap()], Connector::default());
        replicas.found().await;
        let steady = Arc::clone(&replicas.current()[0]);
        let late = Replica::new(SocketAddr::from(([127, 0, 0, 1], 2)), steady.channel(), true);
        let busyness = |replica: &Replica, now| replica.load(&replica.health(), now);
        let now = Instant::now();
        assert_eq!(busyness(&steady, now), 1.0);
        assert!(busyness(&late, now) > 9.0, "as if it had nine pieces of work more");
        assert!((1.9..2.1).contains(&busyness(&late, now + SLOW_START / 2)));
        assert_eq!(busyness(&late, now + 2 * SLOW_START), 1.0);
    }

    #[test]
    fn who_fails_again_and_again_is_asked_less_and_less_until_it_answers() {
        let mut health = Health::default();
        let mut now = Instant::now();
        for expected in [1, 2, 4, 8, 16, 16] {
            health.fail(now);
            // The rest of what was under way.
            health.fail(now + Duration::from_millis(1));
            assert!(
                health.cooling_down(now + Duration::from_secs(expected) - Duration::from_millis(1)),
                "{expected} s"
            );
            now += Duration::from_secs(expected);
            assert!(!health.cooling_down(now), "{expected} s");
        }
        health.failures = 0;
        health.fail(now);
        assert!(!health.cooling_down(now + COOL_DOWN));
    }

    #[tokio::test]
    async fn replicas_that_stay_keep_their_connections() {
        let target: Target = "127.0.0.1:1".parse().unwrap();
        let at = |ports: [u16; 2]| ports.map(|port| (SocketAddr::from(([127, 0, 0, 1], port)), &target)).into();
        let mut replicas = Vec::new();
        let mut become_those_at = |ports| update(&mut replicas, &at(ports), &Connector::default());
        assert!(become_those_at([1, 2]));
        assert!(become_those_at([2, 3]));
        assert!(!become_those_at([2, 3]));
        assert_eq!(replicas.iter().map(|replica| replica.address.port()).collect::<Vec<_>>(), [2, 3]);
        let warming_up = |replica: &Arc<Replica>| replica.health().warm_since.is_some();
        assert_eq!(replicas.iter().map(warming_up).collect::<Vec<_>>(), [false, true], "one of them is the same still");
    }
}
