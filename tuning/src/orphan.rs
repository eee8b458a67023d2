//! Ties a child process to its parent; the only `unsafe` of this crate.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// Lets the kernel end the child when the thread that starts it ends, however that happens (prctl(2), PR_SET_PDEATHSIG):
/// a gateway under measurement never outlives an aborted measurement.
pub(crate) fn end_with_parent(command: &mut Command) -> &mut Command {
    let parent = rustix::process::getpid();
    let before_exec = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have ended before the line above.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::Error::from(io::ErrorKind::NotFound)) }
    };
    // SAFETY: between fork and exec the closure makes two system calls (prctl, getppid) and builds an error without
    // allocating; it takes no lock, and `parent` is its own copy.
    unsafe { command.pre_exec(before_exec) }
}
