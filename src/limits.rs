//! Resource limits of this process.

use std::io;
use std::mem::MaybeUninit;

/// A limit in force, and how far it may be raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// In force.
    pub soft: u64,
    /// May be raised to.
    pub hard: u64,
}

/// Open files, sockets included.
///
/// # Errors
/// The kernel refused to say.
pub fn open_files() -> io::Result<Limit> {
    get(libc::RLIMIT_NOFILE)
}

/// Locked memory, in bytes; `u64::MAX` is unlimited.
///
/// # Errors
/// The kernel refused to say.
pub fn locked_memory() -> io::Result<Limit> {
    get(libc::RLIMIT_MEMLOCK)
}

/// Keeps memory in pages of the common size. The allocator asks for huge ones otherwise, and keeps them whole where little
/// is used: twice the memory at rest, and more after a peak. Call this before there are threads.
pub fn refuse_huge_pages() {
    let (on, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: sets a flag of this process; no memory is passed. A kernel without huge pages refuses, which is as good.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, on, unused, unused, unused) };
}

/// Raises the limit of open files as far as this process may: every connection is one.
pub fn raise_open_files() {
    let raised = open_files().and_then(|limit| {
        let wanted = libc::rlimit { rlim_cur: limit.hard, rlim_max: limit.hard };
        // SAFETY: `wanted` is an initialised rlimit that lives across the call.
        let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const wanted) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files can't be raised");
    }
}

fn get(resource: libc::__rlimit_resource_t) -> io::Result<Limit> {
    let mut limit = MaybeUninit::<libc::rlimit>::zeroed();
    // SAFETY: the kernel writes one rlimit into `limit`, which lives across the call.
    if unsafe { libc::getrlimit(resource, limit.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeroes is a valid rlimit, and the kernel has filled it.
    let limit = unsafe { limit.assume_init() };
    Ok(Limit { soft: limit.rlim_cur, hard: limit.rlim_max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_raised_to_what_is_allowed() {
        raise_open_files();
        let limit = open_files().expect("the kernel says");
        assert_eq!(limit.soft, limit.hard);
    }
}
