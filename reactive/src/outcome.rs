//! How a call can end: with an answer, or with one of a few failures, and nothing else.

use crate::envelope::AnswerMessage;
use crate::error::Error;
use crate::headers::Headers;
use crate::payload::{Decode, Payload};

/// How a call ended.
pub type Outcome<T> = Result<Answer<T>, Failure>;

/// What a handler answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// Status, as in HTTP; a handler that says nothing about it answers 200.
    pub status: u16,
    /// The handler's headers, and `traceparent`.
    pub headers: Headers,
    /// The body.
    pub payload: T,
}

/// Why there is no answer of a handler.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The topic has no service of this id, or the topic doesn't exist.
    #[error("no such service: {message}")]
    NoSuchService {
        /// In the words of the server, or of Kafka.
        message: String,
    },
    /// The request can't be understood, or can't be sent: the caller's fault, a retry doesn't help.
    #[error("bad request ({status}): {message}")]
    BadRequest {
        /// 400, or closer: 413 too large, 422 an idempotency key used for something else.
        status: u16,
        /// What is wrong with it.
        message: String,
    },
    /// The handler failed, panicked, or answered what is no answer of the expected type.
    #[error("the handler failed ({status}): {message}")]
    HandlerFailed {
        /// 500, or the handler's own.
        status: u16,
        /// What the handler said.
        message: String,
    },
    /// Kafka has the request; its answer did not come in time.
    #[error("no answer in time")]
    TimedOut,
    /// The client was shut down before the answer came.
    #[error("cancelled: the client was shut down")]
    Cancelled,
    /// Too many calls are in flight, here or at the server. The request was not handled.
    #[error("overloaded: too many requests are in flight")]
    Overloaded,
    /// Kafka can't be reached, or did not acknowledge the request in time: it may or may not have been handled.
    #[error("disconnected from Kafka: {0}")]
    Disconnected(#[source] Error),
}

/// What a server says where no handler answered, as the header `rig-outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// [`Failure::NoSuchService`].
    NoSuchService,
    /// [`Failure::BadRequest`].
    BadRequest,
    /// [`Failure::HandlerFailed`].
    HandlerFailed,
    /// [`Failure::TimedOut`]: the server gave the handler up.
    TimedOut,
    /// [`Failure::Overloaded`].
    Overloaded,
}

impl Verdict {
    const ALL: [Self; 5] =
        [Self::NoSuchService, Self::BadRequest, Self::HandlerFailed, Self::TimedOut, Self::Overloaded];

    /// The header's value.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoSuchService => "no-such-service",
            Self::BadRequest => "bad-request",
            Self::HandlerFailed => "handler-failed",
            Self::TimedOut => "timed-out",
            Self::Overloaded => "overloaded",
        }
    }

    /// The verdict of this name; `None` for any other text.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.name().as_bytes() == name)
    }

    /// Status that goes with it.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::NoSuchService => 404,
            Self::BadRequest => 400,
            Self::HandlerFailed => 500,
            Self::TimedOut => 504,
            Self::Overloaded => 503,
        }
    }
}

/// Reads an answer as the type the caller asked for.
///
/// # Errors
/// What the server reported, or [`Failure::HandlerFailed`] for an answer that isn't of that type. An error status whose body
/// isn't of the type either is told apart by its hundreds: 4xx [`Failure::BadRequest`], 5xx [`Failure::HandlerFailed`].
pub fn interpret<T: Decode>(answer: AnswerMessage) -> Outcome<T> {
    let status = answer.status;
    let Some(verdict) = answer.verdict else {
        let text =
            String::from_utf8_lossy(&answer.payload.bytes[..answer.payload.bytes.len().min(SHOWN_BYTES)]).into_owned();
        return match T::decode(answer.payload) {
            Ok(payload) => Ok(Answer { status, headers: answer.headers, payload }),
            Err(_) if (400..=499).contains(&status) => Err(Failure::BadRequest { status, message: text }),
            Err(_) if status >= 500 => Err(Failure::HandlerFailed { status, message: text }),
            Err(error) => Err(Failure::HandlerFailed { status, message: format!("the answer can't be read: {error}") }),
        };
    };
    let message = message(&answer.payload);
    Err(match verdict {
        Verdict::NoSuchService => Failure::NoSuchService { message },
        Verdict::BadRequest => Failure::BadRequest { status, message },
        Verdict::HandlerFailed => Failure::HandlerFailed { status, message },
        Verdict::TimedOut => Failure::TimedOut,
        Verdict::Overloaded => Failure::Overloaded,
    })
}

fn message(payload: &Payload) -> String {
    String::from_utf8_lossy(&payload.bytes).into_owned()
}

/// As much of an error's body as its message shows.
const SHOWN_BYTES: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Json;

    fn answer(status: u16, verdict: Option<Verdict>, body: &str) -> AnswerMessage {
        AnswerMessage {
            correlation: b"c".to_vec(),
            reply_topic: String::new(),
            status,
            verdict,
            serving_us: None,
            headers: Headers::new(),
            payload: Payload { content_type: "".into(), bytes: body.as_bytes().to_vec() },
        }
    }

    #[test]
    fn a_handlers_own_status_is_an_answer() {
        let outcome: Outcome<String> = interpret(answer(409, None, "taken"));
        let answer = outcome.unwrap();
        assert_eq!((answer.status, answer.payload.as_str()), (409, "taken"));
    }

    #[test]
    fn each_verdict_of_a_server_is_its_own_failure() {
        let failure = |verdict: Verdict| interpret::<()>(answer(verdict.status(), Some(verdict), "why")).unwrap_err();
        assert!(matches!(failure(Verdict::NoSuchService), Failure::NoSuchService { message } if message == "why"));
        assert!(matches!(failure(Verdict::BadRequest), Failure::BadRequest { status: 400, .. }));
        assert!(matches!(failure(Verdict::HandlerFailed), Failure::HandlerFailed { status: 500, .. }));
        assert!(matches!(failure(Verdict::TimedOut), Failure::TimedOut));
        assert!(matches!(failure(Verdict::Overloaded), Failure::Overloaded));
        for verdict in Verdict::ALL {
            assert_eq!(Verdict::from_name(verdict.name().as_bytes()), Some(verdict));
        }
        assert_eq!(Verdict::from_name(b"fine"), None);
    }

    #[test]
    fn an_answer_of_another_type_is_the_services_fault_unless_its_status_says_otherwise() {
        let failure = |status: u16| interpret::<Json<u8>>(answer(status, None, "<html>")).unwrap_err();
        assert!(matches!(failure(200), Failure::HandlerFailed { status: 200, .. }));
        assert!(matches!(failure(404), Failure::BadRequest { status: 404, message } if message == "<html>"));
        assert!(matches!(failure(502), Failure::HandlerFailed { status: 502, .. }));
    }
}
