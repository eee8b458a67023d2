//! `tidegate demo` on the command line: its arguments, and the few lines that say what to do next.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;
use std::{fmt, io, thread};

use clap::value_parser;
use http::Uri;
use tidegate_shards::extractor::Extractors;

use crate::config::Config;
use crate::config::values::Values;
use crate::gateway::serve_beside;
use crate::signals::StopSignals;

use super::event::MAIL_SENT;
use super::{DemoError, DemoOptions, Shop, TokenKey, start};

/// Arguments of `tidegate demo`.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct DemoArguments {
    /// Port of the ticket shop's page; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 4040)]
    pub port: u16,
    /// Simulated buyers, each of whom comes every five seconds or so
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = value_parser!(u16).range(..=500))]
    pub buyers: u16,
    /// Start the shop alone, beside a gateway that runs already
    #[arg(long)]
    pub shop_only: bool,
    /// With --shop-only: base URL of the gateway's internal port, where the shop publishes
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4010", requires = "shop_only")]
    pub gateway_internal: Uri,
    /// With --shop-only: base URL of the gateway's inbound port, where the page connects
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4000", requires = "shop_only")]
    pub gateway_inbound: Uri,
    /// With --shop-only: name or address under which the gateway reaches the shop
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1", requires = "shop_only")]
    pub shop_host: String,
    /// What tokens are signed with: the gateway's `JWT_SECRET_KEY`.
    #[arg(skip)]
    pub token_key: Option<TokenKey>,
}

/// Which field of a mail the gateway compares with a subscription, so that it reaches its buyer alone.
const EXTRACTORS: &str = include_str!("../../examples/tickets/extractors.json");

/// How long people are not invited before the gateway knows the shop; after that, they are all the same.
const PATIENCE: Duration = Duration::from_secs(20);

impl DemoArguments {
    /// Adds to the settings what the demo needs and nobody has set: a key for tokens, and that the newest event per seat is
    /// kept for pages that come late.
    pub fn prepare(&mut self, values: &mut Values) {
        self.token_key = TokenKey::agree(values, self.shop_only);
        if !self.shop_only && !values.is_set("SNAPSHOT_TOPICS") {
            values.set("SNAPSHOT_TOPICS", "*");
        }
    }

    /// The same shop beside the gateway of this process, which listens at these addresses.
    #[must_use]
    pub fn beside(mut self, inbound: SocketAddr, internal: SocketAddr) -> Self {
        self.gateway_inbound = url(inbound);
        self.gateway_internal = url(internal);
        self
    }

    /// Runs the shop, and unless `--shop-only` a gateway with these settings, until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// What keeps gateway or shop from starting, and what to do about it.
    pub fn run(self, config: &Config) -> io::Result<()> {
        let hub = config
            .kafka
            .as_ref()
            .map_or_else(|| "the local hub".to_owned(), |kafka| format!("Kafka at {}", kafka.brokers.join(",")));
        if self.shop_only {
            let mut signals = StopSignals::register()?;
            let _shop = self.open(&hub, config)?;
            signals.wait();
            return Ok(());
        }
        let config = &with_extractors(config)?;
        serve_beside(config, |addresses| {
            let inbound = addresses.inbound.first().copied();
            let inbound = inbound.ok_or_else(|| io::Error::other("INBOUND_HOST: the gateway listens nowhere"))?;
            self.beside(inbound, addresses.internal).open(&hub, config)
        })
    }

    fn open(self, hub: &str, config: &Config) -> io::Result<Shop> {
        let mut shop = self.start(config).map_err(io::Error::other)?;
        let (text, opened) = (Invitation { shop: &shop, hub }.to_string(), shop.opened.take());
        // On a thread of its own: a signal has to end the demo meanwhile.
        thread::Builder::new().name("invitation".to_owned()).spawn(move || {
            match opened.map(|opened| opened.recv_timeout(PATIENCE)) {
                Some(Err(RecvTimeoutError::Disconnected)) => return,
                Some(Err(RecvTimeoutError::Timeout)) => {
                    tracing::warn!(
                        "the gateway does not know the ticket shop yet: seats can't be bought before it does"
                    );
                }
                Some(Ok(())) | None => {}
            }
            println!("{text}");
        })?;
        Ok(shop)
    }

    /// Starts the shop, on all addresses of this machine.
    ///
    /// # Errors
    /// See [`start`].
    pub fn start(self, config: &Config) -> Result<Shop, DemoError> {
        let kafka = config.kafka.clone().map(|settings| (settings, config.proxy.response_topics.clone()));
        start(DemoOptions {
            listen: (Ipv4Addr::UNSPECIFIED, self.port).into(),
            gateway_internal: self.gateway_internal,
            gateway_inbound: self.gateway_inbound,
            host: self.shop_host,
            buyers: self.buyers,
            kafka,
            token_key: self.token_key,
        })
    }
}

