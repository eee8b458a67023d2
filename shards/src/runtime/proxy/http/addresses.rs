//! The addresses of a backend's name: asked for anew now and then, used as they are while the name server is silent.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::{LocalBoxFuture, Shared};

use super::connect::{Late, before};
use super::resolver::Addresses;
use crate::proxy::deadline::Deadlines;

/// How long addresses of a name are used before it is asked for again.
const ADDRESSES_MS: u64 = 30_000;

/// A question to the name server that several may wait for.
pub(super) type Lookup = Shared<LocalBoxFuture<'static, Addresses>>;

/// What is known of one name.
#[derive(Default)]
pub(super) struct AddressBook {
    known: RefCell<Option<Known>>,
    /// The question that has no answer yet, or one that nobody has seen, and when it was asked.
    lookup: RefCell<Option<(u64, Lookup)>>,
}

#[derive(Clone)]
struct Known {
    addresses: Arc<[SocketAddr]>,
    fresh_until_ms: u64,
}

impl AddressBook {
    /// The addresses at `now_ms`. Old ones are asked for anew with `ask`, but used if that takes longer than `patience_ms`:
    /// a name server that is away fails no call to a backend whose addresses are known.
    ///
    /// # Errors
    /// Why there are none.
    pub(super) async fn get(
        &self,
        now_ms: u64,
        deadlines: &Deadlines,
        patience_ms: u64,
        ask: impl Fn() -> Lookup,
    ) -> Addresses {
        loop {
            let known = self.known.borrow().clone();
            if let Some(known) = &known
                && now_ms < known.fresh_until_ms
            {
                return Ok(Arc::clone(&known.addresses));
            }
            let (asked_ms, lookup) = self.lookup.borrow_mut().get_or_insert_with(|| (now_ms, ask())).clone();
            if known.is_none() {
                self.answered(asked_ms, lookup.await)?;
                continue;
            }
            let patience = deadlines.at(now_ms + patience_ms);
            let found = match before(&patience, lookup).await {
                Ok(found) => self.answered(asked_ms, found).is_ok(),
                Err(Late) => false,
            };
            if !found && let Some(known) = self.known.borrow_mut().as_mut() {
                // Old addresses are better than none, and no call waits for new ones until these are old again.
                known.fresh_until_ms = now_ms + ADDRESSES_MS;
            }
        }
    }

    /// None of the addresses answered: the next request asks for them anew.
    pub(super) fn doubt(&self) {
        if let Some(known) = self.known.borrow_mut().as_mut() {
            known.fresh_until_ms = 0;
        }
    }

