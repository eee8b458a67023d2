//! What ingress and egress share about Kafka: the settings of librdkafka, whether the brokers can be reached, and topics that
//! keep what nodes share.

pub mod compacted;
mod polled;
mod reachability;

use std::net::IpAddr;

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use crate::config::{KafkaSettings, Tls};
pub use polled::PolledProducer;
pub use reachability::Reachability;

/// Settings of every client: brokers, login, TLS, and quick reconnects.
#[must_use]
pub fn client_config(settings: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", settings.brokers.join(","))
        .set("client.id", concat!("tidegate-", env!("CARGO_PKG_VERSION")))
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", settings.reconnect_max_ms.to_string())
        .set("socket.connection.setup.timeout.ms", "5000")
        .set("socket.keepalive.enable", "true")
        .set("socket.nagle.disable", "true")
        .set("log.connection.close", "false")
        .set("security.protocol", protocol(settings));
    if let Some(sasl) = &settings.sasl {
        config
            .set("sasl.mechanism", sasl.mechanism.name())
            .set("sasl.username", &sasl.user)
            .set("sasl.password", &sasl.password);
    }
    if let Some(tls) = &settings.tls {
        set_tls(&mut config, tls, &settings.brokers);
    }
    config
}

fn protocol(settings: &KafkaSettings) -> &'static str {
    match (settings.tls.is_some(), settings.sasl.is_some()) {
        (false, false) => "plaintext",
        (false, true) => "sasl_plaintext",
        (true, false) => "ssl",
        (true, true) => "sasl_ssl",
    }
}

fn set_tls(config: &mut ClientConfig, tls: &Tls, brokers: &[String]) {
    if let Some(ca_file) = &tls.ca_file {
        config.set("ssl.ca.location", Tls::path(ca_file));
    }
    if let Some((certificate, key)) = &tls.client {
        config.set("ssl.certificate.location", Tls::path(certificate)).set("ssl.key.location", Tls::path(key));
        if let Some(passphrase) = &tls.key_passphrase {
            config.set("ssl.key.password", passphrase);
        }
    }
    let by_address = brokers.iter().any(|broker| {
        let host = broker.rsplit_once(':').map_or(broker.as_str(), |(host, _)| host);
        host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
    });
    if by_address {
        tracing::info!("brokers are named by address: their certificates must name these addresses");
    }
}

/// Passes librdkafka's words on to the log. Lost connections are expected weather there: [`Reachability`] tells of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogContext;

impl ClientContext for LogContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level as i32, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "tidegate::kafka", %error, reason, "librdkafka reports");
    }
}

/// One line of librdkafka's log; `level` counts like syslog's.
pub(crate) fn log(level: i32, facility: &str, message: &str) {
    let is_connection_trouble = matches!(facility, "FAIL" | "ERROR");
    match level {
        0..=2 => tracing::error!(target: "tidegate::kafka", facility, "{message}"),
        3..=4 if !is_connection_trouble => tracing::warn!(target: "tidegate::kafka", facility, "{message}"),
        3..=6 => tracing::info!(target: "tidegate::kafka", facility, "{message}"),
        _ => tracing::debug!(target: "tidegate::kafka", facility, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sasl, SaslMechanism};

    fn settings() -> KafkaSettings {
        KafkaSettings {
            brokers: vec!["kafka:9092".to_owned(), "kafka-2:9092".to_owned()],
            source_topics: vec!["rig".to_owned()],
            sasl: None,
            tls: None,
            unreachable_seconds: 30,
            reconnect_max_ms: 1000,
        }
    }

    #[test]
    fn plain_brokers_are_spoken_to_in_plain_text() {
        let config = client_config(&settings());
        assert_eq!(config.get("bootstrap.servers"), Some("kafka:9092,kafka-2:9092"));
        assert_eq!(config.get("security.protocol"), Some("plaintext"));
    }

    #[test]
    fn a_login_over_tls_sets_both() {
        let sasl = Sasl { mechanism: SaslMechanism::ScramSha256, user: "u".to_owned(), password: "p".to_owned() };
        let tls = Tls { ca_file: Some("/ca.pem".into()), client: None, key_passphrase: None };
        let config = client_config(&KafkaSettings { sasl: Some(sasl), tls: Some(tls), ..settings() });
        assert_eq!(config.get("security.protocol"), Some("sasl_ssl"));
        assert_eq!(config.get("sasl.mechanism"), Some("SCRAM-SHA-256"));
        assert_eq!(config.get("ssl.ca.location"), Some("/ca.pem"));
    }
}
