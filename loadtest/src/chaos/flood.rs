//! Slow clients by the hundred: connections that want every event and read none.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

use crate::endpoint::{Opening, percent_encode};
use crate::scenario::{Target, Transport};

/// Receive buffer of a connection that is never read.
const RECEIVE_BUFFER_BYTES: u32 = 4 << 10;

/// Opens so many connections to `node` for events of any key, and closes them unread when `lasts` is over.
pub(super) async fn flood(node: SocketAddr, event_type: String, connections: u32, lasts: Duration) {
    let mut open = Vec::new();
    for number in 0..connections {
        let transport = if number % 2 == 0 { Transport::Sse } else { Transport::Ws };
        let subscriptions = percent_encode(&serde_json::json!([{ "eventType": event_type }]).to_string());
        let url = format!("http://{node}/_rig/v1/connection/{}?subscriptions={subscriptions}", transport.name());
        let Ok(opening) = Opening::new(&Target::new(&url, transport), &event_type, false) else { return };
        let mut request = Vec::new();
        opening.append_request(number, "", &mut request);
        let Ok(socket) = TcpSocket::new_v4() else { break };
        // The node may be down, or refuse so many: then there are fewer.
        if socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES).is_err() {
            break;
        }
        if let Ok(mut stream) = socket.connect(node).await
            && stream.write_all(&request).await.is_ok()
        {
            open.push(stream);
        }
    }
    tokio::time::sleep(lasts).await;
    drop(open);
}
