//! A network between two processes that can be cut, slow, or lead elsewhere.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::sleep,
};

/// Hands on what comes to a port of its own, until it is cut. Then nothing passes, in either direction, and nobody is told:
/// connections stay open, and new ones are taken, as where packets are lost on the way.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    path: watch::Sender<Path>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Path {
    target: String,
    connected: bool,
    delay: Duration,
}

impl Proxy {
    /// A network to `target`, `host:port`.
    pub async fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (path, state) = watch::channel(Path { target: target.to_owned(), connected: true, delay: Duration::ZERO });
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut state = state.clone();
                tokio::spawn(async move {
                    let Ok(target) = state.wait_for(|path| path.connected).await.map(|path| path.target.clone()) else {
                        return;
                    };
                    let Ok(other) = TcpStream::connect(target).await else { return };
                    let ((here, to_here), (there, to_there)) = (stream.into_split(), other.into_split());
                    tokio::join!(hand_on(here, to_there, state.clone()), hand_on(there, to_here, state));
                });
            }
        });
        Self { address, path, task }
    }

    /// Where it is, as `--feature` and `--inference` take it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets nothing pass any more.
    pub fn cut(&self) {
        self.path.send_modify(|path| path.connected = false);
    }

    /// Lets everything pass again, also what waited.
    pub fn heal(&self) {
        self.path.send_modify(|path| path.connected = true);
    }

    /// From now on everything takes so much longer, in each direction.
    pub fn delay(&self, delay: Duration) {
        self.path.send_modify(|path| path.delay = delay);
    }

    /// New connections go to `target`; those that are open stay where they are. So does a name that leads elsewhere.
    pub fn lead_to(&self, target: &str) {
        self.path.send_modify(|path| target.clone_into(&mut path.target));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn hand_on(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut state: watch::Receiver<Path>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await;
        let delay = state.borrow().delay;
        sleep(delay).await;
        // What was on its way waits; the end of a connection is news like any other.
        if state.wait_for(|path| path.connected).await.is_err() {
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
