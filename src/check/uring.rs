//! Asks the kernel for an io_uring instance, and gives it back.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// Size of `struct io_uring_params`, in 32-bit words (linux/io_uring.h: 120 bytes).
const PARAMS_WORDS: usize = 30;
const ENTRIES: libc::c_uint = 8;

/// Can this process use io_uring?
///
/// # Errors
/// ENOSYS: the kernel hasn't got it. EPERM: a seccomp profile or `kernel.io_uring_disabled` forbids it. ENOMEM: too
/// little memory may be locked.
pub(super) fn probe() -> io::Result<()> {
    let mut params = [0_u32; PARAMS_WORDS];
    // SAFETY: `params` has the size of io_uring_params, all zeroes is valid, and it lives across the call.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, ENTRIES, params.as_mut_ptr()) };
    let Ok(fd @ 0..) = i32::try_from(fd) else { return Err(io::Error::last_os_error()) };
    // SAFETY: the descriptor is fresh and owned by nobody else.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}
