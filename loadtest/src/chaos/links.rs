//! The network between clients and nodes: a TCP proxy on loopback in front of each node, whose weather can change.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

use super::dice::Dice;

/// Bytes that are carried at once.
const PIECE_BYTES: usize = 8 << 10;
/// Receive buffer towards the node: small, so that a stalled connection soon presses back on it.
const RECEIVE_BUFFER_BYTES: usize = 16 << 10;
const BACKLOG: u32 = 4_096;

/// What the network between the clients and one node does.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Weather {
    /// Where the node listens; `None` resets new connections.
    pub(super) node: Option<SocketAddr>,
    /// Every piece comes so much later.
    pub(super) delay: Duration,
    /// So many percent of the connections carry nothing.
    pub(super) stalled_percent: u8,
    /// Counts the cuts.
    pub(super) cuts: u64,
    /// How many percent of the connections the last cut resets.
    pub(super) cut_percent: u8,
}

/// The way to one node.
#[derive(Debug)]
pub(super) struct Link {
    /// Where clients connect to.
    pub(super) address: SocketAddr,
    weather: watch::Sender<Weather>,
}

impl Link {
    /// Opens the way; it leads nowhere yet. Must be called within a tokio runtime, on which its connections live.
    pub(super) async fn open(dice: Dice) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        let weather = watch::Sender::new(Weather::default());
        tokio::spawn(accept(listener, weather.subscribe(), dice));
        Ok(Self { address, weather })
    }

    /// Changes the weather.
    pub(super) fn change(&self, change: impl FnOnce(&mut Weather)) {
        self.weather.send_modify(change);
    }

    /// Where the node behind it listens.
    pub(super) fn node(&self) -> Option<SocketAddr> {
        self.weather.borrow().node
    }
}

async fn accept(listener: TcpListener, weather: watch::Receiver<Weather>, mut dice: Dice) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                let luck = dice.below(100) as u8;
                tokio::spawn(carry(client, weather.clone(), luck));
            }
            // Out of descriptors for a moment, or the client has gone already.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
        if weather.has_changed().is_err() {
            return;
        }
    }
}

/// Carries one connection until either side ends it or a cut hits it; `luck` below the percentage is hit.
async fn carry(mut client: TcpStream, mut weather: watch::Receiver<Weather>, luck: u8) {
    let node = weather.borrow_and_update().node;
    let Some(mut upstream) = connect(node).await else { return reset(&client) };
    let cut = {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_node, mut to_node) = upstream.split();
        let (up, down) = (weather.clone(), weather.clone());
        tokio::select! {
            // Either way, what was read before has been passed on, and both sides are closed.
            _ = pump(&mut from_client, &mut to_node, up, luck) => false,
            _ = pump(&mut from_node, &mut to_client, down, luck) => false,
            () = is_cut(weather, luck) => true,
        }
    };
    if cut {
        reset(&client);
        reset(&upstream);
    }
}

async fn connect(node: Option<SocketAddr>) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES as u32).ok()?;
    let stream = socket.connect(node?).await.ok()?;
    stream.set_nodelay(true).ok()?;
    Some(stream)
}

/// Lets the close that follows reset the connection.
fn reset(stream: &TcpStream) {
    // Of a connection that has ended already there is nothing to reset.
    let _ = stream.set_zero_linger();
}

async fn pump(
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    mut weather: watch::Receiver<Weather>,
    luck: u8,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        while luck < weather.borrow_and_update().stalled_percent {
            if weather.changed().await.is_err() {
                return Ok(());
            }
        }
        let read = from.read(&mut piece).await?;
        let delay = weather.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&piece[..read]).await?;
    }
}

async fn is_cut(mut weather: watch::Receiver<Weather>, luck: u8) {
    let mut seen = weather.borrow_and_update().cuts;
    loop {
        if weather.changed().await.is_err() {
            return;
        }
        let now = *weather.borrow_and_update();
        if now.cuts != seen && luck < now.cut_percent {
            return;
        }
        seen = now.cuts;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link to a server, and a connection of each.
    async fn through(link: &Link, server: &TcpListener) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(link.address).await.unwrap();
        (client, server.accept().await.unwrap().0)
    }

    async fn opened() -> (Link, TcpListener) {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let link = Link::open(Dice::new(1)).await.unwrap();
        let node = server.local_addr().unwrap();
        link.change(|weather| weather.node = Some(node));
        (link, server)
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn bytes_go_both_ways_and_an_end_is_passed_on() {
        run(async {
            let (link, server) = opened().await;
            let (mut client, mut node) = through(&link, &server).await;
            client.write_all(b"ask").await.unwrap();
            let mut bytes = [0; 3];
            node.read_exact(&mut bytes).await.unwrap();
            assert_eq!(&bytes, b"ask");
            node.write_all(b"answer").await.unwrap();
            drop(node);
            let mut all = Vec::new();
            client.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, b"answer");
        });
    }

    #[test]
    fn a_cut_resets_both_sides() {
        run(async {
            let (link, server) = opened().await;
            let (mut client, mut node) = through(&link, &server).await;
            // Once something has come through, the link knows of the connection.
            client.write_all(b"x").await.unwrap();
            node.read_exact(&mut [0; 1]).await.unwrap();
            link.change(|weather| (weather.cuts, weather.cut_percent) = (1, 100));
            assert!(client.read(&mut [0; 1]).await.is_err());
            assert!(node.read(&mut [0; 1]).await.is_err());
        });
    }

    #[test]
    fn a_stalled_connection_carries_nothing_until_the_stall_ends() {
        run(async {
            let (link, server) = opened().await;
            link.change(|weather| weather.stalled_percent = 100);
            let (mut client, mut node) = through(&link, &server).await;
            node.write_all(b"late").await.unwrap();
            let mut bytes = [0; 4];
            let early = tokio::time::timeout(Duration::from_millis(30), client.read(&mut bytes)).await;
            assert!(early.is_err(), "{early:?}");
            link.change(|weather| weather.stalled_percent = 0);
            client.read_exact(&mut bytes).await.unwrap();
            assert_eq!(&bytes, b"late");
        });
    }

    #[test]
    fn where_there_is_no_node_connections_are_reset() {
        run(async {
            let link = Link::open(Dice::new(1)).await.unwrap();
            let mut client = TcpStream::connect(link.address).await.unwrap();
            assert!(matches!(client.read(&mut [0; 1]).await, Err(_) | Ok(0)));
        });
    }
}
