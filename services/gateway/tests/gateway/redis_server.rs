//! The cache in a real Redis server, which comes and goes.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use chorale_gateway::GatewayConfig;
use chorale_proto::v1::{ClassifyOptions, Verdict};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    cluster::Cluster,
    feature::{FakeFeature, audio},
};

/// A server that keeps nothing on disk; killed when dropped.
struct RedisServer {
    port: u16,
    process: Child,
}

impl RedisServer {
    /// `None`, and a word about it, where Redis is not installed.
    async fn start(port: u16) -> Option<Self> {
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn();
        let Ok(process) = process else {
            eprintln!("redis-server is not installed: this test is skipped");
            return None;
        };
        let server = Self { port, process };
        for _ in 0..200 {
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return Some(server);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("redis-server does not answer on port {port}");
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.process.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    async fn run(&self, command: &str) {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        connection.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
        connection.readable().await.unwrap();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn with_redis(port: u16) -> impl FnOnce(&mut GatewayConfig) {
    move |config| config.cache.url = Some(format!("redis://127.0.0.1:{port}").parse().unwrap())
}

async fn classify(cluster: &Cluster, audio: &[u8]) -> Verdict {
    cluster.classify(ClassifyOptions::default(), audio).await.unwrap()
}

/// Classifies new audio twice, until the second answer comes from the cache.
async fn wait_for_cache(cluster: &Cluster) {
    let began = Instant::now();
    for index in 0_u32.. {
        let audio = [audio(&[1]), index.to_le_bytes().to_vec()].concat();
        classify(cluster, &audio).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        if classify(cluster, &audio).await.cached {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(5), "the cache does not come back");
    }
}

#[tokio::test]
async fn gateways_share_what_one_of_them_computed() {
    let Some(redis) = RedisServer::start(free_port()).await else { return };
    let feature = FakeFeature::start();
    let one = Cluster::start(&[&feature], with_redis(redis.port)).await;
    let other = Cluster::start(&[&feature], with_redis(redis.port)).await;
    wait_for_cache(&one).await;
    let audio = audio(&[2, 0, 2]);
    let first = classify(&one, &audio).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(classify(&other, &audio).await, Verdict { cached: true, ..first });

    redis.run("FLUSHALL").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!classify(&other, &audio).await.cached);
}

#[tokio::test]
async fn redis_comes_and_goes_and_calls_go_on() {
    let port = free_port();
    let feature = FakeFeature::start();
    // Redis is not there when the gateway starts.
    let cluster = Cluster::start(&[&feature], with_redis(port)).await;
    assert!(!classify(&cluster, &audio(&[0])).await.cached);
    let Some(redis) = RedisServer::start(port).await else { return };
    wait_for_cache(&cluster).await;

    drop(redis);
    let began = Instant::now();
    for _ in 0..3 {
        assert!(!classify(&cluster, &audio(&[0, 1])).await.cached);
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let errors = cluster.metric("chorale_gateway_cache_lookups_total{backend=\"redis\",result=\"error\"}");
    let timeouts = cluster.metric("chorale_gateway_cache_lookups_total{backend=\"redis\",result=\"timeout\"}");
    assert!(errors + timeouts >= 3, "{errors} errors, {timeouts} timeouts");

    let _redis = RedisServer::start(port).await.unwrap();
    wait_for_cache(&cluster).await;
}

#[tokio::test]
async fn a_hung_redis_costs_a_call_no_more_than_its_timeout() {
    let Some(redis) = RedisServer::start(free_port()).await else { return };
    let feature = FakeFeature::start();
    let cluster = Cluster::start(&[&feature], with_redis(redis.port)).await;
    wait_for_cache(&cluster).await;
    redis.signal("-STOP");
    for index in 0..6 {
        let began = Instant::now();
        assert!(!classify(&cluster, &audio(&[2, index])).await.cached);
        assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    }
    // Some wait, and so do writes, until it is not asked any more.
    let looks = |result| {
        cluster.metric(&format!("chorale_gateway_cache_lookups_total{{backend=\"redis\",result=\"{result}\"}}"))
    };
    assert!(looks("timeout") >= 1, "{}", looks("timeout"));
    assert_eq!(looks("timeout") + looks("not_asked"), 6);
    redis.signal("-CONT");
    wait_for_cache(&cluster).await;
}
