//! A server that answers calls rightly but for every tenth.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;

/// What it does wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Lie {
    /// Gives the answer to the call before.
    Swap,
    /// Answers twice.
    Repeat,
    /// Closes the connection.
    Close,
    /// Says nothing.
    Silence,
    /// Answers 502.
    Refuse,
    /// Puts a byte of another call at the end of the body.
    Mix,
}

/// The running server; its threads end with the test's process.
pub(crate) struct Liar {
    address: SocketAddr,
}

impl Liar {
    pub(crate) fn start(lie: Lie) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (calls, before) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(String::new())));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (calls, before) = (Arc::clone(&calls), Arc::clone(&before));
                thread::spawn(move || serve(&stream, lie, &calls, &before));
            }
        });
        Self { address }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

fn serve(stream: &TcpStream, lie: Lie, calls: &AtomicU64, before: &Mutex<String>) {
    let mut reader = BufReader::new(stream);
    while let Some(number) = read_number(&mut reader) {
        let previous = std::mem::replace(&mut *before.lock().unwrap(), number.clone());
        let lies = calls.fetch_add(1, SeqCst) % 10 == 9;
        let right = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{number}", number.len());
        let answer = match lie {
            _ if !lies => right,
            Lie::Swap => right.replace(&number, &previous),
            Lie::Repeat => right.repeat(2),
            Lie::Close => return,
            Lie::Silence => String::new(),
            Lie::Refuse => "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 12\r\n\r\nBad gateway.".to_owned(),
            Lie::Mix => right.replace(&format!("content-length: {}", number.len()), "content-length: 22") + "!",
        };
        let mut writer = stream;
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn read_number(reader: &mut impl BufRead) -> Option<String> {
    let mut number = None;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|&count| count > 0)?;
        match line.trim_end().split_once(": ") {
            Some(("x-load-number", value)) => number = Some(value.to_owned()),
            None if line == "\r\n" => return number,
            _ => {}
        }
    }
}
