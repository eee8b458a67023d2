//! Sockets that carry requests, watched by one epoll instance per shard.
//!
//! Waiting for each of these by io_uring costs an entry in the ring and a completion per request and side, and completions
//! interrupt the shard while it works. Here the ring waits for the epoll instance alone, and all that is ready by then is taken with
//! one call. Streams of events don't come here: they sleep for minutes, and what they cost is memory.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::{future, ptr};

use futures_util::io::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use slab::Slab;

use crate::shard::socket;

/// Sockets that one call reports.
const EVENTS: usize = 256;
/// What is watched: changes, each reported once (`EPOLLET`, epoll(7)).
const CHANGES: u32 = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET) as u32;
/// The peer has ended its side, or the connection is broken: reading says which.
const ENDED: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;
/// There is something to read.
const READABLE: u32 = libc::EPOLLIN as u32 | ENDED;
/// There is room to write.
const WRITABLE: u32 = libc::EPOLLOUT as u32 | ENDED;

/// What is known of a watched socket, and who waits for it.
#[derive(Debug, Default)]
struct Watched {
    /// Tells apart the sockets that use a slot one after the other.
    generation: u32,
    readable: bool,
    /// The end has been reported: no other report will come.
    ended: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// The sockets of one shard.
#[derive(Debug)]
pub(super) struct Readiness {
    epoll: OwnedFd,
    watched: RefCell<Slab<Watched>>,
    next_generation: Cell<u32>,
    driver: RefCell<Option<Waker>>,
    stopped: Cell<bool>,
}

impl Readiness {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// The kernel has no descriptor left.
    pub(super) fn new() -> io::Result<Rc<Self>> {
        // SAFETY: takes no pointers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Rc::new(Self {
            epoll,
            watched: RefCell::default(),
            next_generation: Cell::new(0),
            driver: RefCell::default(),
            stopped: Cell::new(false),
        }))
    }

    /// Wakes whoever waits for a socket, until [`Self::stop`].
    pub(super) async fn drive(self: Rc<Self>) {
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS].into_boxed_slice();
        while !self.stopped.get() {
            if let Err(error) = self.until_ready().await {
                tracing::error!(%error, "a shard can't wait for its sockets any more: requests will hang");
                return;
            }
            while !self.stopped.get() && self.report(&mut events) == EVENTS {}
        }
    }

    /// Ends [`Self::drive`].
    pub(super) fn stop(&self) {
        self.stopped.set(true);
        if let Some(driver) = self.driver.borrow_mut().take() {
            driver.wake();
        }
    }

    /// Waits until a socket is ready. glommio waits for the readability of what it takes for a stream and then reads: that the
    /// epoll instance isn't one says that it was ready.
    async fn until_ready(&self) -> io::Result<()> {
        let fd = self.epoll.as_fd().try_clone_to_owned()?;
        // SAFETY: the descriptor was made for this stream, which closes it.
        let mut stream = unsafe { TcpStream::from_raw_fd(fd.into_raw_fd()) };
        future::poll_fn(|cx| {
            if self.stopped.get() {
                return Poll::Ready(());
            }
            *self.driver.borrow_mut() = Some(cx.waker().clone());
            Pin::new(&mut stream).poll_read(cx, &mut [0]).map(|_not_a_stream| ())
        })
        .await;
        Ok(())
    }

    /// Takes what has changed; the number of sockets.
    fn report(&self, events: &mut [libc::epoll_event]) -> usize {
        let room = libc::c_int::try_from(events.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: `events` is valid for writes of `room` entries.
        let count = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr(), room, 0) };
        let count = usize::try_from(count).unwrap_or(0);
        let mut watched = self.watched.borrow_mut();
        for event in &events[..count] {
            let (changes, key) = (event.events, event.u64);
            let (slot, generation) = ((key & u64::from(u32::MAX)) as usize, (key >> 32) as u32);
            let Some(socket) = watched.get_mut(slot).filter(|socket| socket.generation == generation) else { continue };
            socket.ended |= changes & ENDED != 0;
            if changes & READABLE != 0 {
                socket.readable = true;
                if let Some(reader) = &socket.reader {
                    reader.wake_by_ref();
                }
            }
            if changes & WRITABLE != 0
                && let Some(writer) = socket.writer.take()
            {
                writer.wake();
            }
        }
        count
    }

    fn watch(&self, fd: RawFd) -> io::Result<usize> {
        let generation = self.next_generation.get().wrapping_add(1);
        self.next_generation.set(generation);
        let slot = self.watched.borrow_mut().insert(Watched { generation, ..Watched::default() });
        let mut event = libc::epoll_event { events: CHANGES, u64: u64::from(generation) << 32 | slot as u64 };
        // SAFETY: `event` lives across the call.
        let added = unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        if added < 0 {
            self.watched.borrow_mut().remove(slot);
            return Err(io::Error::last_os_error());
        }
        Ok(slot)
    }
}