    /// Notes an answer. It is as old as its question: it may have waited long for somebody to look.
    fn answered(&self, asked_ms: u64, found: Addresses) -> Result<(), Arc<str>> {
        self.lookup.borrow_mut().take_if(|(since_ms, _)| *since_ms == asked_ms);
        let fresh_until_ms = asked_ms + ADDRESSES_MS;
        *self.known.borrow_mut() = Some(Known { addresses: found?, fresh_until_ms });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::{Future, pending, ready};
    use std::pin::pin;
    use std::task::{Context, Poll};

    use futures_channel::oneshot;
    use futures_util::FutureExt;
    use futures_util::task::noop_waker;

    use super::*;

    const PATIENCE_MS: u64 = 500;

    fn addresses(last: u8) -> Addresses {
        Ok([SocketAddr::from(([10, 0, 0, last], 80))].into())
    }

    fn answered(found: Addresses) -> Lookup {
        ready(found).boxed_local().shared()
    }

    fn silent() -> Lookup {
        pending().boxed_local().shared()
    }

    fn never_asked() -> Lookup {
        panic!("nobody asks for fresh addresses")
    }

    fn poll<T>(future: impl Future<Output = T>) -> Poll<T> {
        pin!(future).poll(&mut Context::from_waker(&noop_waker()))
    }

    /// What a call gets that waits for nothing.
    fn at_once(book: &AddressBook, now_ms: u64, ask: impl Fn() -> Lookup) -> Addresses {
        match poll(book.get(now_ms, &Deadlines::new(now_ms), PATIENCE_MS, ask)) {
            Poll::Ready(found) => found,
            Poll::Pending => panic!("the call waits"),
        }
    }

    /// What a call gets that loses its patience.
    fn patiently(book: &AddressBook, now_ms: u64, ask: impl Fn() -> Lookup) -> Addresses {
        let deadlines = Deadlines::new(now_ms);
        let mut call = pin!(book.get(now_ms, &deadlines, PATIENCE_MS, ask));
        assert!(poll(call.as_mut()).is_pending());
        deadlines.tick(now_ms + PATIENCE_MS - 50);
        assert!(poll(call.as_mut()).is_pending());
        deadlines.tick(now_ms + PATIENCE_MS + 50);
        match poll(call) {
            Poll::Ready(found) => found,
            Poll::Pending => panic!("the call still waits"),
        }
    }

    #[test]
    fn addresses_are_asked_for_again_when_they_are_old() {
        let book = AddressBook::default();
        assert_eq!(at_once(&book, 0, || answered(addresses(1))), addresses(1));
        assert_eq!(at_once(&book, ADDRESSES_MS - 1, never_asked), addresses(1));
        assert_eq!(at_once(&book, ADDRESSES_MS, || answered(addresses(2))), addresses(2));
    }

    #[test]
    fn doubtful_addresses_are_asked_for_at_once() {
        let book = AddressBook::default();
        assert_eq!(at_once(&book, 0, || answered(addresses(1))), addresses(1));
        book.doubt();
        assert_eq!(at_once(&book, 1, || answered(addresses(2))), addresses(2));
    }

    #[test]
    fn a_silent_name_server_holds_up_one_call_now_and_then_and_fails_none() {
        let book = AddressBook::default();
        assert_eq!(at_once(&book, 0, || answered(addresses(1))), addresses(1));
        assert_eq!(patiently(&book, ADDRESSES_MS, silent), addresses(1));
        assert_eq!(at_once(&book, ADDRESSES_MS + 1, never_asked), addresses(1));
        assert_eq!(patiently(&book, 2 * ADDRESSES_MS, never_asked), addresses(1), "the question still stands");
    }

    #[test]
    fn an_error_leaves_old_addresses_in_use_and_is_not_asked_for_by_every_call() {
        let book = AddressBook::default();
        let refused = || answered(Err("no such name".into()));
        assert_eq!(at_once(&book, 0, refused), Err("no such name".into()));
        assert_eq!(at_once(&book, 0, || answered(addresses(1))), addresses(1));
        assert_eq!(at_once(&book, ADDRESSES_MS, refused), addresses(1));
        assert_eq!(at_once(&book, ADDRESSES_MS + 1, never_asked), addresses(1));
    }

    #[test]
    fn without_known_addresses_a_call_waits_for_the_answer() {
        let (book, deadlines) = (AddressBook::default(), Deadlines::new(0));
        let (answer, lookup) = oneshot::channel();
        let lookup = lookup.map(|answer| answer.expect("an answer")).boxed_local().shared();
        let asked = Cell::new(0);
        let ask = || {
            asked.set(asked.get() + 1);
            lookup.clone()
        };
        let mut calls = [0, 1].map(|now_ms| Box::pin(book.get(now_ms, &deadlines, PATIENCE_MS, ask)));
        assert!(calls.iter_mut().all(|call| poll(call.as_mut()).is_pending()));
        deadlines.tick(10_000);
        assert!(calls.iter_mut().all(|call| poll(call.as_mut()).is_pending()));
        answer.send(addresses(1)).expect("somebody waits");
        assert!(calls.iter_mut().all(|call| poll(call.as_mut()) == Poll::Ready(addresses(1))));
        assert_eq!(asked.get(), 1, "they share one question");
    }

    #[test]
    fn an_answer_that_nobody_was_there_for_is_as_old_as_its_question() {
        let book = AddressBook::default();
        let (answer, lookup) = oneshot::channel();
        let lookup = lookup.map(|answer| answer.expect("an answer")).boxed_local().shared();
        let given_up = poll(book.get(0, &Deadlines::new(0), PATIENCE_MS, || lookup.clone()));
        assert!(given_up.is_pending());
        answer.send(addresses(1)).expect("the question stands");
        assert_eq!(at_once(&book, ADDRESSES_MS, || answered(addresses(2))), addresses(2));
    }
}
