//! Asks the kernel for this process's cores.

use std::io;
use std::mem::{MaybeUninit, size_of};

/// The cores this process may use, ascending (cpusets and `taskset` count).
///
/// # Errors
/// The kernel refused to say.
pub fn allowed() -> io::Result<Vec<usize>> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: the kernel writes at most `size_of::<cpu_set_t>()` bytes into `set`, which lives across the call.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeroes is a valid set, and the kernel has filled it.
    let set = unsafe { set.assume_init() };
    let bits = usize::try_from(libc::CPU_SETSIZE).unwrap_or_default();
    // SAFETY: `core` is below CPU_SETSIZE, the number of bits in the set.
    Ok((0..bits).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect())
}
