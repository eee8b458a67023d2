//! Follows changes of certificates and keys. Connections that are open stay as they are; a state of the files that can't be
//! used changes nothing.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::Configs;
use super::files::{Contents, FileProblem, TlsFiles};
use super::metrics::TlsMetrics;

/// Between two attempts to put a state of the files in force.
const RETRY: Duration = Duration::from_secs(1);

/// What a look at the files found.
type Look = Result<Contents, Vec<FileProblem>>;

/// Decides when a state of the files is to be tried.
#[derive(Debug)]
struct Follower {
    files: TlsFiles,
    /// The state that was tried last; `None` if it is to be tried again.
    tried: Option<Look>,
    /// The state at the last look.
    seen: Look,
}

impl Follower {
    /// Looks at the files; the outcome of trying them, where they have changed. Files that change one after the other are
    /// tried together: a state counts once two looks have found it, or at once if `asked`.
    fn look(&mut self, asked: bool) -> Option<Result<Configs, Vec<FileProblem>>> {
        let now = self.files.read();
        let stable = now == self.seen;
        self.seen.clone_from(&now);
        if self.tried.as_ref() == Some(&now) || !(stable || asked) {
            return None;
        }
        self.tried = Some(now.clone());
        Some(now.and_then(|contents| self.files.configs(&contents)))
    }
}

/// The thread that follows the files.
#[derive(Debug)]
pub struct Reload {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Reload {
    /// Looks at the files every `seconds` (0: never), and at SIGHUP. `apply` puts new ones in force.
    ///
    /// # Errors
    /// The system refuses the thread, or the handler of the signal.
    pub fn start(
        files: TlsFiles,
        contents: Contents,
        seconds: u64,
        metrics: Arc<TlsMetrics>,
        apply: impl Fn(&Configs) -> Result<(), String> + Send + 'static,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut hang_up = {
            let _context = runtime.enter();
            signal(SignalKind::hangup())?
        };
        let (stop, mut stopped) = watch::channel(false);
        let mut follower = Follower { files, tried: Some(Ok(contents.clone())), seen: Ok(contents) };
        let follow = async move {
            let mut ticks = interval(Duration::from_secs(seconds.max(1)));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let asked = tokio::select! {
                    _ = hang_up.recv() => true,
                    _ = ticks.tick(), if seconds > 0 => false,
                    () = sleep(RETRY), if follower.tried.is_none() => false,
                    _ = stopped.wait_for(|stop| *stop) => return,
                };
                let Some(outcome) = follower.look(asked) else {
                    if asked {
                        tracing::info!("the TLS certificates have not changed");
                    }
                    continue;
                };
                if !take_over(outcome, &metrics, &apply) {
                    follower.tried = None;
                }
            }
        };
        let thread = thread::Builder::new().name("certificates".to_owned()).spawn(move || runtime.block_on(follow))?;
        Ok(Self { stop, thread })
    }

    /// Ends the thread.
    pub fn stop(self) {
        self.stop.send_replace(true);
        if self.thread.join().is_err() {
            tracing::error!("the thread that follows the TLS certificates panicked");
        }
    }
}

/// False where the new configurations can be used, and are not in force everywhere yet.
fn take_over(
    outcome: Result<Configs, Vec<FileProblem>>,
    metrics: &TlsMetrics,
    apply: &impl Fn(&Configs) -> Result<(), String>,
) -> bool {
    let configs = match outcome {
        Ok(configs) => configs,
        Err(problems) => {
            let problems = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            metrics.reload_failures.fetch_add(1, Ordering::Relaxed);
            tracing::error!(problems, "the changed TLS certificates can't be used; the former ones stay in force");
            return true;
        }
    };
    if let Err(reason) = apply(&configs) {
        tracing::warn!(reason, "the changed TLS certificates are not in force everywhere yet; trying again");
        return false;
    }
    metrics.reloads.fetch_add(1, Ordering::Relaxed);
    metrics.expires_unix_s.store(configs.expires_unix_s, Ordering::Relaxed);
    tracing::info!("new TLS connections are served with the changed certificates");
    true
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::mpsc;

    use super::*;
    use crate::tls::tests::{Folder, is_served_with};

    fn follower(folder: &Folder) -> Follower {
        let contents = folder.files().read().expect("they are there");
        Follower { files: folder.files(), tried: Some(Ok(contents.clone())), seen: Ok(contents) }
    }

    #[test]
    fn a_change_is_tried_when_it_is_stable_or_when_asked_for_and_only_once() {
        let folder = Folder::with_certificate("shop.example");
        let mut follower = follower(&folder);
        assert!(follower.look(true).is_none(), "nothing has changed");
        folder.write_certificate("new.example");
        assert!(follower.look(false).is_none(), "more may change");
        let configs = follower.look(false).expect("it is stable").expect("it can be used");
        assert!(is_served_with(&configs, &folder, "new.example"));
        assert!(follower.look(false).is_none());
        folder.write("key.pem", "broken");
        let problems = follower.look(true).expect("it was asked for").expect_err("the key is broken");
        assert_eq!(problems.len(), 1);
        assert!(follower.look(true).is_none(), "a broken state is tried once");
        folder.remove("key.pem");
        assert!(follower.look(true).expect("another state").is_err());
        folder.write_certificate("new.example");
        assert!(follower.look(true).expect("another state").is_ok());
    }

    #[test]
    fn the_former_state_counts_again_after_another_one_was_put_in_force_in_part() {
        let folder = Folder::with_certificate("shop.example");
        let [certificate, key] = ["cert.pem", "key.pem"].map(|name| folder.read(name));
        let mut follower = follower(&folder);
        folder.write_certificate("new.example");
        assert!(follower.look(true).is_some());
        follower.tried = None;
        folder.write("cert.pem", &certificate);
        folder.write("key.pem", &key);
        let configs = follower.look(true).expect("another state").expect("it can be used");
        assert!(is_served_with(&configs, &folder, "shop.example"));
    }

    #[test]
    fn what_could_not_be_put_in_force_is_tried_again() {
        let folder = Folder::with_certificate("shop.example");
        let contents = folder.files().read().expect("they are there");
        let (told, attempts) = mpsc::channel();
        let is_full = std::sync::atomic::AtomicBool::new(true);
        let apply = move |_: &Configs| {
            let was_full = is_full.swap(false, Ordering::Relaxed);
            told.send(was_full).expect("the test listens");
            if was_full { Err("a shard is far behind".to_owned()) } else { Ok(()) }
        };
        let metrics = Arc::<TlsMetrics>::default();
        let reload = Reload::start(folder.files(), contents, 0, Arc::clone(&metrics), apply).expect("a thread");
        folder.write_certificate("new.example");
        let hang_up = Command::new("kill").args(["-HUP", &std::process::id().to_string()]).status();
        assert!(hang_up.expect("a signal can be sent").success());
        let next = || attempts.recv_timeout(Duration::from_secs(60));
        assert_eq!((next(), next()), (Ok(true), Ok(false)));
        reload.stop();
        assert_eq!(next(), Err(mpsc::RecvTimeoutError::Disconnected), "once it is in force, that's all");
        assert_eq!(metrics.reloads.load(Ordering::Relaxed), 1);
        assert_eq!(metrics.reload_failures.load(Ordering::Relaxed), 0);
    }
}
