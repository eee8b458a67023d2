//! The demo's processes: gateway and shop in one, or the shop alone beside a gateway that may be restarted.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::{env, thread};

use serde_json::json;

use crate::support::gateway::Gateway;
use crate::support::http::{Request, Response};
use crate::support::{DEADLINE, wait_for};

/// What stands before the shop's address in the start-up text.
const ADDRESS: &str = "Open http://localhost:";

/// The shop, by its address.
#[derive(Clone, Copy)]
pub(super) struct Shop {
    address: SocketAddr,
}

impl Shop {
    /// URL of the page, with a query that chooses the transport.
    pub(super) fn page(self, transport: &str) -> String {
        format!("http://{}/?transport={transport}", self.address)
    }

    /// Buys a seat, as another viewer's page would.
    pub(super) fn buy(self, seat: &str, buyer: &str) -> Response {
        Request::new("POST", &format!("/api/seats/{seat}/buy")).json(&json!({ "buyer": buyer })).send_to(self.address)
    }

    /// Buys a seat and fails the test unless it was free.
    pub(super) fn sell(self, seat: &str, buyer: &str) {
        let response = self.buy(seat, buyer);
        assert_eq!(response.status, 200, "{seat} is free: {response:?}");
    }

    /// Who has the seat.
    pub(super) fn owner(self, seat: &str) -> Option<String> {
        let hall = Request::get("/api/hall").send_to(self.address).json();
        let sold = hall["sold"].as_array().expect("a list of sold seats").clone();
        sold.into_iter().find(|sale| sale["seat"] == seat).and_then(|sale| sale["buyer"].as_str().map(str::to_owned))
    }
}

/// `tidegate demo`: gateway and shop in one process.
pub(super) struct Demo {
    _gateway: Gateway,
    pub(super) shop: Shop,
}

impl Demo {
    /// Starts it on free ports with this many simulated buyers.
    pub(super) fn start(buyers: u16) -> Self {
        let gateway = Gateway::with_arguments(&["demo", "--port", "0", "--buyers", &buyers.to_string()], &[]);
        let address = wait_for("the demo to say which address to open", || gateway.log().lines().find_map(address));
        Self { _gateway: gateway, shop: Shop { address } }
    }
}

/// `tidegate demo --shop-only`; killed when dropped.
pub(super) struct ShopProcess {
    child: Child,
    pub(super) shop: Shop,
}

impl ShopProcess {
    /// Starts a shop that publishes to this gateway and has its pages connect to it. `TIDEGATE_BIN` names another build.
    pub(super) fn beside(gateway: &Gateway) -> Self {
        let binary = env::var_os("TIDEGATE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_tidegate").into());
        let mut child = Command::new(binary)
            .args(["demo", "--shop-only", "--port", "0", "--buyers", "0"])
            .args(["--gateway-internal", &format!("http://127.0.0.1:{}", gateway.internal().port())])
            .args(["--gateway-inbound", &format!("http://127.0.0.1:{}", gateway.inbound().port())])
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
        match addresses.recv_timeout(DEADLINE) {
            Ok(address) => Self { child, shop: Shop { address } },
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
pub(super) fn restart(mut gateway: Gateway, meanwhile: impl FnOnce()) -> Gateway {
    let ports = [gateway.inbound(), gateway.internal()].map(|address| address.port().to_string());
    gateway.kill();
    meanwhile();
    Gateway::with(&[("INBOUND_PORT", &ports[0]), ("API_HTTP_PORT", &ports[1])])
}

fn address(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(ADDRESS)?;
    let port = rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    Some((Ipv4Addr::LOCALHOST, port).into())
}
