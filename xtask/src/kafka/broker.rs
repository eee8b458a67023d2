//! The broker's process: started, waited for, killed, started again.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::error::{Error, Unavailable};
use super::jars::{Jars, ensure_jars};
use super::ports;
use super::probe;
use super::properties::{Listener, Properties};
use crate::skip;

/// Time for a broker to answer: 3 s on an idle machine, much longer beside a build.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time between two questions whether it answers.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
/// Starts on ports of our own choice before giving up, should another process take the port in between.
const ATTEMPTS: u32 = 3;
const LOG_TAIL_LINES: usize = 30;

const LOGGING: &str = r#"<Configuration status="warn">
  <Appenders><Console name="out"><PatternLayout pattern="%d{ISO8601} %p %m (%c{1})%n%throwable"/></Console></Appenders>
  <Loggers><Root level="warn"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
"#;

/// How to start a broker.
#[derive(Clone, Debug)]
pub struct Options {
    /// Port of the plain listener on 127.0.0.1; by default a free one. The controller takes the next port.
    pub port: Option<u16>,
    /// Partitions of a topic that appears because someone uses it.
    pub partitions: u32,
    /// Largest heap of the broker, in MiB.
    pub heap_mib: u32,
    /// Largest message (strictly: record batch) that the broker takes, in bytes.
    pub max_message_bytes: u32,
    /// Start one even if `KAFKA_BROKERS` names another: for tests that kill it.
    pub own: bool,
    /// Listeners beside the plain one, each on its own port.
    pub listeners: Vec<Listener>,
    /// Further lines of `server.properties`, which win over what is set here.
    pub properties: Vec<(String, String)>,
    /// Further arguments of `StorageTool format`, such as `--add-scram`.
    pub format_arguments: Vec<String>,
}

impl Default for Options {
    /// One partition, 512 MiB of heap, messages up to 12 MiB, and `KAFKA_BROKERS` instead of a process if it is set.
    fn default() -> Self {
        Self {
            port: None,
            partitions: 1,
            heap_mib: 512,
            max_message_bytes: 12 * 1024 * 1024,
            own: false,
            listeners: Vec::new(),
            properties: Vec::new(),
            format_arguments: Vec::new(),
        }
    }
}

/// A Kafka to test against. Dropping it ends the broker and removes its data.
#[derive(Debug)]
pub struct Kafka {
    brokers: String,
    own: Option<Own>,
}

/// The broker that this process started.
#[derive(Debug)]
struct Own {
    jars: Jars,
    options: Options,
    port: u16,
    folder: PathBuf,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    broker: Child,
    watchdog: Option<Child>,
}

impl Kafka {
    /// Starts a broker and waits until it answers; with `KAFKA_BROKERS` in the environment, uses that one instead (unless
    /// [`Options::own`]).
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the machine lacks what it takes; else what went wrong, with the end of the broker's log.
    pub fn start(options: Options) -> Result<Self, Error> {
        match env::var("KAFKA_BROKERS") {
            Ok(brokers) if !brokers.is_empty() && !options.own => Self::external(brokers),
            _ => Self::start_own(options, true),
        }
    }

