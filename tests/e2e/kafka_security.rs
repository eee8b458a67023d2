//! Kafka behind a login and behind TLS: events go out to it and come back from it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::json;
use tempfile::TempDir;
use xtask::kafka::{Kafka, Listener, Options};

use crate::support::clients::{Client, Transport};
use crate::support::events::{event, publish};
use crate::support::gateway::Gateway;
use crate::support::http::Request;
use crate::support::kafka::{KAFKA_DEADLINE, Producer, gateway_on, topic_name};
use crate::support::wait_up_to;

/// A broker that asks for a login on one port, for TLS on another, for both, and for a client certificate; and the files
/// its clients need.
struct Guarded {
    kafka: Kafka,
    folder: TempDir,
}

impl Guarded {
    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.file(name).to_string_lossy().into_owned()
    }
}

fn property(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// Certificates for the broker and a client, from an authority of their own.
fn write_certificates(folder: &Path) -> Result<(String, String), rcgen::Error> {
    let mut authority = CertificateParams::new(Vec::new())?;
    // Its name must differ from that of what it signs, or that looks self-signed.
    authority.distinguished_name.push(DnType::CommonName, "authority of the tests");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let signed = |name: &str| -> Result<(String, String), rcgen::Error> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec![name.to_owned()])?.signed_by(&key, &authority)?;
        Ok((certificate.pem(), key.serialize_pem()))
    };
    let (client, client_key) = signed("client.example")?;
    for (file, text) in [("ca.pem", authority.pem()), ("client.pem", client), ("client.key", client_key)] {
        fs::write(folder.join(file), text).expect("the folder can be written to");
    }
    let (broker, broker_key) = signed("127.0.0.1")?;
    Ok((broker + &authority.pem(), broker_key))
}

fn start() -> Option<Guarded> {
    let folder = tempfile::tempdir().expect("a folder");
    let (certificate, key) = write_certificates(folder.path()).expect("certificates");
    let authority = fs::read_to_string(folder.path().join("ca.pem")).expect("it was written");
    let login = [
        property("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"),
        property(
            "plain.sasl.jaas.config",
            "org.apache.kafka.common.security.plain.PlainLoginModule required user_alice=\"wonder:land\";",
        ),
        property("scram-sha-256.sasl.jaas.config", "org.apache.kafka.common.security.scram.ScramLoginModule required;"),
        property("scram-sha-512.sasl.jaas.config", "org.apache.kafka.common.security.scram.ScramLoginModule required;"),
    ];
    let tls = [
        property("ssl.keystore.type", "PEM"),
        property("ssl.keystore.certificate.chain", &certificate),
        property("ssl.keystore.key", &key),
        property("ssl.truststore.type", "PEM"),
        property("ssl.truststore.certificates", &authority),
    ];
    let client_certificate = [property("ssl.client.auth", "required")];
    let listener = |name: &str, protocol: &str, properties: &[&[(String, String)]]| Listener {
        name: name.to_owned(),
        protocol: protocol.to_owned(),
        properties: properties.concat(),
    };
    let options = Options {
        own: true,
        listeners: vec![
            listener("LOGIN", "SASL_PLAINTEXT", &[&login]),
            listener("TLS", "SSL", &[&tls]),
            listener("BOTH", "SASL_SSL", &[&login, &tls]),
            listener("MUTUAL", "SSL", &[&tls, &client_certificate]),
        ],
        format_arguments: ["--add-scram", "SCRAM-SHA-256=[name=alice,password=wonderland]"]
            .into_iter()
            .chain(["--add-scram", "SCRAM-SHA-512=[name=bob,password=looking-glass]"])
            .map(str::to_owned)
            .collect(),
        ..Options::default()
    };
    Some(Guarded { kafka: Kafka::start_or_skip("Kafka behind login and TLS", options)?, folder })
}

/// One such broker for all tests of this file; it ends with the process.
fn guarded() -> Option<&'static Guarded> {
    static GUARDED: OnceLock<Option<Guarded>> = OnceLock::new();
    GUARDED.get_or_init(start).as_ref()
}

