//! Sleeping in `poll(2)` until one of several descriptors is readable.

use std::io;
use std::os::fd::RawFd;

/// Waits until one of `descriptors` is readable, a signal comes, or `timeout_ms` has passed.
///
/// # Errors
/// What poll(2) reports, save for an interruption by a signal.
pub(crate) fn until_readable<const N: usize>(descriptors: [RawFd; N], timeout_ms: u16) -> io::Result<()> {
    let mut polled = descriptors.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    // SAFETY: `polled` holds exactly N initialised entries and lives across the call.
    let ready = unsafe { libc::poll(polled.as_mut_ptr(), N as libc::nfds_t, i32::from(timeout_ms)) };
    let error = io::Error::last_os_error();
    if ready < 0 && error.kind() != io::ErrorKind::Interrupted { Err(error) } else { Ok(()) }
}
