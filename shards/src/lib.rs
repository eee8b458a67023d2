//! One core's world: everything between an event that ingress has read and the bytes on a client's socket.
//!
//! What flows through, and in which order to read it:
//!
//! 1. [`event`] decodes a CloudEvent once; [`extractor`], [`pointer`] and [`value`] find the fields that subscriptions name.
//! 2. [`publisher`] (on the ingress thread) asks [`interest`] who wants the type, and archives the event with its frames as a
//!    [`record`] in a [`segment`].
//! 3. [`mailbox`] carries a descriptor to every interested shard.
//! 4. [`shard`] matches it in its [`index`], and sends one batch per connection; what a socket doesn't take waits in a [`queue`].
//! 5. `runtime` is the event loop around it, the only place that names glommio: it accepts sockets, reads heads ([`head`],
//!    [`query`], [`cookie`]), speaks [`ws`] and [`sse`], and serves the rest through hyper.
//!
//! Subscriptions come in through [`subscription`] (and [`claims`], by way of a [`bearer`]'s tokens), connections are named by [`token`], time passes through
//! the wheel of `tidegate_reactive` and [`rate`], [`limits`] bound what a client may take ([`proxy_protocol`] says who it is), long polling keeps its events in [`longpoll`].
//! [`sessions`] says who is blacklisted. [`node`] starts all shards. Events published over HTTP
//! leave through [`publication`] and [`submit`]. Connections to the TLS port have a session of [`tls`] between all that and the socket. Every other request is the API proxy's: [`proxy`] decides, `runtime` carries.
//!
//! Everything but `runtime` is a state machine without event loop: bytes and time are passed in.

pub mod auth;
pub mod bearer;
pub mod bell;
pub mod checkpoints;
pub mod claims;
pub mod clock;
pub mod cookie;
pub mod cursor;
pub mod event;
pub mod extractor;
pub mod head;
pub mod index;
pub mod interest;
pub mod limits;
pub mod listener;
pub mod longpoll;
pub mod mailbox;
mod members;
pub mod metrics;
pub mod node;
pub mod peers;
pub mod pointer;
pub mod proxy;
pub mod proxy_protocol;
pub mod publication;
pub mod publisher;
pub mod query;
pub mod queue;
pub mod rate;
pub mod record;
pub mod replay;
mod runtime;
pub mod segment;
pub mod sessions;
pub mod settings;
pub mod shard;
pub mod snapshot;
pub mod sse;
pub mod submit;
pub mod subscription;
pub mod tls;
pub mod token;
pub mod trace;
pub mod value;
pub mod ws;
