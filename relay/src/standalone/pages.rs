//! What a stand-alone relay answers over HTTP.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use proto::tunnel::proxy::Cidr;
use proto::wire::relay::PATH;
use tokio::sync::watch;

use crate::http::{Asker, HttpCounters, Page, Pages, page, text};
use crate::metrics::Metrics;
use crate::net::BoxFuture;
use crate::server::{RelayServer, write_metrics};

/// The public side.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) relay: Arc<RelayServer>,
    /// Proxies that are believed whom they speak for.
    pub(super) trusted: Vec<Cidr>,
}

impl Pages for Front {
    fn answer<'a>(&'a self, request: &'a Request<Incoming>, _asker: Asker) -> BoxFuture<'a, Page> {
        let page = match request.uri().path() {
            "/" => text(StatusCode::OK, format!("This is a Culvert relay, {}.\n", self.relay.peer_id())),
            _ => text(StatusCode::NOT_FOUND, "There is nothing here.\n"),
        };
        Box::pin(std::future::ready(page))
    }

    fn take_over(&self, request: &mut Request<Incoming>, asker: Asker) -> Option<Page> {
        (request.uri().path() == PATH).then(|| self.relay.upgrade(request, asker.from, &self.trusted))
    }
}

/// The operator's side.
#[derive(Debug)]
pub(super) struct Admin {
    pub(super) relay: Arc<RelayServer>,
    pub(super) http: Arc<HttpCounters>,
    pub(super) draining: watch::Receiver<bool>,
}

impl Admin {
    fn metrics(&self) -> String {
        let mut metrics = Metrics::new("relay");
        self.http.stats().write(&mut metrics);
        write_metrics(&self.relay.stats(), &mut metrics);
        metrics.into_text()
    }
}

impl Pages for Admin {
    fn answer<'a>(&'a self, request: &'a Request<Incoming>, _asker: Asker) -> BoxFuture<'a, Page> {
        let page = match request.uri().path() {
            "/metrics" => page(StatusCode::OK, Metrics::CONTENT_TYPE, self.metrics()),
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" if *self.draining.borrow() => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            "/readyz" => text(StatusCode::OK, "ready\n"),
            _ => text(StatusCode::NOT_FOUND, "Here are /metrics, /healthz and /readyz.\n"),
        };
        Box::pin(std::future::ready(page))
    }
}
