//! A gateway both of whose ports are used, and what is asked of them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use super::context::Context;
use super::error::FigureError;
use super::process::Server;

/// A client that waits longer than this for anything has met a fault.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Gateway {
    pub(super) server: Server,
    pub(super) inbound: String,
    pub(super) internal: String,
}

impl Gateway {
    pub(super) fn start(context: &Context, settings: &[(&'static str, String)]) -> Result<Self, FigureError> {
        let server = context.tidegate_saying(settings, Stdio::null(), both_ports)?;
        let ports = server.url().split_once(' ').map(|(inbound, internal)| (inbound.to_owned(), internal.to_owned()));
        let (inbound, internal) =
            ports.ok_or_else(|| FigureError::Invalid("a gateway named no internal port".to_owned()))?;
        Ok(Self { server, inbound, internal })
    }

    /// Where clients connect to.
    pub(super) fn address(&self) -> Result<SocketAddr, FigureError> {
        self.inbound.parse().map_err(|_| FigureError::Invalid(format!("{} is no address", self.inbound)))
    }

    /// The sum of a metric's samples.
    pub(super) fn metric(&self, name: &str) -> Result<f64, FigureError> {
        let page = self.call("GET /metrics HTTP/1.1\r\n", "")?;
        let values = page.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit(' ').next());
        let values: Vec<f64> = values.filter_map(|value| value.trim().parse().ok()).collect();
        if values.is_empty() {
            return Err(FigureError::Invalid(format!("the gateway has no metric {name}")));
        }
        Ok(values.iter().sum())
    }

    /// A call to the internal port: `head` is the request line and further lines, each with its end. Returns head and body of
    /// the answer.
    pub(super) fn call(&self, head: &str, body: &str) -> Result<String, FigureError> {
        let mut stream = connect(&self.internal)?;
        let call = format!("{head}host: figures\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(call.as_bytes()).map_err(FigureError::system("calling a gateway's internal port"))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(FigureError::system("calling a gateway's internal port"))?;
        Ok(answer)
    }
}

/// Connects to an address, with a bound on waiting.
pub(super) fn connect(address: &str) -> Result<TcpStream, FigureError> {
    let stream = TcpStream::connect(address).map_err(FigureError::system("connecting to a gateway"))?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(FigureError::system("setting a time-out"))?;
    Ok(stream)
}

/// Both addresses in `tidegate ready inbound=… internal=…`.
fn both_ports(line: &str) -> Option<String> {
    let (inbound, internal) = line.strip_prefix("tidegate ready inbound=")?.split_once(" internal=")?;
    Some(format!("{inbound} {internal}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ports_are_found_in_the_line_for_scripts() {
        let line = "tidegate ready inbound=127.0.0.1:1 internal=127.0.0.1:2";
        assert_eq!(both_ports(line).as_deref(), Some("127.0.0.1:1 127.0.0.1:2"));
        assert_eq!(both_ports("tidegate 0.1.0"), None);
    }
}
