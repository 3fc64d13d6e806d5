//! The processes: two replicas of every role and a Redis, which end and come back.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex as SyncMutex, MutexGuard as SyncGuard, PoisonError},
    time::{Duration, Instant},
};

use chorale_proto::service_names::{CLASSIFIER, FEATURE, INFERENCE};
use chorale_tests::{Redis, Server, free_port};
use tokio::{sync::Mutex, time::sleep};

/// Replicas of every role.
pub(crate) const REPLICAS: usize = 2;
/// How long a caller may say or read nothing: less than the default, so that some do, and more than callers wait for an answer,
/// which may take long in a burst.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(40);
const SCRAPE_INTERVAL: Duration = Duration::from_millis(20);

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Inference,
    Feature,
    Gateway,
}

impl Role {
    pub(crate) const ALL: [Self; 3] = [Self::Inference, Self::Feature, Self::Gateway];

    fn name(self) -> &'static str {
        match self {
            Self::Inference => "inference",
            Self::Feature => "feature",
            Self::Gateway => "gateway",
        }
    }

    fn service(self) -> &'static str {
        match self {
            Self::Inference => INFERENCE,
            Self::Feature => FEATURE,
            Self::Gateway => CLASSIFIER,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A place for a process. It is locked while no process is there that answers.
pub(crate) struct Slot {
    pub(crate) role: Role,
    pub(crate) replica: usize,
    pub(crate) server: Mutex<Server>,
}

/// What a gateway that has ended counted.
pub(crate) struct Closed {
    pub(crate) gateway: usize,
    pub(crate) metrics: String,
    /// When it was last asked: what it counted later is not known.
    pub(crate) asked: Instant,
    pub(crate) ended: Instant,
}

/// All of them.
pub(crate) struct Fleet {
    slots: Vec<Slot>,
    pub(crate) redis: Mutex<Redis>,
    closed: SyncMutex<Vec<Closed>>,
    errors: SyncMutex<BTreeMap<String, u64>>,
}

impl Fleet {
    /// Starts them, and waits until they serve. `None`, with a message, if there is no Redis.
    pub(crate) async fn start() -> Option<Self> {
        let redis = Redis::start().await?;
        let url = redis.url();
        let idle_timeout = format!("{IDLE_TIMEOUT:?}");
        let mut slots: Vec<Slot> = Vec::new();
        for role in Role::ALL {
            let before: Vec<String> = match slots.last() {
                None => Vec::new(),
                Some(last) => {
                    let mut endpoints = Vec::new();
                    for slot in slots.iter().filter(|slot| slot.role == last.role) {
                        endpoints.push(slot.server.lock().await.endpoint().to_owned());
                    }
                    endpoints
                }
            };
            let targets = before.join(",");
            let (arguments, environment) = match role {
                Role::Inference => (vec![], vec![]),
                Role::Feature => (vec!["--inference", &targets], vec![]),
                Role::Gateway => (
                    vec!["--feature", &targets, "--cache-url", &url],
                    vec![("CHORALE_GATEWAY__LIMITS__IDLE_TIMEOUT", idle_timeout.as_str())],
                ),
            };
            for replica in 0..REPLICAS {
                let server = Server::start_on(free_port(), role.name(), &arguments, &environment).await;
                server.serving(role.service()).await;
                slots.push(Slot { role, replica, server: Mutex::new(server) });
            }
        }
        Some(Self { slots, redis: Mutex::new(redis), closed: SyncMutex::default(), errors: SyncMutex::default() })
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(crate) fn slot(&self, role: Role, replica: usize) -> &Slot {
        self.slots
            .iter()
            .find(|slot| slot.role == role && slot.replica == replica)
            .expect("every role has its replicas")
    }

    /// Kills a replica, and starts it again when it was away for so long.
    pub(crate) async fn kill(&self, role: Role, replica: usize, away: Duration) {
        let mut server = self.slot(role, replica).server.lock().await;
        self.note_errors(&server);
        server.kill();
        sleep(away).await;
        server.restart().await;
        server.serving(role.service()).await;
    }

    /// Ends a replica in good order, and starts it again.
    pub(crate) async fn restart(&self, role: Role, replica: usize) {
        let mut server = self.slot(role, replica).server.lock().await;
        let mut asked = Instant::now();
        let mut metrics = server.metrics();
        server.terminate();
        loop {
            let now = Instant::now();
            let Ok(text) = server.try_metrics() else { break };
            (asked, metrics) = (now, text);
            sleep(SCRAPE_INTERVAL).await;
        }
        let status = server.ended().await;
        self.note_errors(&server);
        if role == Role::Gateway {
            self.closed().push(Closed { gateway: replica, metrics, asked, ended: Instant::now() });
        }
        server.restart().await;
        server.serving(role.service()).await;
        assert!(status.success(), "{role} {replica} did not end well: {status}");
    }

    /// Stops a replica where it is, for so long.
    pub(crate) async fn hang(&self, role: Role, replica: usize, how_long: Duration) {
        let server = self.slot(role, replica).server.lock().await;
        server.pause();
        sleep(how_long).await;
        server.go_on();
    }

    /// What gateways that have ended counted.
    pub(crate) fn closed(&self) -> SyncGuard<'_, Vec<Closed>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what a process logged as errors.
    fn note_errors(&self, server: &Server) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        for line in server.logged_errors() {
            *errors.entry(line).or_default() += 1;
        }
    }

    /// What all processes logged as errors.
    pub(crate) async fn logged_errors(&self) -> Vec<String> {
        for slot in &self.slots {
            self.note_errors(&*slot.server.lock().await);
        }
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }
}