/// The settings with the demo's extractors, unless others are given.
fn with_extractors(config: &Config) -> io::Result<Config> {
    let mut config = config.clone();
    if config.extractors.types().next().is_none() {
        let extractors = Extractors::parse(EXTRACTORS).map_err(|errors| io::Error::other(errors.join("; ")))?;
        config.extractors = Arc::new(extractors);
    } else if config.extractors.for_type(MAIL_SENT).is_none() {
        tracing::warn!("EXTRACTORS lacks {MAIL_SENT}: every page gets every mail (examples/tickets/extractors.json)");
    }
    Ok(config)
}

/// URL of a listener on this machine.
fn url(listener: SocketAddr) -> Uri {
    let host = match listener.ip() {
        ip if ip.is_unspecified() => IpAddr::from(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    let authority = SocketAddr::from((host, listener.port())).to_string();
    Uri::builder()
        .scheme("http")
        .authority(authority)
        .path_and_query("/")
        .build()
        .expect("invariant: a socket address is an authority")
}

/// What a person reads once everything runs.
#[derive(Debug)]
struct Invitation<'a> {
    shop: &'a Shop,
    /// What carries events: `the local hub`, `Kafka at …`.
    hub: &'a str,
}

impl fmt::Display for Invitation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shop { address, gateway_inbound, gateway_internal, .. } = self.shop;
        let trimmed = |url: &Uri| url.to_string().trim_end_matches('/').to_owned();
        writeln!(f, "\nOpen http://localhost:{} in two windows and buy a seat in one of them.", address.port())?;
        writeln!(f, "  A phone in the same network finds it under this machine's name, at the same port.")?;
        writeln!(f, "  Pages connect to {}, over EventSource or WebSocket.", trimmed(gateway_inbound))?;
        writeln!(f, "  Buying is a call to {}/tickets/…; {} carries it.", trimmed(gateway_inbound), self.hub)?;
        writeln!(f, "  The gateway learned of the shop by {}/v3/apis.", trimmed(gateway_internal))?;
        write!(f, "  Ctrl-C ends it.")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: DemoArguments,
    }

    fn parse(line: &[&str]) -> Result<DemoArguments, clap::Error> {
        Line::try_parse_from([&["demo"], line].concat()).map(|line| line.arguments)
    }

    #[test]
    fn without_arguments_the_demo_uses_the_ports_of_the_documentation() {
        let arguments = parse(&[]).expect("nothing is mandatory");
        assert_eq!((arguments.port, arguments.buyers, arguments.shop_only), (4040, 4, false));
    }

    #[test]
    fn a_gateway_can_only_be_named_for_a_shop_that_starts_none() {
        parse(&["--gateway-internal", "http://gateway:4010"]).expect_err("which gateway would be meant?");
        let arguments = parse(&["--shop-only", "--gateway-internal", "http://gateway:4010"]).expect("complete");
        assert_eq!(arguments.gateway_internal, "http://gateway:4010");
        assert_eq!(arguments.gateway_inbound, "http://127.0.0.1:4000");
    }

    #[test]
    fn listeners_on_all_addresses_are_reached_over_loopback() {
        let arguments = parse(&[]).expect("nothing is mandatory");
        let beside = arguments.beside("[::]:4000".parse().expect("v6"), "10.0.0.7:4010".parse().expect("v4"));
        assert_eq!(beside.gateway_inbound, "http://127.0.0.1:4000/");
        assert_eq!(beside.gateway_internal, "http://10.0.0.7:4010/");
        let beside = beside.beside("[::1]:4000".parse().expect("v6"), "0.0.0.0:4010".parse().expect("v4"));
        assert_eq!(beside.gateway_inbound, "http://[::1]:4000/");
        assert_eq!(beside.gateway_internal, "http://127.0.0.1:4010/");
    }

    #[test]
    fn the_invitation_names_the_port_that_was_taken() {
        let arguments = parse(&["--port", "0", "--buyers", "0"]).expect("complete");
        let config = Config::validate(&crate::config::values::Values::default()).expect("the defaults are usable");
        let shop = arguments.start(&config).expect("any port will do");
        let text = Invitation { shop: &shop, hub: "the local hub" }.to_string();
        assert!(text.starts_with(&format!("\nOpen http://localhost:{} ", shop.address().port())), "{text}");
        assert!(text.contains("http://127.0.0.1:4000/tickets/…; the local hub carries it"), "{text}");
    }
}
