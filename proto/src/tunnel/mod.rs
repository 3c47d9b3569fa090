//! What the gateway decides: which bytes are a request, which host is whose, who gets which connection.
//!
//! A visitor's request passes through these in order. [`head`] finds the end of its head and takes it apart
//! into lines, refusing everything that two programs could read differently. [`request`] makes a
//! [`request::RequestHead`] of it, [`host`] says whether that is for the server itself, for a name, or for
//! nobody. Names are the keys' that claimed them ([`names`]); [`lineup`] says which connection of the owner
//! serves one, and [`access`] whom it lets in ([`guesses`] how often one may try). To others [`pool`] lends a
//! connection of a localtunnel client; that to a sharer's server may stay for the same visitor ([`keep`]).
//! [`forward`] writes the head anew, from what was understood and from nothing else; [`chunk`] reads a chunked
//! body, and [`response`] the answer. [`unread`] says who is cut when too much waits to be read. What comes over
//! HTTP/2 is first written as HTTP/1.1 ([`http2`]).

pub mod access;
pub mod chunk;
pub mod forward;
pub mod guesses;
pub mod head;
pub mod host;
pub mod http2;
pub mod keep;
pub mod label;
pub mod lineup;
pub mod names;
pub mod pool;
pub mod proxy;
pub mod request;
pub mod response;
pub mod unread;
