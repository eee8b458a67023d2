//! Issue 4: a thousand concurrent calls with a backend that misbehaves at random; no byte of one answer may be in another.

use fastrand::Rng;

use crate::support::backend::{Backend, Received, resident_bytes};
use crate::support::http::{Connection, Request};
use crate::support::wait_for;

const CALLS: usize = 1_000;

/// What the backend does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Length,
    Chunked,
    ToTheEnd,
    InPieces,
    Informational,
    TooMuch,
    TooLittle,
    BadChunk,
    Nothing,
    NoAnswer,
    Early,
}

const DEEDS: [Deed; 11] = [
    Deed::Length,
    Deed::Chunked,
    Deed::ToTheEnd,
    Deed::InPieces,
    Deed::Informational,
    Deed::TooMuch,
    Deed::TooLittle,
    Deed::BadChunk,
    Deed::Nothing,
    Deed::NoAnswer,
    Deed::Early,
];

impl Deed {
    fn is_harmless(self) -> bool {
        matches!(
            self,
            Self::Length | Self::Chunked | Self::ToTheEnd | Self::InPieces | Self::Informational | Self::TooMuch
        )
    }
}

/// What a call is and what it must get, all from its number and the run's seed.
struct Plan {
    deed: Deed,
    body: Vec<u8>,
    upload: Vec<u8>,
}

fn plan(seed: u64, number: usize) -> Plan {
    let mut random = Rng::with_seed(seed ^ (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let deed = DEEDS[random.usize(..DEEDS.len())];
    let text = |random: &mut Rng, mark: &str| {
        let mut out = Vec::new();
        let size = [random.usize(1..50), random.usize(1..5_000), random.usize(1..100_000)][random.usize(..3)];
        while out.len() < size {
            out.extend_from_slice(format!("{mark}{number}.").as_bytes());
        }
        out
    };
    let body = text(&mut random, "down");
    let upload = if random.bool() { text(&mut random, "up") } else { Vec::new() };
    Plan { deed, body, upload }
}

fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in body.chunks(size) {
        out.extend_from_slice(format!("{:X};ext=\"1\"\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn number_of(request: &Received) -> usize {
    request.target.rsplit('/').next().and_then(|number| number.parse().ok()).expect("a call has a number")
}

fn fuzzing_backend(seed: u64) -> Backend {
    Backend::scripted(move |peer| {
        while let Some(request) = peer.request() {
            let number = number_of(&request);
            let Plan { deed, body, upload } = plan(seed, number);
            assert!(request.body == upload, "call {number} uploads its own bytes and no others");
            let with_length = |announced: usize| {
                format!("HTTP/1.1 200 OK\r\nx-call: {number}\r\ncontent-length: {announced}\r\n\r\n")
            };
            let chunks = format!("HTTP/1.1 200 OK\r\nx-call: {number}\r\ntransfer-encoding: chunked\r\n\r\n");
            let mut answer = Vec::new();
            let mut goes_on = true;
            match deed {
                Deed::Length | Deed::InPieces => {
                    answer.extend_from_slice(with_length(body.len()).as_bytes());
                    answer.extend_from_slice(&body);
                }
                Deed::Informational => {
                    answer.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
                    answer.extend_from_slice(with_length(body.len()).as_bytes());
                    answer.extend_from_slice(&body);
                }
                Deed::Chunked => {
                    answer.extend_from_slice(chunks.as_bytes());
                    answer.extend_from_slice(&chunked(&body, 1_000));
                    answer.extend_from_slice(b"0\r\n\r\n");
                }
                Deed::ToTheEnd => {
                    answer.extend_from_slice(format!("HTTP/1.1 200 OK\r\nx-call: {number}\r\n\r\n").as_bytes());
                    answer.extend_from_slice(&body);
                    goes_on = false;
                }
                Deed::TooMuch => {
                    answer.extend_from_slice(with_length(body.len()).as_bytes());
                    answer.extend_from_slice(&body);
                    answer.extend_from_slice(with_length(4).as_bytes());
                    answer.extend_from_slice(b"evil");
                }
                Deed::TooLittle => {
                    answer.extend_from_slice(with_length(body.len() + 1).as_bytes());
                    answer.extend_from_slice(&body);
                    goes_on = false;
                }
                Deed::BadChunk => {
                    answer.extend_from_slice(chunks.as_bytes());
                    answer.extend_from_slice(&chunked(&body, 3_000));
                    answer.extend_from_slice(b"zz\r\n");
                    goes_on = false;
                }
                Deed::Nothing => goes_on = false,
                Deed::NoAnswer => {
                    answer.extend_from_slice(b"220 mail.example ESMTP\r\n");
                    goes_on = false;
                }
                Deed::Early => {
                    answer.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-le");
                    goes_on = false;
                }
            }
            let step = if deed == Deed::InPieces { 1 + answer.len() / 7 } else { answer.len().max(1) };
            let taken = answer.chunks(step).all(|piece| {
                std::thread::yield_now();
                peer.try_send(piece)
            });
            if !taken || !goes_on {
                return;
            }
        }
    })
}

/// Head and body of an answer that ends with its connection; the body is `None` if it broke off.
fn read_answer(raw: &[u8]) -> Option<(u16, Option<usize>, Vec<u8>, bool)> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(start)) = head.parse(raw) else { return None };
    let field = |name: &str| {
        let found = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).into_owned())
    };
    let call = field("x-call").map(|number| number.parse().expect("a number"));
    let rest = &raw[start..];
    let (body, whole) = match field("content-length") {
        Some(length) => (rest.to_vec(), rest.len() == length.parse::<usize>().expect("a number")),
        None => unchunk(rest),
    };
    Some((head.code.expect("a status"), call, body, whole))
}

