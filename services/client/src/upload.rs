//! Audio on its way to the server.

use std::{fs::File, io, path::Path};

use bytes::{Bytes, BytesMut};
use chorale_proto::v1::{ClassifyStreamRequest, classify_stream_request::Payload};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::mpsc,
};

const MESSAGE_BYTES: usize = 64 * 1024;

/// Sends all of `audio`. Ends early, without an error, if the server wants no more of it.
pub(crate) async fn send(
    mut audio: impl AsyncRead + Unpin,
    requests: mpsc::Sender<ClassifyStreamRequest>,
) -> io::Result<()> {
    loop {
        let mut message = BytesMut::with_capacity(MESSAGE_BYTES);
        while message.len() < MESSAGE_BYTES {
            if audio.read_buf(&mut message).await? == 0 {
                break;
            }
        }
        if message.is_empty() {
            return Ok(());
        }
        let payload = Some(Payload::Audio(message.freeze()));
        if requests.send(ClassifyStreamRequest { payload }).await.is_err() {
            return Ok(());
        }
    }
}

/// The BLAKE3 digest of a file.
pub(crate) async fn digest(path: &Path) -> io::Result<Bytes> {
    let path = path.to_owned();
    let hashing = tokio::task::spawn_blocking(move || {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(path)?)?;
        Ok(Bytes::copy_from_slice(hasher.finalize().as_bytes()))
    });
    hashing.await.map_err(io::Error::other)?
}