/// An event published over HTTP reaches Kafka through `listener`, and from there the client.
fn an_event_makes_the_round_trip(guarded: &Guarded, listener: &str, settings: &[(&str, &str)]) {
    let topic = topic_name("guarded");
    // Made over the plain port: what is tested is the gateway's way in.
    let producer = Producer::new(guarded.kafka.brokers());
    producer.create_topic(&topic, 1);
    let address = guarded.kafka.listener(listener).expect("the broker has this listener");
    let gateway = gateway_on(&address, &topic, settings);
    producer.wait_until_read(&gateway, &topic, 1);
    let mut client = Client::of_type(&gateway, Transport::Sse, "greeting");
    publish(&gateway, &event("greeting", "1", &json!(null)));
    client.expect_ids(&["1"]);
}

fn is_unhealthy_because_of_kafka(gateway: &Gateway) {
    let unhealthy = wait_up_to(KAFKA_DEADLINE, "health to say that Kafka is out of reach", || {
        let response = gateway.call_internal(Request::get("/health"));
        (response.status == 503).then_some(response)
    });
    assert!(unhealthy.text().contains("Kafka"), "{:?}", unhealthy.text());
}

#[test]
fn kafka_is_used_with_a_plain_login_whose_password_has_a_colon() {
    let Some(guarded) = guarded() else { return };
    an_event_makes_the_round_trip(guarded, "LOGIN", &[("KAFKA_SASL", "plain:alice:wonder:land")]);
}

#[test]
fn kafka_is_used_with_a_scram_login() {
    let Some(guarded) = guarded() else { return };
    for login in ["scram-sha-256:alice:wonderland", "scram-sha-512:bob:looking-glass"] {
        an_event_makes_the_round_trip(guarded, "LOGIN", &[("KAFKA_SASL", login)]);
    }
}

#[test]
fn kafka_is_used_over_tls_with_an_authority_of_its_own() {
    let Some(guarded) = guarded() else { return };
    let settings = [("KAFKA_SSL_ENABLED", "true"), ("KAFKA_SSL_CA_CERTFILE", &*guarded.text("ca.pem"))];
    an_event_makes_the_round_trip(guarded, "TLS", &settings);
}

#[test]
fn kafka_is_used_over_tls_with_a_login() {
    let Some(guarded) = guarded() else { return };
    let authority = guarded.text("ca.pem");
    let settings = [
        ("KAFKA_SSL_ENABLED", "true"),
        ("KAFKA_SSL_CA_CERTFILE", &*authority),
        ("KAFKA_SASL", "scram-sha-512:bob:looking-glass"),
    ];
    an_event_makes_the_round_trip(guarded, "BOTH", &settings);
}

#[test]
fn kafka_is_used_over_tls_with_a_client_certificate() {
    let Some(guarded) = guarded() else { return };
    let [authority, certificate, key] = ["ca.pem", "client.pem", "client.key"].map(|file| guarded.text(file));
    let settings = [
        ("KAFKA_SSL_ENABLED", "true"),
        ("KAFKA_SSL_CA_CERTFILE", &*authority),
        ("KAFKA_SSL_CERTFILE", &*certificate),
        ("KAFKA_SSL_KEYFILE", &*key),
    ];
    an_event_makes_the_round_trip(guarded, "MUTUAL", &settings);
}

#[test]
fn a_wrong_password_or_an_unknown_authority_is_visible_in_health() {
    let Some(guarded) = guarded() else { return };
    let strangers = tempfile::tempdir().expect("a folder");
    write_certificates(strangers.path()).expect("certificates");
    let foreign = strangers.path().join("ca.pem").to_string_lossy().into_owned();
    let quick = ("KAFKA_UNREACHABLE_SECONDS", "1");
    for (listener, settings) in [
        ("LOGIN", vec![("KAFKA_SASL", "plain:alice:guess"), quick]),
        ("TLS", vec![("KAFKA_SSL_ENABLED", "true"), ("KAFKA_SSL_CA_CERTFILE", &*foreign), quick]),
    ] {
        let address = guarded.kafka.listener(listener).expect("the broker has this listener");
        is_unhealthy_because_of_kafka(&gateway_on(&address, &topic_name("guarded"), &settings));
    }
}