fn unchunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else { return (body, false) };
        let line = std::str::from_utf8(&rest[..end]).expect("a chunk's size is text");
        let size = usize::from_str_radix(line, 16).expect("a chunk has a size");
        rest = &rest[end + 2..];
        if size == 0 {
            return (body, rest == b"\r\n");
        }
        if rest.len() < size + 2 {
            body.extend_from_slice(&rest[..rest.len().min(size)]);
            return (body, false);
        }
        body.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
}

#[test]
fn among_a_thousand_calls_to_a_fuzzing_backend_each_gets_its_own_bytes() {
    let seed =
        std::env::var("TIDEGATE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}: repeat with TIDEGATE_SEED={seed}");
    let backend = fuzzing_backend(seed);
    let mut gateway = backend.gateway(&[("SHARDS", "2"), ("PROXY_MAX_CONNECTIONS", "300")]);
    let mut open = Vec::new();
    for number in 0..CALLS {
        let Plan { upload, .. } = plan(seed, number);
        let method = if upload.is_empty() { "GET" } else { "POST" };
        let request = Request::new(method, &format!("/to/{number}")).header("connection", "close").body(&upload);
        let mut connection = Connection::open(gateway.inbound());
        connection.send(request.to_bytes());
        open.push(connection);
    }
    let mut whole_answers = 0;
    for (number, mut connection) in open.into_iter().enumerate() {
        let Plan { deed, body, .. } = plan(seed, number);
        let raw = connection.until_end();
        let what = format!("seed {seed}, call {number}, {deed:?}");
        let Some((status, call, got, whole)) = read_answer(&raw) else {
            // The reset that tells of a broken body may overtake its head.
            assert!(matches!(deed, Deed::TooLittle | Deed::BadChunk), "{what}: no answer, {} bytes", raw.len());
            continue;
        };
        if deed.is_harmless() && status == 200 {
            assert_eq!(call, Some(number), "{what}");
            assert!(whole && got == body, "{what}: {} of {} bytes", got.len(), body.len());
            whole_answers += 1;
        } else if deed.is_harmless() {
            // Another call's fault ended the connection that this one had been sent on, and it must not be repeated.
            assert_eq!((status, &got[..]), (502, &b"Bad gateway."[..]), "{what}");
        } else if status == 200 {
            assert!(matches!(deed, Deed::TooLittle | Deed::BadChunk), "{what}");
            assert_eq!(call, Some(number), "{what}");
            assert!(!whole && body.starts_with(&got), "{what}: looks complete with {} bytes", got.len());
        } else {
            assert_eq!((status, &got[..]), (502, &b"Bad gateway."[..]), "{what}");
        }
    }
    let harmless = (0..CALLS).filter(|number| plan(seed, *number).deed.is_harmless()).count();
    assert!(whole_answers * 10 >= harmless * 9, "seed {seed}: only {whole_answers} of {harmless} are whole");
    wait_for("the calls to leave nothing behind", || {
        (gateway.metrics().sum("tidegate_connections") == 0.0).then_some(())
    });
    assert!(resident_bytes(gateway.pid()) < 256 << 20);
    assert_eq!(gateway.metrics().sum("tidegate_panics_total"), 0.0);
    gateway.assert_alive();
}
