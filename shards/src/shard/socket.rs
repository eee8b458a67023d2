//! Sending on a descriptor without blocking.

use std::io;
use std::os::fd::RawFd;

/// Sends what the socket takes at the moment; 0 when it is full.
///
/// # Errors
/// The connection is broken.
pub(crate) fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        return Ok(0);
    }
    loop {
        // SAFETY: `bytes` is valid for reads of its length; the descriptor is the kernel's to check.
        let sent =
            unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
        if let Ok(sent) = usize::try_from(sent) {
            return Ok(sent);
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::WouldBlock => return Ok(0),
            io::ErrorKind::Interrupted => {}
            _ => return Err(error),
        }
    }
}

/// Receives what has arrived; `None` when nothing has, 0 at the end of the stream.
///
/// # Errors
/// The connection is broken.
pub(crate) fn receive(fd: RawFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        // SAFETY: `buffer` is valid for writes of its length; the descriptor is the kernel's to check.
        let received = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
        if let Ok(received) = usize::try_from(received) {
            return Ok(Some(received));
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::WouldBlock => return Ok(None),
            io::ErrorKind::Interrupted => {}
            _ => return Err(error),
        }
    }
}

/// Shuts the sending side down; the peer reads what was sent and then the end of the stream.
pub(crate) fn shutdown_write(fd: RawFd) {
    // SAFETY: shutdown takes no pointers; a descriptor that isn't a connected socket gives an error, which changes nothing.
    unsafe { libc::shutdown(fd, libc::SHUT_WR) };
}

/// Looks for bytes without taking them; `None` when there are none, 0 at the end of the stream.
///
/// # Errors
/// The connection is broken.
pub(crate) fn peek(fd: RawFd) -> io::Result<Option<usize>> {
    let mut byte = 0_u8;
    // SAFETY: reads one byte into one that lives across the call; the descriptor is the kernel's to check.
    let received = unsafe { libc::recv(fd, (&raw mut byte).cast(), 1, libc::MSG_DONTWAIT | libc::MSG_PEEK) };
    if let Ok(received) = usize::try_from(received) {
        return Ok(Some(received));
    }
    let error = io::Error::last_os_error();
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
        _ => Err(error),
    }
}

/// Lets the descriptor's close reset the connection: what the peer has got must not look complete.
pub(crate) fn reset_on_close(fd: RawFd) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let len = libc::socklen_t::try_from(size_of::<libc::linger>()).expect("invariant: the size of a small struct");
    // SAFETY: passes a struct that lives across the call, with its size; an error changes nothing.
    unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), len) };
}
