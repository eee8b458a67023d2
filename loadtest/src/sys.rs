//! The system calls that std and socket2 do not offer; the only `unsafe` of this crate.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// A readiness queue (epoll(7)), level-triggered.
#[derive(Debug)]
pub(crate) struct Epoll {
    queue: OwnedFd,
}

/// Readiness of one socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    pub(crate) token: u64,
    pub(crate) writable: bool,
    /// Bytes, the end, or an error can be read.
    pub(crate) readable: bool,
}

/// What to wait for; the peer's end is always reported.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interest {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

/// Room for the kernel's answers.
pub(crate) struct ReadyList {
    events: Vec<libc::epoll_event>,
    filled: usize,
}

impl ReadyList {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self { events: vec![libc::epoll_event { events: 0, u64: 0 }; capacity], filled: 0 }
    }

    pub(crate) fn get(&self, index: usize) -> Option<Ready> {
        let event = *self.events[..self.filled].get(index)?;
        let flags = event.events as i32;
        Some(Ready {
            token: event.u64,
            writable: flags & (libc::EPOLLOUT | libc::EPOLLERR | libc::EPOLLHUP) != 0,
            readable: flags & (libc::EPOLLIN | libc::EPOLLERR | libc::EPOLLHUP | libc::EPOLLRDHUP) != 0,
        })
    }
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: epoll_create1 takes no pointer.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor was just created and nobody else owns it.
        Ok(Self { queue: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    pub(crate) fn add(&self, socket: RawFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, socket, token, interest)
    }

    pub(crate) fn change(&self, socket: RawFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, socket, token, interest)
    }

    fn control(&self, operation: i32, socket: RawFd, token: u64, interest: Interest) -> io::Result<()> {
        let read = libc::EPOLLRDHUP | if interest.read { libc::EPOLLIN } else { 0 };
        let write = if interest.write { libc::EPOLLOUT } else { 0 };
        let mut event = libc::epoll_event { events: (read | write) as u32, u64: token };
        // SAFETY: `event` is a valid epoll_event for the time of the call, which only reads it.
        check(unsafe { libc::epoll_ctl(self.queue.as_raw_fd(), operation, socket, &raw mut event) })?;
        Ok(())
    }

    /// Waits for readiness, at most `timeout`; an interrupting signal counts as nothing ready.
    pub(crate) fn wait(&self, list: &mut ReadyList, timeout: Duration) -> io::Result<usize> {
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        let capacity = i32::try_from(list.events.len()).unwrap_or(i32::MAX);
        // SAFETY: `events` is valid for writes of `capacity` entries, and the kernel writes no more than that.
        let count = unsafe { libc::epoll_wait(self.queue.as_raw_fd(), list.events.as_mut_ptr(), capacity, timeout_ms) };
        list.filled = match check(count) {
            Ok(count) => count as usize,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        Ok(list.filled)
    }
}

/// A timer that an [`Epoll`] can wait for, exact to the microsecond (timerfd_create(2)); epoll's own timeout counts in
/// milliseconds.
#[derive(Debug)]
pub(crate) struct Timer {
    timer: OwnedFd,
}

impl Timer {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: timerfd_create takes no pointer.
        let fd = check(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) })?;
        // SAFETY: the descriptor was just created and nobody else owns it.
        Ok(Self { timer: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Readable from `after` on, once; what was set before is forgotten.
    pub(crate) fn set(&self, after: Duration) -> io::Result<()> {
        // Zero would disarm it.
        let after = after.max(Duration::from_nanos(1));
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let tv_sec = libc::time_t::try_from(after.as_secs()).unwrap_or(libc::time_t::MAX);
        let it_value = libc::timespec { tv_sec, tv_nsec: libc::c_long::from(after.subsec_nanos().cast_signed()) };
        let value = libc::itimerspec { it_interval: zero, it_value };
        // SAFETY: `value` is valid for reads through the call; no old value is asked for.
        check(unsafe { libc::timerfd_settime(self.timer.as_raw_fd(), 0, &raw const value, ptr::null_mut()) })?;
        Ok(())
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }
}

/// Starts a connection without waiting for it, from `source` if one is given. Without a size, the kernel adapts the
/// receive buffer.
pub(crate) fn connect(
    address: SocketAddr,
    source: Option<Ipv4Addr>,
    receive_buffer_bytes: Option<usize>,
) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if let Some(bytes) = receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(source) = source {
        bind_address_no_port(socket.as_raw_fd())?;
        socket.bind(&SocketAddr::new(IpAddr::V4(source), 0).into())?;
    }
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// Lets bind(2) choose only the address, and connect(2) the port (ip(7), IP_BIND_ADDRESS_NO_PORT): a port may then be
/// used again for another destination, or when its last connection has ended.
fn bind_address_no_port(socket: RawFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option value points to a c_int that lives through the call, and `size` is its size.
    check(unsafe {
        libc::setsockopt(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, (&raw const on).cast(), size)
    })?;
    Ok(())
}

/// The calling thread, and all it starts meanwhile, stay on one CPU until this is dropped.
#[must_use]
pub(crate) struct PinnedToCpu {
    before: libc::cpu_set_t,
}

impl PinnedToCpu {
    pub(crate) fn pin(cpu: usize) -> io::Result<Self> {
        if cpu >= libc::CPU_SETSIZE as usize {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no such CPU"));
        }
        // SAFETY: cpu_set_t is plain bits, for which zero is valid.
        let (mut before, mut wanted): (libc::cpu_set_t, libc::cpu_set_t) = unsafe { std::mem::zeroed() };
        // SAFETY: `before` is valid for writes of its own size; 0 means the calling thread.
        check(unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut before) })?;
        // SAFETY: `cpu` is below CPU_SETSIZE, so the bit lies inside the set.
        unsafe { libc::CPU_SET(cpu, &mut wanted) };
        set_affinity(&wanted)?;
        Ok(Self { before })
    }
}

