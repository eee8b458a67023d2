//! Threads for what would block a shard: names are resolved, and the system's certificate authorities read.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use futures_channel::oneshot;
use rustls::ClientConfig;

use super::tls;

/// Threads that ask for names: one that hangs on a dead name server leaves the others.
const THREADS: usize = 4;
/// Questions that may wait.
const MAX_QUESTIONS: usize = 1_024;

/// The addresses of a name, or why there are none.
pub(in crate::runtime) type Addresses = Result<Arc<[SocketAddr]>, Arc<str>>;
/// How to speak TLS with backends, or why that isn't possible.
type Tls = Result<Arc<ClientConfig>, Arc<str>>;

enum Question {
    Name { host: Box<str>, port: u16, reply: oneshot::Sender<Addresses> },
    Tls { reply: oneshot::Sender<Tls> },
}

/// Asks the threads, which end when the last of its clones is gone; cheap to clone.
#[derive(Clone)]
pub(crate) struct Resolver {
    questions: Sender<Question>,
    tls: Arc<OnceLock<Tls>>,
}

impl Resolver {
    /// Starts the threads. `ca_pem` is an authority for https backends beside the system's.
    pub(crate) fn start(ca_pem: Option<Arc<[u8]>>) -> io::Result<Self> {
        let (questions, receiver) = bounded(MAX_QUESTIONS);
        let tls: Arc<OnceLock<Tls>> = Arc::default();
        for number in 0..THREADS {
            let (receiver, tls, ca_pem) = (receiver.clone(), Arc::clone(&tls), ca_pem.clone());
            std::thread::Builder::new()
                .name(format!("resolver-{number}"))
                .spawn(move || answer_all(&receiver, &tls, ca_pem.as_deref()))?;
        }
        Ok(Self { questions, tls })
    }

    /// The addresses of a name, in the order of `getaddrinfo`.
    pub(super) async fn resolve(&self, host: Box<str>, port: u16) -> Addresses {
        let (reply, answer) = oneshot::channel();
        self.ask(Question::Name { host, port, reply })?;
        answer.await.unwrap_or_else(|oneshot::Canceled| Err("the resolver has stopped".into()))
    }

    /// How to speak TLS. Once that is known, no thread is asked: all may hang on a dead name server.
    pub(super) async fn tls(&self) -> Tls {
        if let Some(known) = self.tls.get() {
            return known.clone();
        }
        let (reply, answer) = oneshot::channel();
        self.ask(Question::Tls { reply })?;
        answer.await.unwrap_or_else(|oneshot::Canceled| Err("the resolver has stopped".into()))
    }

    fn ask(&self, question: Question) -> Result<(), Arc<str>> {
        self.questions.try_send(question).map_err(|refused| match refused {
            TrySendError::Full(_) => "too many names wait to be resolved; is the name server slow?".into(),
            TrySendError::Disconnected(_) => "the resolver has stopped".into(),
        })
    }
}

fn answer_all(questions: &Receiver<Question>, tls: &OnceLock<Tls>, ca_pem: Option<&[u8]>) {
    while let Ok(question) = questions.recv() {
        match question {
            // Nobody may be waiting any more: then the answer is dropped.
            Question::Name { host, port, reply } => drop(reply.send(look_up(&host, port))),
            Question::Tls { reply } => drop(reply.send(tls.get_or_init(|| tls::config(ca_pem)).clone())),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this thread is there to be blocked")]
fn look_up(host: &str, port: u16) -> Addresses {
    let found = std::net::ToSocketAddrs::to_socket_addrs(&(host, port));
    let addresses: Arc<[SocketAddr]> =
        found.map_err(|error| Arc::from(format!("the name {host:?} can't be resolved: {error}")))?.collect();
    if addresses.is_empty() { Err(format!("the name {host:?} has no address").into()) } else { Ok(addresses) }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn how_to_speak_tls_is_asked_once_and_known_although_every_thread_hangs() {
        let (questions, waiting) = bounded(1);
        let resolver = Resolver { questions, tls: Arc::default() };
        assert!(resolver.tls().now_or_never().is_none(), "no thread has answered yet");
        assert_eq!(waiting.len(), 1);
        let unusable: Arc<str> = "no authority".into();
        let _first = resolver.tls.set(Err(Arc::clone(&unusable)));
        assert_eq!(resolver.tls().now_or_never().expect("it is known").err(), Some(unusable));
        assert_eq!(waiting.len(), 1, "nobody is asked again");
    }
}
