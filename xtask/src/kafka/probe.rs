//! Does a broker answer? Asked with a Kafka `Metadata` request, because its port opens before it is ready.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(2);

/// `Metadata` (key 3) in version 1, correlation id 7, no client id, about no topics: length first, all big-endian.
/// Layout: <https://kafka.apache.org/protocol#The_Messages_Metadata>.
const REQUEST: [u8; 18] = [0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 7, 0xff, 0xff, 0, 0, 0, 0];

/// True if the broker at `address` lists at least one live broker (itself).
pub(super) fn answers(address: &str) -> bool {
    live_brokers(address).is_ok_and(|brokers| brokers > 0)
}

/// True if something accepts connections on the first address of a `KAFKA_BROKERS` list.
pub(super) fn accepts(brokers: &str) -> bool {
    brokers.split(',').any(|address| connect(address.trim()).is_ok())
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "no address");
    for candidate in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn live_brokers(address: &str) -> io::Result<i32> {
    let mut stream = connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(&REQUEST)?;
    // Length, correlation id, length of the array of brokers.
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    Ok(i32::from_be_bytes([head[8], head[9], head[10], head[11]]))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn server_that_answers(brokers: i32) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; REQUEST.len()];
            stream.read_exact(&mut request).unwrap();
            assert_eq!(request, REQUEST);
            let head = [8_i32.to_be_bytes(), 7_i32.to_be_bytes(), brokers.to_be_bytes()].concat();
            stream.write_all(&head).unwrap();
        });
        address
    }

    #[test]
    fn a_broker_that_lists_itself_answers() {
        assert!(answers(&server_that_answers(1)));
    }

    #[test]
    fn a_broker_that_is_still_fenced_does_not_count() {
        assert!(!answers(&server_that_answers(0)));
    }

    #[test]
    fn a_closed_port_does_not_answer() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        assert!(!answers(&address));
        assert!(!accepts(&address));
    }
}