    /// A broker for the test `what`, or `None` (said loudly) where the machine lacks what it takes.
    ///
    /// # Panics
    /// If the broker should start and does not, and with `CI=true` also if the machine lacks what it takes.
    #[must_use]
    pub fn start_or_skip(what: &str, options: Options) -> Option<Self> {
        match Self::start(options) {
            Ok(kafka) => Some(kafka),
            Err(Error::Unavailable(reason)) => {
                skip::announce(what, &reason);
                None
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }

    /// A command that runs a broker with its data in `folder`, which outlives it: whoever runs the command again, also after
    /// a SIGKILL, has the same broker with the same data. The folder is made at the first call and needs a port in
    /// `options`; the caller removes it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the machine lacks what it takes; else what went wrong.
    pub fn lasting_command(options: Options, port: u16, folder: &Path) -> Result<Command, Error> {
        let mut own = Own { jars: ensure_jars()?, options, port, folder: folder.to_path_buf(), running: None };
        let is_new = !own.settings_path().exists();
        let formatted = if is_new { own.format() } else { Ok(()) };
        let command = formatted.and_then(|()| own.command());
        // The folder stays when this value goes.
        own.folder = PathBuf::new();
        command
    }

    fn external(brokers: String) -> Result<Self, Error> {
        if !probe::accepts(&brokers) {
            let reason = format!("KAFKA_BROKERS={brokers} is set, but nothing accepts connections there");
            return Err(Unavailable(reason).into());
        }
        Ok(Self { brokers, own: None })
    }

    pub(super) fn start_own(options: Options, guarded: bool) -> Result<Self, Error> {
        let jars = ensure_jars()?;
        let mut attempt = 1;
        loop {
            match Self::start_once(&jars, &options, guarded) {
                Err(Error::Ended { .. }) if options.port.is_none() && attempt < ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    fn start_once(jars: &Jars, options: &Options, guarded: bool) -> Result<Self, Error> {
        let port = match options.port {
            Some(port) => port,
            None => ports::free_ports(Properties::ports(&options.listeners))?,
        };
        let folder = tempfile::Builder::new()
            .prefix("tidegate-kafka-")
            .tempdir()
            .map_err(Error::io("can't create a folder in", env::temp_dir()))?
            .keep();
        let own = Own { jars: jars.clone(), options: options.clone(), port, folder, running: None };
        let mut kafka = Self { brokers: format!("127.0.0.1:{port}"), own: Some(own) };
        if let Some(own) = &mut kafka.own {
            own.format()?;
            own.run(guarded)?;
        }
        Ok(kafka)
    }

    /// Value for `bootstrap.servers`.
    #[must_use]
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Address of a further listener of [`Options::listeners`] by its name; `None` if this broker has none of that name.
    #[must_use]
    pub fn listener(&self, name: &str) -> Option<String> {
        let own = self.own.as_ref()?;
        let index = own.options.listeners.iter().position(|listener| listener.name == name)?;
        Some(format!("127.0.0.1:{}", Properties::listener_port(own.port, index)))
    }

    /// Process of the broker, while this value runs one.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        Some(self.own.as_ref()?.running.as_ref()?.broker.id())
    }

    /// Ends the broker with SIGKILL: to clients, a crash. What it had acknowledged is still in its data folder.
    ///
    /// # Errors
    /// [`Error::External`] for the broker of `KAFKA_BROKERS`.
    pub fn kill(&mut self) -> Result<(), Error> {
        self.own()?.kill();
        Ok(())
    }

    /// Starts the broker again on the same port with the same data, after killing it if it still runs, and waits until it
    /// answers. After a kill that takes some 6 s, because the broker's old session with the controller must end first.
    ///
    /// # Errors
    /// [`Error::External`] for the broker of `KAFKA_BROKERS`; else as [`Kafka::start`].
    pub fn restart(&mut self) -> Result<(), Error> {
        let own = self.own()?;
        own.kill();
        own.run(true)
    }

    fn own(&mut self) -> Result<&mut Own, Error> {
        self.own.as_mut().ok_or_else(|| Error::External(self.brokers.clone()))
    }

    /// Lets the broker outlive this value; gives its process and folder.
    pub(super) fn detach(mut self) -> Option<(u32, PathBuf)> {
        let mut own = self.own.take()?;
        let running = own.running.take()?;
        Some((running.broker.id(), std::mem::take(&mut own.folder)))
    }
}

impl Own {
    fn settings_path(&self) -> PathBuf {
        self.folder.join("server.properties")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("broker.log")
    }

    fn format(&self) -> Result<(), Error> {
        let options = &self.options;
        let settings = Properties {
            port: self.port,
            data: &self.folder.join("data"),
            partitions: options.partitions,
            max_message_bytes: options.max_message_bytes,
            listeners: &options.listeners,
            overrides: &options.properties,
        };
        let path = self.settings_path();
        fs::write(&path, settings.render()).map_err(Error::io("can't write", &path))?;
        let logging = self.folder.join("log4j2.xml");
        fs::write(&logging, LOGGING).map_err(Error::io("can't write", &logging))?;
        let cluster = self.storage_tool(|tool| tool.arg("random-uuid"))?;
        self.storage_tool(|tool| {
            tool.args(["format", "--cluster-id", cluster.trim(), "--config"]).arg(&path).args(&options.format_arguments)
        })?;
        Ok(())
    }

    fn storage_tool(&self, arguments: impl FnOnce(&mut Command) -> &mut Command) -> Result<String, Error> {
        let mut tool = self.jars.tool("kafka.tools.StorageTool");
        let program = PathBuf::from(tool.get_program());
        let output = arguments(&mut tool).output().map_err(Error::io("can't run", program))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        Err(Error::Format(text + &String::from_utf8_lossy(&output.stderr)))
    }

    /// Runs the broker in the foreground of whoever runs it.
    fn command(&self) -> Result<Command, Error> {
        let log_path = self.log_path();
        let log =
            File::options().create(true).append(true).open(&log_path).map_err(Error::io("can't write", &log_path))?;
        let errors = log.try_clone().map_err(Error::io("can't write", &log_path))?;
        let java_options = [
            format!("-Xmx{}m", self.options.heap_mib),
            "-Xms128m".to_owned(),
            "-XX:+ExitOnOutOfMemoryError".to_owned(),
            format!("-Dlog4j2.configurationFile={}", self.folder.join("log4j2.xml").display()),
        ];
        let mut command = self.jars.command(&java_options, "kafka.Kafka");
        command.arg(self.settings_path()).stdin(Stdio::null()).stdout(log).stderr(errors);
        Ok(command)
    }

    fn run(&mut self, guarded: bool) -> Result<(), Error> {
        let mut command = self.command()?;
        if !guarded {
            // Ctrl-C in the terminal that started it must not reach a broker that is to stay.
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
        }
        let program = PathBuf::from(command.get_program());
        let broker = command.spawn().map_err(Error::io("can't run", program))?;
        let watchdog = if guarded { Some(watch(broker.id(), &self.folder)?) } else { None };
        self.running = Some(Running { broker, watchdog });
        self.wait_until_it_answers()
    }

    fn wait_until_it_answers(&mut self) -> Result<(), Error> {
        let address = format!("127.0.0.1:{}", self.port);
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(running) = &mut self.running
                && let Ok(Some(status)) = running.broker.try_wait()
            {
                return Err(Error::Ended { status: status.to_string(), log: log_tail(&self.log_path()) });
            }
            if probe::answers(&address) {
                return Ok(());
            }
            thread::sleep(PROBE_INTERVAL);
        }
        Err(Error::Silent { address, waited: PATIENCE, log: log_tail(&self.log_path()) })
    }

    fn kill(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        // The watchdog first: once the broker is gone, its number may belong to someone else.
        for child in running.watchdog.iter_mut().chain([&mut running.broker]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.kill();
        if self.folder.as_os_str().is_empty() {
            return; // Detached.
        }
        if thread::panicking() {
            eprintln!("the end of Kafka's log:\n{}", log_tail(&self.log_path()));
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A shell that ends the broker and removes its data as soon as this process is gone, however it ended: it waits for the
/// end of a pipe of which only this process holds the other side.
fn watch(pid: u32, folder: &Path) -> Result<Child, Error> {
    Command::new("sh")
        .args(["-c", r#"trap '' INT TERM; read -r _; kill -9 "$0"; rm -rf -- "$1""#])
        .arg(pid.to_string())
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(Error::io("can't run", "sh"))
}

fn log_tail(path: &Path) -> String {
    let log = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}
