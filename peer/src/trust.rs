//! Whether the server that answers is the one that the user means.

use std::time::Duration;

use proto::id::PeerId;
use relay::outbound::{NameError, Outbound};
use relay::program::{Failure, Report};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::error::Error;
use crate::locate::{Located, locate};
use crate::server_url::ServerUrl;
use crate::store::Store;

/// How long the name of a server may stay without an answer before the server is looked for where it was last.
const SLOW_NAME: Duration = Duration::from_secs(1);

/// Between look-ups of a name that has no answer.
const NAME_RETRY: Duration = Duration::from_millis(250);

/// Finds the server and checks its identity: by certificate with `https://`; else against the one that the
/// URL names, or the one that was seen first, which is pinned then and shown.
///
/// A server that was found before is looked for where it was then, as long as its name has no answer: its identity is
/// checked in the session all the same.
///
/// # Errors
/// It can't be reached, or it is another one.
pub(crate) async fn find_server(
    outbound: &Outbound,
    url: &ServerUrl,
    store: &Store,
    report: &Report,
) -> Result<Located, Failure> {
    let located = match last_located(url, store)? {
        None => locate(outbound, url).await?,
        Some(last) => tokio::select! {
            biased;
            located = locate(outbound, url) => located?,
            () = name_is_slow(outbound, url) => {
                report.line(format_args!(
                    "The name {} has no answer from DNS yet: the server is looked for where it was last.", url.host
                ));
                return Ok(last);
            }
        },
    };
    check(url, store, report, &located)?;
    store.remember_located(&located);
    Ok(located)
}

fn check(url: &ServerUrl, store: &Store, report: &Report, located: &Located) -> Result<(), Failure> {
    let hint = &located.server;
    if url.tls {
        return Ok(());
    }
    let shown = url.to_string();
    let changed = |known, remedy| Error::ServerChanged {
        url: shown.clone(),
        known,
        found: hint.peer_id.to_string(),
        remedy,
    };
    if let Some(given) = url.peer_id {
        if given != hint.peer_id {
            return Err(changed(given, "write the new one behind the # of its URL".into()).into());
        }
        return Ok(());
    }
    match store.pinned(&shown)? {
        Some(known) if known != hint.peer_id => {
            let remedy = format!("remove {}", store.pin_path(&shown).display());
            Err(changed(known, remedy).into())
        }
        Some(_) => Ok(()),
        None => {
            store.pin(&shown, hint.peer_id)?;
            report.line(format_args!(
                "The server {shown} is {} (kept; a change will be refused).",
                hint.peer_id
            ));
            Ok(())
        }
    }
}

/// Where the server was last, if it is known to be the one that is meant: a certificate said so then, or its identity
/// is pinned.
fn last_located(url: &ServerUrl, store: &Store) -> Result<Option<Located>, Failure> {
    let shown = url.to_string();
    let Some(last) = store.last_located(&shown) else { return Ok(None) };
    let known: Option<PeerId> = match url.peer_id {
        _ if url.tls => Some(last.server.peer_id),
        Some(given) => Some(given),
        None => store.pinned(&shown)?,
    };
    Ok(Some(last).filter(|last| known == Some(last.server.peer_id)))
}

/// Ends when the server's name has had no answer for [`SLOW_NAME`], and never where it has one, or is known to have
/// no address.
async fn name_is_slow(outbound: &Outbound, url: &ServerUrl) {
    let until = Instant::now() + SLOW_NAME;
    loop {
        match timeout_at(until, outbound.find(&url.host)).await {
            Ok(Ok(()) | Err(NameError::NoAddress(_))) => std::future::pending().await,
            Ok(Err(NameError::NoAnswer(_) | NameError::Failed { .. })) => {}
            Err(_) => return,
        }
        if Instant::now() + NAME_RETRY >= until {
            return sleep_until(until).await;
        }
        sleep(NAME_RETRY).await;
    }
}
