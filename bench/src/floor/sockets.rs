//! Connected loopback sockets whose other ends a thread drains.

use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const BUFFER_BYTES: usize = 256 * 1024;
/// How often the draining thread looks whether it should end.
const STOP_INTERVAL: Duration = Duration::from_millis(20);

/// Sockets to send on. Dropping it closes them and ends the thread at the other ends.
#[derive(Debug)]
pub struct Sockets {
    senders: Vec<TcpStream>,
    received: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    drain: Option<JoinHandle<()>>,
}

impl Sockets {
    /// Connects `count` pairs on loopback, without Nagle's delay and non-blocking, and starts the draining thread.
    ///
    /// # Errors
    /// The system refused a socket, most often for want of open files (two are needed for each pair).
    pub fn connect(count: usize) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let mut senders = Vec::with_capacity(count);
        let mut receivers = Vec::with_capacity(count);
        for _ in 0..count {
            let receiver = TcpStream::connect(address)?;
            let (sender, _) = listener.accept()?;
            sender.set_nodelay(true)?;
            sender.set_nonblocking(true)?;
            receiver.set_nonblocking(true)?;
            senders.push(sender);
            receivers.push(mio::net::TcpStream::from_std(receiver));
        }
        let poll = Poll::new()?;
        for (number, receiver) in receivers.iter_mut().enumerate() {
            poll.registry().register(receiver, Token(number), Interest::READABLE)?;
        }
        let (received, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let drain = Drain { poll, receivers, received: Arc::clone(&received), stop: Arc::clone(&stop) };
        let drain = Some(thread::Builder::new().name("drain".to_owned()).spawn(move || drain.run())?);
        Ok(Self { senders, received, stop, drain })
    }

    /// The ends to send on.
    #[must_use]
    pub fn senders(&self) -> &[TcpStream] {
        &self.senders
    }

    /// Bytes that the other ends have read.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(drain) = self.drain.take() {
            // A drain that panicked has said so on standard error.
            let _ = drain.join();
        }
    }
}

struct Drain {
    poll: Poll,
    receivers: Vec<mio::net::TcpStream>,
    received: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Drain {
    fn run(mut self) {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut events = Events::with_capacity(1024);
        while !self.stop.load(Ordering::Relaxed) {
            if self.poll.poll(&mut events, Some(STOP_INTERVAL)).is_err() {
                continue;
            }
            for event in &events {
                // Edge-triggered: read until there is nothing more.
                while let Ok(bytes @ 1..) = self.receivers[event.token().0].read(&mut buffer) {
                    self.received.fetch_add(bytes as u64, Ordering::Relaxed);
                }
            }
        }
    }
}

/// Sends all of `bytes` on a non-blocking socket; waits for writability where the socket is full.
///
/// # Errors
/// The connection is broken.
pub fn send_all(mut socket: impl io::Write + std::os::fd::AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match socket.write(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_until_writable(&socket)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wait_until_writable(socket: impl std::os::fd::AsFd) -> io::Result<()> {
    let timeout = Timespec { tv_sec: 10, tv_nsec: 0 };
    match poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&timeout)) {
        Ok(0) => Err(io::Error::new(io::ErrorKind::TimedOut, "the reader took nothing for 10 s")),
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_a_socket_holds_arrives_to_the_last_byte() {
        let sockets = Sockets::connect(2).unwrap();
        let bytes = vec![b'x'; 8 << 20];
        for socket in sockets.senders() {
            send_all(socket, &bytes).unwrap();
        }
        while sockets.received_bytes() < 16 << 20 {
            thread::yield_now();
        }
        assert_eq!(sockets.received_bytes(), 16 << 20);
    }
}
