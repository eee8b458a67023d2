//! Taking a listening socket out of service without losing a connection, while another process listens on the same port
//! (`SO_REUSEPORT`): first ignore new ones, for [`HANDSHAKE_MS`] accept those that are being made, then stop.

use std::io;
use std::os::fd::RawFd;

/// Time for a TCP handshake that had begun before, in milliseconds. Whoever begins one later is asked to wait by TCP itself,
/// and tries again after a second (RFC 6298 section 2), when only those listen who stay.
pub const HANDSHAKE_MS: u64 = 500;

/// Lets the kernel drop the first packet of every new connection to a listening socket, as if it were lost; handshakes that have
/// begun are completed. TCP sends it again after a second, and it reaches whoever listens then.
///
/// # Errors
/// The kernel refuses the filter.
pub fn ignore_new_connections(fd: RawFd) -> io::Result<()> {
    /// Where the flags stand in a TCP header, and two of them (RFC 9293 section 3.1).
    const FLAGS_AT: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    let load = |code: u32| u16::try_from(code).expect("invariant: opcodes of classic BPF have 16 bits");
    let step = |code, jt, jf, k| libc::sock_filter { code: load(code), jt, jf, k };
    let mut program = [
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, FLAGS_AT),
        step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, SYN | ACK),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, SYN),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
    ];
    let filter = libc::sock_fprog { len: 5, filter: program.as_mut_ptr() };
    let len = libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).expect("invariant: the size of a small struct");
    // SAFETY: passes a struct that lives across the call, with its size; it points to a program of the length it names, which
    // the kernel copies and checks.
    let outcome =
        unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, (&raw const filter).cast(), len) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Ends a listening socket: a pending accept returns with an error. Connections that wait to be accepted are reset.
pub fn stop_listening(fd: RawFd) {
    // SAFETY: shutdown takes no pointers; an error changes nothing.
    unsafe { libc::shutdown(fd, libc::SHUT_RD) };
}
