//! What systemd is told: that the gateway serves, reloads, stops, and that its shards are alive (sd_notify(3), a datagram to the socket
//! that `NOTIFY_SOCKET` names). Without systemd nothing is sent.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The service manager of this process, if there is one.
#[derive(Debug, Default)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// As the environment names it. One that can't be reached is warned of, and then not told anything.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::new(|name| std::env::var_os(name), std::process::id())
    }

    fn new(environment: impl Fn(&str) -> Option<OsString>, pid: u32) -> Self {
        let Some(name) = environment("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Self::default() };
        let socket = match connect(name.as_bytes()) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(?name, %error, "the service manager (NOTIFY_SOCKET) can't be told that the gateway serves");
                return Self::default();
            }
        };
        let number = |name| environment(name).and_then(|text| text.to_str()?.parse::<u64>().ok());
        let for_us = number("WATCHDOG_PID").is_none_or(|watched| watched == u64::from(pid));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| for_us && *usec > 0).map(Duration::from_micros);
        Self { socket: Some(socket), watchdog }
    }

    /// How often it is to be told that the gateway is alive: twice in the time it waits. `None` if it doesn't ask.
    #[must_use]
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|time| time / 2)
    }

    /// The gateway serves.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// The gateway moves its clients away and ends; this may take `time`, beyond what the manager would wait.
    pub fn stopping(&self, time: Duration) {
        self.tell(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}", time.as_micros()));
    }

    /// The gateway reads its files again; [`Self::ready`] when it has.
    pub fn reloading(&self) {
        self.tell("RELOADING=1");
    }

    /// The gateway is alive.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&self, message: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(message.as_bytes())
        {
            tracing::warn!(message, %error, "the service manager did not take a message");
        }
    }
}

/// A name that begins with `@` is in the abstract namespace (unix(7)).
fn connect(name: &[u8]) -> io::Result<UnixDatagram> {
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::path::Path::new(std::ffi::OsStr::from_bytes(name)))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(socket: &str, pairs: &[(&str, &str)]) -> ServiceManager {
        let environment = |name: &str| {
            let known = [("NOTIFY_SOCKET", socket)];
            let found = known.iter().chain(pairs).find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        };
        ServiceManager::new(environment, 42)
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let len = socket.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    }

    #[test]
    fn each_state_is_one_message_to_a_path_or_an_abstract_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).expect("a socket");
        let name = format!("tidegate-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let by_name = UnixDatagram::bind_addr(&address).expect("a socket");
        for (socket, text) in [(by_path, path.to_string_lossy().into_owned()), (by_name, format!("@{name}"))] {
            let manager = manager(&text, &[]);
            manager.ready();
            manager.alive();
            manager.reloading();
            manager.stopping(Duration::from_secs(2));
            for expected in ["READY=1", "WATCHDOG=1", "RELOADING=1", "STOPPING=1\nEXTEND_TIMEOUT_USEC=2000000"] {
                assert_eq!(received(&socket), expected);
            }
        }
    }

    #[test]
    fn the_watchdog_is_fed_twice_in_its_time_and_only_by_the_process_it_watches() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let _socket = UnixDatagram::bind(&path).expect("a socket");
        let interval = |pairs: &[(&str, &str)]| manager(&path.to_string_lossy(), pairs).watchdog_interval();
        assert_eq!(interval(&[]), None);
        assert_eq!(interval(&[("WATCHDOG_USEC", "3000000")]), Some(Duration::from_millis(1_500)));
        assert_eq!(
            interval(&[("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "42")]),
            Some(Duration::from_millis(1_500))
        );
        assert_eq!(interval(&[("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "7")]), None);
        assert_eq!(interval(&[("WATCHDOG_USEC", "0")]), None);
    }

    #[test]
    fn without_a_manager_nothing_is_sent_and_nothing_fails() {
        let nobody = ServiceManager::new(|_| None, 1);
        nobody.ready();
        assert_eq!(nobody.watchdog_interval(), None);
        let away = manager("/no/such/socket", &[("WATCHDOG_USEC", "1")]);
        away.ready();
        assert_eq!(away.watchdog_interval(), None);
    }
}
