//! A network between two processes that can be cut.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// Hands on what comes to a port of its own, until it is cut. Then nothing passes, in either direction, and nobody is told:
/// connections stay open, and new ones are taken, as where packets are lost on the way.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    connected: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// A network to `target`, `host:port`.
    pub async fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (connected, state) = watch::channel(true);
        let target = target.to_owned();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (target, mut state) = (target.clone(), state.clone());
                tokio::spawn(async move {
                    if state.wait_for(|connected| *connected).await.is_err() {
                        return;
                    }
                    let Ok(other) = TcpStream::connect(target).await else { return };
                    let ((here, to_here), (there, to_there)) = (stream.into_split(), other.into_split());
                    tokio::join!(hand_on(here, to_there, state.clone()), hand_on(there, to_here, state));
                });
            }
        });
        Self { address, connected, task }
    }

    /// Where it is, as `--feature` and `--inference` take it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets nothing pass any more.
    pub fn cut(&self) {
        self.connected.send_replace(false);
    }

    /// Lets everything pass again, also what waited.
    pub fn heal(&self) {
        self.connected.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn hand_on(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut state: watch::Receiver<bool>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await;
        // What was on its way waits; the end of a connection is news like any other.
        if state.wait_for(|connected| *connected).await.is_err() {
            return;
        }
        match read {
            Ok(0) | Err(_) => break,
            Ok(count) if to.write_all(&buffer[..count]).await.is_err() => break,
            Ok(_) => {}
        }
    }
    // The other side may have ended already.
    let _ = to.shutdown().await;
}
