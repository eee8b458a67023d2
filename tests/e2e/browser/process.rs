//! The demo's processes: gateway and shop in one, or the shop alone beside a gateway that may be restarted.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::{env, thread};

use serde_json::json;

use crate::support::gateway::Gateway;
use crate::support::http::{Request, Response};
use crate::support::kafka::KAFKA_DEADLINE;
use crate::support::{wait_for, wait_up_to};

/// What stands before the shop's address in the start-up text.
const ADDRESS: &str = "Open http://localhost:";

/// What a gateway needs to know to bring a mail to its buyer alone.
pub(super) const EXTRACTORS: (&str, &str) = ("EXTRACTORS", include_str!("../../../examples/tickets/extractors.json"));

/// The shop: its website, and the gateway that takes its calls.
#[derive(Clone, Copy)]
pub(super) struct Shop {
    address: SocketAddr,
    gateway: SocketAddr,
}

impl Shop {
    /// URL of the page, with a query that chooses the transport.
    pub(super) fn page(self, transport: &str) -> String {
        format!("http://{}/?transport={transport}", self.address)
    }

    /// The same shop, but its seats are bought through another gateway.
    pub(super) fn through(self, gateway: &Gateway) -> Self {
        Self { gateway: gateway.inbound(), ..self }
    }

    /// Buys a seat, as another viewer's page would.
    pub(super) fn buy(self, seat: &str, name: &str) -> Response {
        let body = json!({ "buyer": format!("id-of-{name}"), "name": name });
        Request::new("POST", &format!("/tickets/seats/{seat}/buy")).json(&body).send_to(self.gateway)
    }

    /// Buys a seat and fails the test unless it was free. A gateway that has just been started may not know the shop yet.
    pub(super) fn sell(self, seat: &str, name: &str) {
        let response = wait_for("the gateway to know the shop", || {
            let response = self.buy(seat, name);
            (response.status != 404).then_some(response)
        });
        assert_eq!(response.status, 200, "{seat} is free: {response:?}");
    }

    /// Who has the seat, as the gateway's other route to the shop tells.
    pub(super) fn owner(self, seat: &str) -> Option<String> {
        let hall = Request::get("/tickets/hall").send_to(self.gateway).json();
        let sold = hall["sold"].as_array().expect("a list of sold seats").clone();
        sold.into_iter().find(|sale| sale["seat"] == seat).and_then(|sale| sale["buyer"].as_str().map(str::to_owned))
    }
}

/// `tidegate demo`: gateway and shop in one process.
pub(super) struct Demo {
    pub(super) gateway: Gateway,
    pub(super) shop: Shop,
}

impl Demo {
    /// Starts it on free ports with this many simulated buyers.
    pub(super) fn start(buyers: u16) -> Self {
        Self::with(buyers, &[])
    }

    /// The same with these settings of the gateway.
    pub(super) fn with(buyers: u16, settings: &[(&str, &str)]) -> Self {
        let gateway = Gateway::with_arguments(&["demo", "--port", "0", "--buyers", &buyers.to_string()], settings);
        let address = wait_up_to(KAFKA_DEADLINE, "the demo to say which address to open", || {
            gateway.log().lines().find_map(address)
        });
        let shop = Shop { address, gateway: gateway.inbound() };
        Self { gateway, shop }
    }
}

/// `tidegate demo --shop-only`; killed when dropped.
pub(super) struct ShopProcess {
    child: Child,
    pub(super) shop: Shop,
}

impl ShopProcess {
    /// Starts a shop that publishes to this gateway and has its pages connect to it. `TIDEGATE_BIN` names another build.
    pub(super) fn beside(gateway: &Gateway, settings: &[(&str, &str)]) -> Self {
        let binary = env::var_os("TIDEGATE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_tidegate").into());
        let mut child = Command::new(binary)
            .args(["demo", "--shop-only", "--port", "0", "--buyers", "0"])
            .args(["--gateway-internal", &format!("http://127.0.0.1:{}", gateway.internal().port())])
            .args(["--gateway-inbound", &format!("http://127.0.0.1:{}", gateway.inbound().port())])
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the binary can be started");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (sender, addresses) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Some(address) = address(&line) {
                    let _ = sender.send(address);
                }
            }
        });
        match addresses.recv_timeout(KAFKA_DEADLINE) {
            Ok(address) => Self { child, shop: Shop { address, gateway: gateway.inbound() } },
            Err(error) => {
                let _ = child.kill();
                panic!("the shop named no address ({error}): {:?}", child.wait());
            }
        }
    }
}

impl Drop for ShopProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Restarts a gateway on the ports it had, as an operator would after a crash; `meanwhile` happens while it is away.
pub(super) fn restart(gateway: Gateway, meanwhile: impl FnOnce()) -> Gateway {
    restart_with(gateway, &[EXTRACTORS], meanwhile)
}

/// The same for a gateway with these settings.
pub(super) fn restart_with(mut gateway: Gateway, settings: &[(&str, &str)], meanwhile: impl FnOnce()) -> Gateway {
    let ports = [gateway.inbound(), gateway.internal()].map(|address| address.port().to_string());
    gateway.kill();
    meanwhile();
    let mut all = vec![("INBOUND_PORT", ports[0].as_str()), ("API_HTTP_PORT", ports[1].as_str())];
    all.extend_from_slice(settings);
    Gateway::with(&all)
}

fn address(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(ADDRESS)?;
    let port = rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    Some((Ipv4Addr::LOCALHOST, port).into())
}
