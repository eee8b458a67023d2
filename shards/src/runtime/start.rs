//! One executor on one core.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use glommio::{Latency, LocalExecutorBuilder, Placement, Shares};

use super::proxy::Proxy;
use super::proxy::http::resolver::Resolver;
use super::readiness::Readiness;
use super::{READ_BUFFER_BYTES, World, accept, mail};
use crate::auth::{SessionList, Verifier};
use crate::bell::Bell;
use crate::clock;
use crate::limits::requests::RequestRates;
use crate::mailbox::{ControlLane, Inbox};
use crate::metrics::ShardMetrics;
use crate::publisher::InterestLane;
use crate::settings::ShardSettings;
use crate::shard::Shard;
use crate::submit::Sinks;

/// Memory that io_uring registers for file I/O, which a shard doesn't do; glommio's minimum.
const IO_MEMORY_BYTES: usize = 64 * 1024;
/// Entries of each of the executor's rings.
const RING_DEPTH: usize = 512;
/// How long a task queue may run before a more urgent one is looked at, when nothing urgent comes in;
/// what does come in interrupts at once. Short timers are dangerous: glommio 0.9.0 goes to sleep with
/// tasks ready to run when this timer fires between its polling for I/O and its first task queue.
const PREEMPT: Duration = Duration::from_millis(100);

/// Everything a shard's thread takes with it.
pub(crate) struct ShardThread {
    pub(crate) number: usize,
    pub(crate) core: Option<usize>,
    pub(crate) settings: Arc<ShardSettings>,
    pub(crate) metrics: Arc<ShardMetrics>,
    pub(crate) inbox: Inbox,
    pub(crate) lanes: Arc<[ControlLane]>,
    pub(crate) interest: InterestLane,
    pub(crate) ingress_bell: Bell,
    pub(crate) sinks: Sinks,
    pub(crate) resolver: Resolver,
    pub(crate) addresses: Listening,
}

/// The addresses a shard listens on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listening {
    pub(crate) plain: Vec<SocketAddr>,
    pub(crate) tls: Vec<SocketAddr>,
}

/// Starts the shard's thread. Its listeners' addresses, or the reason why it can't run, come through the channel.
pub(crate) fn start(shard: ShardThread) -> io::Result<(JoinHandle<()>, mpsc::Receiver<io::Result<Listening>>)> {
    let (ready, listening) = mpsc::channel();
    let name = format!("shard-{}", shard.number);
    let thread = std::thread::Builder::new().name(name).spawn(move || run(shard, &ready))?;
    Ok((thread, listening))
}

fn run(shard: ShardThread, ready: &mpsc::Sender<io::Result<Listening>>) {
    let placement = shard.core.map_or(Placement::Unbound, Placement::Fixed);
    let spin_us = shard.settings.spin_us;
    let mut builder = LocalExecutorBuilder::new(placement)
        .name("shard")
        .io_memory(IO_MEMORY_BYTES)
        .ring_depth(RING_DEPTH)
        .preempt_timer(PREEMPT);
    if spin_us > 0 {
        builder = builder.spin_before_park(Duration::from_micros(spin_us));
    }
    let executor = match builder.make() {
        Ok(executor) => executor,
        Err(error) => {
            let reason = format!(
                "shard {} can't start its io_uring executor: {error}. Run `tidegate check`: it names the limit (locked \
                 memory), sysctl (kernel.io_uring_disabled) or seccomp profile that is in the way",
                shard.number
            );
            let _starter_is_gone = ready.send(Err(io::Error::other(reason)));
            return;
        }
    };
    executor.run(async move {
        let plain = accept::bind(&shard.addresses.plain, "INBOUND_PORT");
        let bound = plain.and_then(|plain| Ok((plain, accept::bind(&shard.addresses.tls, "INBOUND_HTTPS_PORT")?)));
        let (plain, tls) = match bound {
            Ok(listeners) => listeners,
            Err(error) => {
                let _starter_is_gone = ready.send(Err(error));
                return;
            }
        };
        let readiness = match Readiness::new() {
            Ok(readiness) => readiness,
            Err(error) => {
                let _starter_is_gone = ready.send(Err(error));
                return;
            }
        };
        glommio::spawn_local(Rc::clone(&readiness).drive()).detach();
        let addresses = Listening { plain: accept::addresses(&plain), tls: accept::addresses(&tls) };
        let ShardThread { number, settings, metrics, inbox, lanes, interest, ingress_bell, sinks, resolver, .. } =
            shard;
        let now_ms = clock::now_ms();
        let sessions = Arc::clone(&settings.sessions) as Arc<dyn SessionList>;
        let verifier = Verifier::new(&settings.tokens, sessions, Arc::clone(&metrics));
        let mut state = Shard::new(number, Arc::clone(&settings), metrics, interest, ingress_bell.clone(), now_ms);
        state.set_replay_source(sinks.replay.clone());
        state.set_checkpoint_source(sinks.checkpoints.clone());
        state.set_snapshot_source(sinks.snapshots.clone());
        let proxy = Proxy::new(number, &settings, resolver, now_ms);
        let tls_config = settings.tls.as_ref().map(|tls| Arc::clone(&tls.config));
        let rates = RefCell::new(RequestRates::new(&settings.limits));
        let world = Rc::new(World {
            number,
            settings,
            shard: RefCell::new(state),
            read_buffer: Rc::new(RefCell::new(vec![0; READ_BUFFER_BYTES].into_boxed_slice())),
            lanes,
            sinks,
            proxy,
            tls: RefCell::new(tls_config),
            verifier,
            checked: RefCell::default(),
            rates,
            readiness,
            stopping: Cell::new(false),
            draining: Cell::new(false),
            listeners: RefCell::new(plain.iter().chain(&tls).map(|bound| bound.fd).collect()),
            listen_until_ms: Cell::new(u64::MAX),
            tasks: Cell::new(0),
        });
        let urgent = glommio::executor().create_task_queue(Shares::Static(1000), Latency::Matters(PREEMPT), "mailbox");
        let ticker = Arc::clone(&inbox.ticker);
        let mailbox = glommio::spawn_local_into(mail::drain(Rc::clone(&world), inbox, ingress_bell), urgent);
        match glommio::spawn_local_into(mail::wheel(Rc::clone(&world), ticker), urgent) {
            Ok(wheel) => drop(wheel.detach()),
            Err(error) => tracing::error!(shard = number, %error, "the wheel's task could not be started"),
        }
        let secured = tls.into_iter().map(|bound| (bound, true));
        for (bound, secure) in plain.into_iter().map(|bound| (bound, false)).chain(secured) {
            glommio::spawn_local(accept::accept(Rc::clone(&world), bound.listener, secure)).detach();
        }
        let _starter_is_gone = ready.send(Ok(addresses));
        match mailbox {
            Ok(mailbox) => mailbox.await,
            Err(error) => tracing::error!(shard = number, %error, "the mailbox task could not be started"),
        }
        mail::close_all(&world).await;
        world.proxy.backends.close();
        world.readiness.stop();
        yield_once().await;
    });
}

/// Lets tasks that are ready end before the executor does.
async fn yield_once() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
