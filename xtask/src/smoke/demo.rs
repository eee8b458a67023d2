//! The demo, started as the README says.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::process::Process;
use crate::repository::cargo;
use crate::steps::Outcome;

/// Time for the page to answer once its address is known.
const PAGE_PATIENCE: Duration = Duration::from_secs(30);

/// Starts the demo with the README's command until the page at the address it prints answers, then stops it with SIGTERM.
#[must_use]
pub fn demo() -> Outcome {
    println!("$ cargo run --release -- demo");
    // The README's demo is the one with the local hub.
    let mut command = cargo(&["run", "--release", "--", "demo"]);
    match Process::start(command.env_remove("KAFKA_BROKERS")).and_then(visit) {
        Ok(()) => Outcome::Passed,
        Err(reason) => Outcome::failed(format!("the demo {reason}")),
    }
}

fn visit(demo: Process) -> Result<(), String> {
    let address = demo.wait_for_line(address_in)?;
    wait_for_page(&address)?;
    demo.stop()
}

/// Host and port in `Open http://HOST:PORT …`.
fn address_in(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("Open http://")?;
    let authority: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || ".:-[]".contains(*c)).collect();
    let host = authority.trim_end_matches(['.', ':']);
    host.rsplit_once(':')?.1.parse::<u16>().ok()?;
    Some(host.to_owned())
}

fn wait_for_page(address: &str) -> Result<(), String> {
    let deadline = Instant::now() + PAGE_PATIENCE;
    loop {
        let problem = match page(address) {
            Ok(answer) if is_a_page(&answer) => return Ok(()),
            Ok(answer) => format!(
                "said its page is at http://{address}/, which answered {:?}",
                answer.lines().next().unwrap_or("nothing")
            ),
            Err(error) => format!("said its page is at http://{address}/, which does not answer: {error}"),
        };
        if Instant::now() > deadline {
            return Err(problem);
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn is_a_page(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200") && answer.to_lowercase().contains("<!doctype html")
}

fn page(address: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_address_to_open_is_found_in_what_the_demo_prints() {
        let line = "Open http://localhost:4040 in two windows and buy a seat in one of them.";
        assert_eq!(address_in(line).as_deref(), Some("localhost:4040"));
        assert_eq!(address_in("  Open http://[::1]:4040/.").as_deref(), Some("[::1]:4040"));
        assert_eq!(address_in("publish to http://127.0.0.1:4010/v3/messages"), None);
        assert_eq!(address_in("Open http://localhost in a browser"), None);
    }

    #[test]
    fn only_a_page_that_was_found_counts_as_an_answer() {
        assert!(is_a_page("HTTP/1.1 200 OK\r\n\r\n<!DOCTYPE html><title>x</title>"));
        assert!(!is_a_page("HTTP/1.1 404 Not Found\r\n\r\n<!doctype html>"));
        assert!(!is_a_page("HTTP/1.1 200 OK\r\n\r\n{}"));
    }

    #[test]
    fn a_page_is_fetched_to_its_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(&stream);
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap() > 2 {
                line.clear();
            }
            (&stream).write_all(b"HTTP/1.1 200 OK\r\n\r\n<!doctype html>").unwrap();
        });
        assert_eq!(wait_for_page(&address), Ok(()));
        server.join().unwrap();
    }
}
