//! `tidegate demo` on the command line: its arguments, and the few lines that say what to do next.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::{fmt, io};

use clap::value_parser;
use http::Uri;

use crate::config::Config;
use crate::gateway::serve_beside;
use crate::signals::StopSignals;

use super::{DemoError, DemoOptions, Shop, start};

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
}

impl DemoArguments {
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
            .map_or_else(|| "local hub".to_owned(), |kafka| format!("through Kafka at {}", kafka.brokers.join(",")));
        if self.shop_only {
            let signals = StopSignals::register()?;
            let _shop = self.open("a gateway that runs already")?;
            signals.wait();
            return Ok(());
        }
        serve_beside(config, |addresses| {
            let inbound = addresses.inbound.first().copied();
            let inbound = inbound.ok_or_else(|| io::Error::other("INBOUND_HOST: the gateway listens nowhere"))?;
            self.beside(inbound, addresses.internal).open(&hub)
        })
    }

    fn open(self, hub: &str) -> io::Result<Shop> {
        let shop = self.start().map_err(io::Error::other)?;
        println!("{}", Invitation { shop: &shop, hub });
        Ok(shop)
    }

    /// Starts the shop, on all addresses of this machine.
    ///
    /// # Errors
    /// See [`start`].
    pub fn start(self) -> Result<Shop, DemoError> {
        start(DemoOptions {
            listen: (Ipv4Addr::UNSPECIFIED, self.port).into(),
            gateway_internal: self.gateway_internal,
            gateway_inbound: self.gateway_inbound,
            buyers: self.buyers,
        })
    }
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
    /// Where events come from: `local hub`, `Kafka at …`.
    hub: &'a str,
}

impl fmt::Display for Invitation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shop { address, gateway_inbound, gateway_internal, .. } = self.shop;
        let trimmed = |url: &Uri| url.to_string().trim_end_matches('/').to_owned();
        writeln!(f, "\nOpen http://localhost:{} in two windows and buy a seat in one of them.", address.port())?;
        writeln!(f, "  A phone in the same network finds it under this machine's name, at the same port.")?;
        writeln!(f, "  Pages connect to {}, over EventSource or WebSocket.", trimmed(gateway_inbound))?;
        writeln!(f, "  The shop publishes to {}/v3/messages ({}).", trimmed(gateway_internal), self.hub)?;
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
        let shop = arguments.start().expect("any port will do");
        let text = Invitation { shop: &shop, hub: "local hub" }.to_string();
        assert!(text.starts_with(&format!("\nOpen http://localhost:{} ", shop.address().port())), "{text}");
        assert!(text.contains("http://127.0.0.1:4010/v3/messages (local hub)"), "{text}");
    }
}