impl Drop for PinnedToCpu {
    fn drop(&mut self) {
        // Only a change of the process's cpuset in between can make this fail; the kernel has then chosen the CPUs.
        let _ = set_affinity(&self.before);
    }
}

fn set_affinity(set: &libc::cpu_set_t) -> io::Result<()> {
    // SAFETY: `set` is valid for reads of its own size; 0 means the calling thread.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const *set) })?;
    Ok(())
}

/// Raises the soft limit of open files to the hard one and returns it.
pub(crate) fn raise_open_files() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for the write of one rlimit.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is valid for the read of one rlimit.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(limit.rlim_max)
}

/// Lets sleeps of the calling thread end within a microsecond of their time (the default slack is 50 µs).
pub(crate) fn sharpen_sleep() {
    // SAFETY: PR_SET_TIMERSLACK takes a number and touches no memory of the process.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000 as libc::c_ulong) };
}

/// What another process can be told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ProcessSignal {
    /// SIGSTOP.
    Stop,
    /// SIGCONT.
    Continue,
    /// SIGTERM.
    Terminate,
    /// SIGHUP.
    Reload,
}

/// Sends a signal to the child `pid`.
pub(crate) fn signal(pid: u32, signal: ProcessSignal) -> io::Result<()> {
    let number = match signal {
        ProcessSignal::Stop => libc::SIGSTOP,
        ProcessSignal::Continue => libc::SIGCONT,
        ProcessSignal::Terminate => libc::SIGTERM,
        ProcessSignal::Reload => libc::SIGHUP,
    };
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: kill takes no pointer.
    check(unsafe { libc::kill(pid, number) })?;
    Ok(())
}

/// The command's process is killed when the thread that starts it ends. A write beyond its limit of file size is an
/// error to it, as one to a full disk, and not a signal.
pub(crate) fn tie_to_this_thread(command: &mut Command) {
    let prepare = || {
        // SAFETY: prctl with PR_SET_PDEATHSIG takes a number; SIG_IGN is a valid disposition. Both are async-signal-safe.
        unsafe {
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong))?;
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        }
        Ok(())
    };
    // SAFETY: between fork and exec, `prepare` makes only the two system calls above and touches no memory.
    unsafe { command.pre_exec(prepare) };
}

/// Limits the size of the files that process `pid` may write (RLIMIT_FSIZE); `None`: no limit.
pub(crate) fn limit_file_bytes(pid: u32, bytes: Option<u64>) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    let limit = libc::rlimit { rlim_cur: bytes.unwrap_or(libc::RLIM_INFINITY), rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `limit` is valid for the read of one rlimit; the old limit is not asked for.
    check(unsafe { libc::prlimit(pid, libc::RLIMIT_FSIZE, &raw const limit, ptr::null_mut()) })?;
    Ok(())
}

/// Clock ticks per second of the CPU times in /proc, and bytes per page of its sizes.
pub(crate) fn proc_units() -> (f64, u64) {
    // SAFETY: sysconf takes no pointer.
    let (ticks, page) = unsafe { (libc::sysconf(libc::_SC_CLK_TCK), libc::sysconf(libc::_SC_PAGESIZE)) };
    (ticks.max(1) as f64, page.max(1) as u64)
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_socket_is_ready_when_bytes_have_come_and_names_its_token() {
        let (mut near, far) = UnixStream::pair().unwrap();
        let epoll = Epoll::new().unwrap();
        epoll.add(far.as_raw_fd(), 77, Interest { read: true, write: false }).unwrap();
        let mut list = ReadyList::with_capacity(4);
        assert_eq!(epoll.wait(&mut list, Duration::ZERO).unwrap(), 0);
        near.write_all(b"x").unwrap();
        assert_eq!(epoll.wait(&mut list, Duration::from_secs(5)).unwrap(), 1);
        let ready = list.get(0).unwrap();
        assert!(ready.readable && !ready.writable && ready.token == 77);
        assert!(list.get(1).is_none());
        epoll.change(far.as_raw_fd(), 77, Interest { read: false, write: false }).unwrap();
        assert_eq!(epoll.wait(&mut list, Duration::ZERO).unwrap(), 0);
    }

    #[test]
    fn a_timer_makes_its_descriptor_readable_until_it_is_set_anew() {
        let (epoll, timer) = (Epoll::new().unwrap(), Timer::new().unwrap());
        epoll.add(timer.as_raw_fd(), 5, Interest { read: true, write: false }).unwrap();
        let mut list = ReadyList::with_capacity(4);
        timer.set(Duration::ZERO).unwrap();
        assert_eq!(epoll.wait(&mut list, Duration::from_secs(5)).unwrap(), 1);
        assert_eq!(list.get(0).unwrap().token, 5);
        timer.set(Duration::from_secs(3_600)).unwrap();
        assert_eq!(epoll.wait(&mut list, Duration::ZERO).unwrap(), 0);
    }

    #[test]
    fn a_cpu_that_does_not_exist_is_an_error() {
        assert!(PinnedToCpu::pin(100_000).is_err());
    }

    #[test]
    fn a_thread_is_pinned_until_the_guard_is_dropped() {
        let allowed = || std::thread::available_parallelism().unwrap().get();
        let before = allowed();
        let pinned = PinnedToCpu::pin(0).unwrap();
        assert_eq!(allowed(), 1);
        drop(pinned);
        assert_eq!(allowed(), before);
    }
}
