//! Whether the server that answers is the one that the user means.

use relay::outbound::Outbound;
use relay::program::{Failure, Report};

use crate::error::Error;
use crate::locate::{Located, locate};
use crate::server_url::ServerUrl;
use crate::store::Store;

/// Finds the server and checks its identity: by certificate with `https://`; else against the one that the
/// URL names, or the one that was seen first, which is pinned then and shown.
///
/// # Errors
/// It can't be reached, or it is another one.
pub(crate) async fn find_server(
    outbound: &Outbound,
    url: &ServerUrl,
    store: &Store,
    report: &Report,
) -> Result<Located, Failure> {
    let located = locate(outbound, url).await?;
    let hint = &located.server;
    if url.tls {
        return Ok(located);
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
        return Ok(located);
    }
    match store.pinned(&shown)? {
        Some(known) if known != hint.peer_id => {
            let remedy = format!("remove {}", store.pin_path(&shown).display());
            Err(changed(known, remedy).into())
        }
        Some(_) => Ok(located),
        None => {
            store.pin(&shown, hint.peer_id)?;
            report.line(format_args!(
                "The server {shown} is {} (kept; a change will be refused).",
                hint.peer_id
            ));
            Ok(located)
        }
    }
}
