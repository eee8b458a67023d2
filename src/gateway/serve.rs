//! The life of a gateway in a process: until a signal, and through the drain after it.

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Addresses, Gateway};
use crate::config::Config;
use crate::signals::{StopSignal, StopSignals};
use crate::systemd::ServiceManager;

/// Between two looks whether the last client has gone.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
/// Time for a shard to answer.
const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// What stopping takes at most after the drain.
const LONGEST_STOP: Duration = Duration::from_secs(15);
/// The listeners are open for so long after the start of a drain, for connections that are being made.
const LEAST_DRAIN: Duration = Duration::from_millis(600);

impl Gateway {
    /// Stops accepting, lets requests finish, and moves clients away over `time`; returns once the last has gone, when the
    /// time is over, or with the next signal. The internal port and the sources go on meanwhile.
    pub fn drain(&self, time: Duration, signals: &mut StopSignals, manager: &ServiceManager) {
        let (began, connections) = (Instant::now(), self.node.connections());
        tracing::info!(connections, seconds = time.as_secs(), "moving clients away");
        self.draining.store(true, Ordering::Relaxed);
        self.node.drain(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let mut told = began;
        loop {
            if manager.watchdog_interval().is_some_and(|interval| told.elapsed() >= interval) {
                told = Instant::now();
                self.show_life(signals, manager);
            }
            if let Some(signal) = signals.wait_up_to(DRAIN_LOOK) {
                tracing::warn!(?signal, left = self.node.connections(), "the drain ends at once");
                return;
            }
            let left = self.node.connections();
            let over = began.elapsed() >= time;
            if over && left > 0 {
                tracing::warn!(left, "connections have not gone in time (DRAIN_SECONDS) and are cut");
            }
            if over || (left == 0 && began.elapsed() >= LEAST_DRAIN) {
                return;
            }
        }
    }

    /// Waits for a signal, and shows the service manager meanwhile that the gateway lives.
    fn wait(&self, signals: &mut StopSignals, manager: &ServiceManager) -> StopSignal {
        let Some(interval) = manager.watchdog_interval() else { return signals.wait() };
        loop {
            self.show_life(signals, manager);
            if let Some(signal) = signals.wait_up_to(interval) {
                return signal;
            }
        }
    }

    /// The gateway lives while every shard answers: otherwise the manager hears nothing, and starts it again.
    fn show_life(&self, signals: &StopSignals, manager: &ServiceManager) {
        let pings: Vec<_> = (0..self.node.metrics().len()).map(|shard| self.node.ping(shard)).collect();
        let all = async { tokio::time::timeout(PING_TIMEOUT, futures_util::future::try_join_all(pings)).await };
        match signals.run(all) {
            Ok(Ok(_)) => manager.alive(),
            Ok(Err(_)) | Err(_) => {
                tracing::error!("a shard does not answer: the service manager's watchdog is not fed")
            }
        }
    }
}

/// Serves until SIGTERM, which moves the clients away first, or SIGINT; prints the summary and the warnings.
///
/// # Errors
/// See [`Gateway::start`].
pub fn serve(config: &Config) -> io::Result<()> {
    serve_beside(config, |_| Ok(()))
}

/// [`serve`] with a companion in the same process: it starts once the gateway listens, and is dropped before the gateway
/// stops.
///
/// # Errors
/// See [`Gateway::start`]; the companion's own.
pub fn serve_beside<C>(config: &Config, companion: impl FnOnce(&Addresses) -> io::Result<C>) -> io::Result<()> {
    let mut signals = StopSignals::register()?;
    let gateway = Gateway::start(config)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    println!("{}", config.log_format.summary(&gateway.summary(config)));
    println!("{}", gateway.ready_line());
    let companion = match companion(gateway.addresses()) {
        Ok(companion) => companion,
        Err(error) => {
            gateway.stop();
            return Err(error);
        }
    };
    let manager = ServiceManager::from_environment();
    manager.ready();
    let signal = gateway.wait(&mut signals, &manager);
    let drain = Duration::from_secs(if signal == StopSignal::Terminate { config.drain_seconds } else { 0 });
    manager.stopping(drain + LONGEST_STOP);
    if !drain.is_zero() {
        gateway.drain(drain, &mut signals, &manager);
    }
    tracing::info!("stopping");
    drop(companion);
    gateway.stop();
    Ok(())
}