/// A socket that carries requests.
pub(super) struct Socket {
    watch: Watch,
    /// Holds the descriptor; it is read and written beside it.
    stream: TcpStream,
}

/// A socket's place among those watched, once it had to wait; given up with it, before the descriptor is closed.
struct Watch {
    readiness: Rc<Readiness>,
    fd: RawFd,
    slot: Option<usize>,
}

impl Socket {
    /// Takes a connected socket over.
    pub(super) fn new(stream: TcpStream, readiness: &Rc<Readiness>) -> Self {
        let watch = Watch { readiness: Rc::clone(readiness), fd: stream.as_raw_fd(), slot: None };
        Self { watch, stream }
    }

    /// The socket as it came.
    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.watch.fd
    }
}

impl Watch {
    /// Begins to watch the socket, if that hasn't been done. What is ready by then is reported too.
    fn begin(&mut self) -> io::Result<()> {
        if self.slot.is_none() {
            self.slot = Some(self.readiness.watch(self.fd)?);
        }
        Ok(())
    }

    /// Changes what is known of it; `None` where it isn't watched.
    fn note<T>(&self, change: impl FnOnce(&mut Watched) -> T) -> Option<T> {
        self.readiness.watched.borrow_mut().get_mut(self.slot?).map(change)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(slot) = self.slot else { return };
        let epoll = self.readiness.epoll.as_raw_fd();
        // SAFETY: no pointer is read for this operation.
        unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, self.fd, ptr::null_mut()) };
        self.readiness.watched.borrow_mut().try_remove(slot);
    }
}

fn remember(place: &mut Option<Waker>, waker: &Waker) {
    if !place.as_ref().is_some_and(|known| known.will_wake(waker)) {
        *place = Some(waker.clone());
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let quiet = self.watch.note(|socket| {
            if !socket.readable {
                remember(&mut socket.reader, cx.waker());
            }
            !socket.readable
        });
        if quiet == Some(true) {
            return Poll::Pending;
        }
        match socket::receive(self.as_raw_fd(), buffer) {
            Ok(Some(received)) => {
                if received < buffer.len() {
                    // Less than there was room for: nothing is left, and what comes is reported.
                    self.watch.note(|socket| socket.readable = socket.ended);
                }
                Poll::Ready(Ok(received))
            }
            Ok(None) => {
                if let Err(error) = self.watch.begin() {
                    return Poll::Ready(Err(error));
                }
                self.watch.note(|socket| {
                    socket.readable = false;
                    remember(&mut socket.reader, cx.waker());
                });
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match socket::send(self.as_raw_fd(), bytes) {
            Ok(0) if !bytes.is_empty() => {
                if let Err(error) = self.watch.begin() {
                    return Poll::Ready(Err(error));
                }
                self.watch.note(|socket| remember(&mut socket.writer, cx.waker()));
                Poll::Pending
            }
            sent => Poll::Ready(sent),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        socket::shutdown_write(self.as_raw_fd());
        Poll::Ready(Ok(()))
    }
}
