//! Two processes on the same ports: the new one of an upgrade, which takes over, and the old one, which drains. Every listening
//! socket has `SO_REUSEPORT`; without `TAKEOVER` a start looks first whether somebody else listens.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted on the internal port.
const BACKLOG: i32 = 1_024;

/// Makes sure that nobody listens on these addresses; port 0 is always free.
///
/// # Errors
/// The first address that is taken, and what to do about it.
pub fn refuse_taken(addresses: &[SocketAddr]) -> io::Result<()> {
    for address in addresses.iter().filter(|address| address.port() != 0) {
        // Without SO_REUSEPORT, binding fails if anybody listens there.
        if let Err(error) = TcpListener::bind(address)
            && error.kind() == io::ErrorKind::AddrInUse
        {
            let advice =
                "another process listens there; stop it, choose another port, or take it over with TAKEOVER=true";
            return Err(io::Error::new(error.kind(), format!("can't listen on {address}: {error}; {advice}")));
        }
    }
    Ok(())
}

/// Binds a listening socket that a successor may bind, too.
///
/// # Errors
/// The address can't be bound.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_port(true)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_somebody_listens_on_is_refused_and_can_be_shared() {
        let first = bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let address = first.local_addr().expect("it is bound");
        let error = refuse_taken(&[address]).expect_err("it is taken");
        assert!(error.to_string().contains("TAKEOVER=true"), "{error}");
        assert_eq!(bind(address).expect("both listen").local_addr().expect("it is bound"), address);
    }

    #[test]
    fn a_port_that_is_left_to_the_system_is_never_taken() {
        assert!(refuse_taken(&[SocketAddr::from(([127, 0, 0, 1], 0))]).is_ok());
    }
}
