//! Wakes a thread that sleeps in `poll(2)`: an eventfd that is written only when the owner sleeps.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Shared by the sleeper and everyone who may wake it.
#[derive(Clone, Debug)]
pub struct Bell {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    fd: OwnedFd,
    asleep: AtomicBool,
}

impl Bell {
    /// Makes a bell.
    ///
    /// # Errors
    /// The operating system refused an eventfd.
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers; its result is checked before use.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` is a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { inner: Arc::new(Inner { fd, asleep: AtomicBool::new(false) }) })
    }

    /// Wakes the sleeper; costs a fence and a load when it is awake. Call after the work was queued.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.inner.asleep.load(Ordering::Relaxed) && self.inner.asleep.swap(false, Ordering::AcqRel) {
            self.write();
        }
    }

    /// Announces sleep. The sleeper must look at its queues once more after this, before it sleeps.
    pub fn arm(&self) {
        self.inner.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Ends sleep and empties the eventfd.
    pub fn disarm(&self) {
        self.inner.asleep.store(false, Ordering::Relaxed);
        let mut count = 0_u64;
        // SAFETY: reads 8 bytes into an 8-byte integer that lives across the call; EAGAIN is expected.
        unsafe { libc::read(self.inner.fd.as_raw_fd(), (&raw mut count).cast(), 8) };
    }

    /// The descriptor to poll for readability.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.inner.fd.as_raw_fd()
    }

    fn write(&self) {
        let one = 1_u64;
        // SAFETY: writes 8 bytes from an 8-byte integer that lives across the call.
        unsafe { libc::write(self.inner.fd.as_raw_fd(), (&raw const one).cast(), 8) };
    }
}
