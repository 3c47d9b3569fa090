//! `peer alias`: the short names of tickets.

use relay::program::{Ending, Failure, Report};
use serde::Serialize;

use crate::cli;
use crate::store::Store;

#[derive(Serialize)]
struct AliasFields {
    alias: String,
    peer_id: String,
    server: String,
}

/// Runs the command.
pub(crate) fn run(args: &cli::Alias, report: &Report) -> Result<Ending, Failure> {
    let store = Store::of_this_user()?;
    match &args.command {
        cli::AliasCommand::List => list(&store, report)?,
        cli::AliasCommand::Remove { alias } => {
            if !store.remove_alias(alias)? {
                return Err(Failure::usage(format_args!(
                    "there is no alias {alias}: `peer alias list` shows those there are"
                )));
            }
            report.line(format_args!("{alias} is forgotten; its ticket is as good as before."));
        }
    }
    Ok(().into())
}

fn list(store: &Store, report: &Report) -> Result<(), Failure> {
    let aliases = store.aliases()?;
    if aliases.is_empty() {
        report.line("There are no aliases: `peer connect TICKET --save ALIAS` makes one.");
    }
    for alias in aliases {
        let Some(ticket) = store.alias(&alias)? else { continue };
        let (peer, server) = (ticket.sharer, &ticket.server.url);
        report.line(format_args!("{}  {} at {server}", report.style().bold(&alias), peer.short()));
        let fields =
            AliasFields { alias: alias.to_string(), peer_id: peer.to_string(), server: server.clone() };
        report.event("alias", fields);
    }
    Ok(())
}
