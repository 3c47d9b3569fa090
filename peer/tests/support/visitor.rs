//! Who comes to a connector's listener.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Program, soon};

/// The first listener in a connector's `ready`.
pub(crate) fn listener(ready: &Value) -> SocketAddr {
    ready["listen"][0].as_str().unwrap().parse().unwrap()
}

/// Waits for a connector to be ready, and gives its first listener.
pub(crate) async fn ready(connect: &mut Program) -> SocketAddr {
    listener(&connect.event("ready").await)
}

/// Says something to an echo and gives what came back.
pub(crate) async fn ask(at: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(at).await?;
    stream.write_all(question).await?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    soon("an answer", stream.read_to_end(&mut answer)).await?;
    Ok(answer)
}

/// An echo answers.
pub(crate) async fn is_served(at: SocketAddr) {
    assert_eq!(ask(at, b"hello").await.unwrap(), b"hello");
}

/// Bytes that no compression or repetition hides a mistake in.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};
    let mut bytes = vec![0; length];
    rand_chacha::ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// A visitor of an echo that stays.
#[derive(Debug)]
pub(crate) struct Held {
    stream: TcpStream,
}

impl Held {
    /// It is served, so what serves it is there.
    pub(crate) async fn open(at: SocketAddr) -> Self {
        let mut held = Self { stream: TcpStream::connect(at).await.unwrap() };
        held.is_served().await;
        held
    }

    pub(crate) async fn is_served(&mut self) {
        self.stream.write_all(b"still?").await.unwrap();
        let mut answer = [0; 6];
        soon("an echo", self.stream.read_exact(&mut answer)).await.unwrap();
        assert_eq!(&answer, b"still?");
    }

    /// Its connection breaks.
    pub(crate) async fn is_cut(&mut self) {
        let error = soon("its end", self.stream.read_u8()).await.unwrap_err();
        let kinds = [std::io::ErrorKind::ConnectionReset, std::io::ErrorKind::UnexpectedEof];
        assert!(kinds.contains(&error.kind()), "{error}");
    }
}
