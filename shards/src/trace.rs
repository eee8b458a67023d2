//! Names for requests: an identifier for logs, and the W3C trace context.

use std::cell::RefCell;

use uuid::Uuid;

/// Lengths that a client's own request id may have.
const REQUEST_ID_CHARS: std::ops::RangeInclusive<usize> = 20..=200;

/// The client's request id if its length is usable, else a new one.
#[must_use]
pub fn request_id(sent: Option<&str>) -> String {
    match sent {
        Some(id) if REQUEST_ID_CHARS.contains(&id.len()) => id.to_owned(),
        _ => Uuid::new_v4().simple().to_string(),
    }
}

/// A `traceparent` (W3C Trace Context, section 3.2) for this node's part: the sender's trace and
/// flags with a new span, or a new sampled trace where the sender's is missing or invalid.
#[must_use]
pub fn continue_trace(sent: Option<&str>) -> String {
    let span = u64::from_be_bytes(random_bytes()).max(1);
    match sent.and_then(parse) {
        Some((trace, flags)) => format!("00-{trace}-{span:016x}-{flags}"),
        None => format!("00-{:032x}-{span:016x}-01", u128::from_be_bytes(random_bytes()).max(1)),
    }
}

/// Random bytes that a thread has fetched at once: one system call for many requests.
const POOL_BYTES: usize = 4096;

thread_local! {
    static POOL: RefCell<(Vec<u8>, usize)> = const { RefCell::new((Vec::new(), 0)) };
}

fn random_bytes<const N: usize>() -> [u8; N] {
    POOL.with_borrow_mut(|(pool, used)| {
        if *used + N > pool.len() {
            pool.resize(POOL_BYTES, 0);
            getrandom::fill(pool).expect("invariant: Linux has random bytes once it has started");
            *used = 0;
        }
        let bytes = pool[*used..].first_chunk().copied().unwrap_or([0; N]);
        *used += N;
        bytes
    })
}

/// Whether a `traceparent` is one that [`continue_trace`] goes on with.
#[must_use]
pub fn is_valid(sent: &str) -> bool {
    parse(sent).is_some()
}

/// Trace id and flags of a valid `traceparent`.
fn parse(text: &str) -> Option<(&str, &str)> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |part: &str, len| {
        part.len() == len && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let known = hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
    let set = |part: &str| part.bytes().any(|byte| byte != b'0');
    let valid = known && hex(trace, 32) && set(trace) && hex(span, 16) && set(span) && hex(flags, 2);
    valid.then_some((trace, flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    #[test]
    fn a_valid_trace_goes_on_with_a_new_span() {
        let ours = continue_trace(Some(SENT));
        assert_eq!((&ours[..36], &ours[52..]), (&SENT[..36], "-00"));
        assert_ne!(ours, SENT);
    }

    #[test]
    fn an_invalid_or_missing_trace_starts_a_new_one() {
        let zero = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        for sent in
            [None, Some("nonsense"), Some(zero), Some(&SENT.replacen("00", "ff", 1)), Some(&SENT.to_uppercase())]
        {
            let ours = continue_trace(sent);
            assert!(parse(&ours).is_some() && ours.ends_with("-01"), "{sent:?}: {ours}");
        }
    }

    #[test]
    fn no_two_traces_are_the_same() {
        let traces: std::collections::HashSet<_> = (0..10_000).map(|_| continue_trace(None)).collect();
        assert_eq!(traces.len(), 10_000);
        let spans: std::collections::HashSet<_> = traces.iter().map(|trace| &trace[36..52]).collect();
        assert_eq!(spans.len(), 10_000);
    }

    #[test]
    fn a_request_id_of_a_usable_length_is_kept() {
        for (len, kept) in [(19, false), (20, true), (200, true), (201, false)] {
            let sent = "x".repeat(len);
            assert_eq!(request_id(Some(&sent)) == sent, kept, "{len}");
        }
        assert_eq!(request_id(None).len(), 32);
    }
}
