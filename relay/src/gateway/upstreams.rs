//! Who serves a visitor: whether it may come in, and a connection to the local server behind the name.

use proto::name::ShareName;
use proto::tunnel::access::Admission;
use proto::tunnel::keep;
use proto::tunnel::pool::Refusal;
use proto::tunnel::proxy::Visit;
use proto::tunnel::request::RequestHead;
use std::sync::PoisonError;
use tokio::time::Instant;

use super::Gateway;
use super::page::Page;
use super::sharers::{Found, Shown};
use super::stayed::Stayed;
use super::upstream::Upstream;

/// Why a visitor gets no connection.
pub(crate) enum NoUpstream {
    Refused(Refusal),
    /// It is told this.
    Told(Page),
}

impl From<Refusal> for NoUpstream {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Gateway {
    /// A connection for an exchange with the local server behind this name, which is wanted since `since`: one that has
    /// stayed behind another exchange of the visitor's, where there is one and this one may go over it.
    pub(super) async fn upstream(
        &self,
        name: &ShareName,
        request: &RequestHead,
        visit: &Visit,
        stayed: Option<Stayed>,
        since: Instant,
    ) -> Result<Upstream, NoUpstream> {
        match self.sharers.find(name) {
            Found::Served(served) => {
                if let Some(page) = self.turned_away(name, &served.shown, request, visit) {
                    return Err(NoUpstream::Told(page));
                }
                let lent = served.lends(visit, request.authority.as_str());
                if keep::may_use(request, visit)
                    && let Some(upstream) = stayed.and_then(|stayed| stayed.take(&lent))
                {
                    return Ok(upstream);
                }
                Ok(self.sharers.borrow(served, lent).await?)
            }
            Found::Away => Err(Refusal::Away.into()),
            Found::Nobody => match &self.tunnels {
                Some(tunnels) => Ok(tunnels.borrow(name, since).await?),
                None => Err(Refusal::Unknown.into()),
            },
        }
    }

    /// What a visitor is told that the share does not let in.
    fn turned_away(
        &self,
        name: &ShareName,
        shown: &Shown,
        request: &RequestHead,
        visit: &Visit,
    ) -> Option<Page> {
        let told = |status, what, remedy| Some(Page::failure(status, Some(request), what, remedy));
        let fields = || request.fields.all("authorization").map(|field| field.text());
        let now = Instant::now().into_std();
        let guesses = || self.guesses.lock().unwrap_or_else(PoisonError::into_inner);
        // Who has guessed too often is not told either when a guess is right.
        let tried = shown.access.is_tried(fields());
        if tried && !guesses().may(name, visit.client, now) {
            self.counters.guesses_limited.add();
            return told(429, "Too many wrong passwords.", "Try again in a minute.");
        }
        match shown.access.judge(&shown.share, visit.client, fields()) {
            Admission::Allowed => {
                if tried {
                    guesses().handle_right(name, visit.client, now);
                }
                None
            }
            Admission::Forbidden => {
                self.counters.forbidden.add();
                told(403, "This is not shared with your network.", "Ask who shares it.")
            }
            Admission::Unauthorized { guessed } => {
                self.counters.unauthorized.add();
                if guessed {
                    guesses().handle_wrong(name, visit.client, now);
                }
                let page = told(401, "This wants a user name and a password.", "Ask who shares it.")?;
                Some(page.asking_for_password(name))
            }
        }
    }
}
