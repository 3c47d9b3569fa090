//! What is shared: TCP services of a few lines each.

use std::future::Future;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A service; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Origin {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Origin {
    /// Serves each connection with `serve`, at a free port of this host.
    pub(crate) async fn serving<F, Fut>(host: &str, serve: F) -> Self
    where
        F: Fn(TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::on(TcpListener::bind((host, 0)).await.unwrap(), serve)
    }

    pub(crate) fn on<F, Fut>(listener: TcpListener, serve: F) -> Self
    where
        F: Fn(TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let addr = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        Self { addr, task }
    }

    /// Sends back what it gets, to the end of file.
    pub(crate) async fn echo() -> Self {
        Self::serving("127.0.0.1", echo).await
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// As `peer share` takes it.
    pub(crate) fn target(&self) -> String {
        self.addr.to_string()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Sends back what it gets.
pub(crate) async fn echo(mut stream: TcpStream) {
    let (mut reader, mut writer) = stream.split();
    if tokio::io::copy(&mut reader, &mut writer).await.is_ok() {
        let _ = writer.shutdown().await;
    }
}

/// Reads to the end of file and only then answers, with the number of bytes and their hash.
pub(crate) async fn digest_after_eof(mut stream: TcpStream) {
    let mut bytes = Vec::new();
    if stream.read_to_end(&mut bytes).await.is_ok() {
        let hash = ring::digest::digest(&ring::digest::SHA256, &bytes);
        let _ = stream.write_all(hash.as_ref()).await;
    }
}
