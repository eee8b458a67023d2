//! The broker's `server.properties`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// One more listener beside the plain one, such as SASL or TLS.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Name in capitals, unique; also the key to [`Kafka::listener`](super::Kafka::listener).
    pub name: String,
    /// Kafka's security protocol: `SASL_PLAINTEXT`, `SSL`, `SASL_SSL`.
    pub protocol: String,
    /// Settings of this listener alone, without the prefix `listener.name.<name>.`.
    pub properties: Vec<(String, String)>,
}

/// Everything that goes into the file.
pub(super) struct Properties<'a> {
    /// Port of the plain listener; the controller takes the next, further listeners those after.
    pub port: u16,
    pub data: &'a Path,
    pub partitions: u32,
    pub max_message_bytes: u32,
    pub listeners: &'a [Listener],
    /// Last word: replaces what is set here.
    pub overrides: &'a [(String, String)],
}

impl Properties<'_> {
    /// Ports that the settings occupy, counted from the plain listener's.
    pub(super) fn ports(listeners: &[Listener]) -> u16 {
        2 + u16::try_from(listeners.len()).unwrap_or(u16::MAX - 2)
    }

    /// Port of the `index`th further listener.
    pub(super) fn listener_port(port: u16, index: usize) -> u16 {
        port + 2 + u16::try_from(index).unwrap_or(0)
    }

    pub(super) fn render(&self) -> String {
        let mut all = self.single_node();
        self.add_listeners(&mut all);
        for (key, value) in self.overrides {
            all.insert(key.clone(), value.clone());
        }
        let mut text = String::new();
        for (key, value) in all {
            let _ = writeln!(text, "{key}={}", escape(&value));
        }
        text
    }

    fn single_node(&self) -> BTreeMap<String, String> {
        let bytes = self.max_message_bytes.to_string();
        let data = self.data.to_string_lossy();
        let settings = [
            ("process.roles", "broker,controller"),
            ("node.id", "1"),
            ("controller.listener.names", "CONTROLLER"),
            ("inter.broker.listener.name", "PLAINTEXT"),
            ("log.dirs", &data),
            ("num.partitions", &self.partitions.to_string()),
            ("auto.create.topics.enable", "true"),
            ("message.max.bytes", &bytes),
            ("replica.fetch.max.bytes", &bytes),
            ("offsets.topic.replication.factor", "1"),
            ("offsets.topic.num.partitions", "1"),
            ("transaction.state.log.replication.factor", "1"),
            ("transaction.state.log.min.isr", "1"),
            ("transaction.state.log.num.partitions", "1"),
            ("share.coordinator.state.topic.replication.factor", "1"),
            ("share.coordinator.state.topic.min.isr", "1"),
            ("group.initial.rebalance.delay.ms", "0"),
            // A broker that was killed may register again only when its old session has ended: 9 s by default.
            ("broker.session.timeout.ms", "3000"),
            ("broker.heartbeat.interval.ms", "500"),
            // The default of 128 MiB would take a quarter of the heap.
            ("log.cleaner.dedupe.buffer.size", "16777216"),
        ];
        settings.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    fn add_listeners(&self, all: &mut BTreeMap<String, String>) {
        let controller = self.port + 1;
        let mut advertised = format!("PLAINTEXT://127.0.0.1:{}", self.port);
        let mut protocols = String::from("PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT");
        for (index, listener) in self.listeners.iter().enumerate() {
            let port = Self::listener_port(self.port, index);
            let _ = write!(advertised, ",{}://127.0.0.1:{port}", listener.name);
            let _ = write!(protocols, ",{}:{}", listener.name, listener.protocol);
            let prefix = format!("listener.name.{}.", listener.name.to_lowercase());
            for (key, value) in &listener.properties {
                all.insert(format!("{prefix}{key}"), value.clone());
            }
        }
        all.insert("controller.quorum.voters".to_owned(), format!("1@127.0.0.1:{controller}"));
        all.insert("listeners".to_owned(), format!("{advertised},CONTROLLER://127.0.0.1:{controller}"));
        all.insert("advertised.listeners".to_owned(), advertised);
        all.insert("listener.security.protocol.map".to_owned(), protocols);
    }
}

/// Escapes a value for a Java properties file: backslashes, line ends (of PEM texts, for instance) and a leading blank.
fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for (index, character) in value.chars().enumerate() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            ' ' if index == 0 => out.push_str("\\ "),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(listeners: &[Listener], overrides: &[(String, String)]) -> String {
        let data = Path::new("/data");
        Properties { port: 20_000, data, partitions: 3, max_message_bytes: 12_582_912, listeners, overrides }.render()
    }

    fn has_line(text: &str, line: &str) -> bool {
        text.lines().any(|candidate| candidate == line)
    }

    #[test]
    fn a_single_node_is_its_own_controller_on_the_next_port() {
        let text = render(&[], &[]);
        assert!(has_line(&text, "controller.quorum.voters=1@127.0.0.1:20001"), "{text}");
        assert!(has_line(&text, "listeners=PLAINTEXT://127.0.0.1:20000,CONTROLLER://127.0.0.1:20001"), "{text}");
        assert!(has_line(&text, "advertised.listeners=PLAINTEXT://127.0.0.1:20000"), "{text}");
        assert!(has_line(&text, "num.partitions=3"), "{text}");
        assert!(has_line(&text, "message.max.bytes=12582912"), "{text}");
        assert!(has_line(&text, "log.dirs=/data"), "{text}");
    }

    #[test]
    fn a_further_listener_gets_its_port_protocol_and_settings() {
        let listener = Listener {
            name: "CLIENT".to_owned(),
            protocol: "SASL_PLAINTEXT".to_owned(),
            properties: vec![("sasl.enabled.mechanisms".to_owned(), "PLAIN".to_owned())],
        };
        let text = render(&[listener], &[]);
        assert!(has_line(&text, "advertised.listeners=PLAINTEXT://127.0.0.1:20000,CLIENT://127.0.0.1:20002"), "{text}");
        assert!(text.contains(",CLIENT:SASL_PLAINTEXT"), "{text}");
        assert!(has_line(&text, "listener.name.client.sasl.enabled.mechanisms=PLAIN"), "{text}");
    }

    #[test]
    fn an_override_has_the_last_word() {
        let text = render(&[], &[("num.partitions".to_owned(), "9".to_owned())]);
        assert!(has_line(&text, "num.partitions=9"), "{text}");
        assert_eq!(text.matches("num.partitions=").count(), 3, "once, beside the two topics that end alike: {text}");
    }

    #[test]
    fn a_value_of_several_lines_stays_one_property() {
        assert_eq!(escape("-----BEGIN\nab\\c\r\n"), "-----BEGIN\\nab\\\\c\\r\\n");
        assert_eq!(escape(" x y"), "\\ x y");
    }
}
