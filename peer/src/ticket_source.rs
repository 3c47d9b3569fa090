//! Where a command's ticket comes from: the argument, a file, standard input, the environment, or an alias.

use std::io::Read as _;

use proto::interface::Interfaces;
use proto::ticket::{ServerHint, Ticket};
use relay::net::Net;
use relay::program::Failure;

use crate::store::Store;

/// The environment variable that may hold the ticket.
const TICKET_VARIABLE: &str = "CULVERT_TICKET";

/// The ticket that `given` is, names, or holds; without it, that of the environment.
pub(crate) fn read(given: Option<String>, store: &Store) -> Result<Ticket, Failure> {
    let text = text(given)?;
    let Ok(alias) = text.trim().parse() else { return text.parse().map_err(Failure::usage) };
    store.alias(&alias)?.ok_or_else(|| {
        Failure::usage(format_args!(
            "there is no alias {alias}: `peer alias list` shows those there are, `peer connect TICKET --save \
             {alias}` makes one"
        ))
    })
}

/// The server of a ticket, without addresses that the ticket's maker may have put there to aim us at our own machine or
/// network.
pub(crate) fn server(ticket: &Ticket, net: &dyn Net) -> ServerHint {
    let own = Interfaces::new(net.interfaces().unwrap_or_default(), Vec::new());
    ticket.server.clone().from_others(|ip| own.has_neighbour(ip))
}

fn text(given: Option<String>) -> Result<String, Failure> {
    let missing = || {
        Failure::usage(format_args!(
            "there is no ticket: give it, or its alias, as the argument, as @FILE, as - for standard input, or in \
             {TICKET_VARIABLE}"
        ))
    };
    let given = match given {
        Some(given) => given,
        None => std::env::var(TICKET_VARIABLE).map_err(|_| missing())?,
    };
    if given == "-" {
        let mut text = String::new();
        let limit = proto::ticket::MAX_TEXT as u64 + 2;
        std::io::stdin()
            .take(limit)
            .read_to_string(&mut text)
            .map_err(|error| Failure::usage(format_args!("standard input holds no ticket: {error}")))?;
        return Ok(text);
    }
    match given.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format_args!("{path} holds no ticket: {error}"))),
        None => Ok(given),
    }
}
