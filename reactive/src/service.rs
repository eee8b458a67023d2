//! What a server serves: routes from the id of a service to its handler, joined with `|`.
//!
//! ```
//! use tidegate_reactive::{Json, Refusal, Request, Service};
//!
//! let seats = Service::sync("seats/free", |_: Request<()>| Json(42))
//!     | Service::future("seats/reserve", |request: Request<Json<u32>>| async move {
//!         if request.payload.0 > 42 { Err(Refusal::bad_request("no such seat")) } else { Ok("reserved") }
//!     });
//! assert_eq!(seats.ids().collect::<Vec<_>>(), ["seats/free", "seats/reserve"]);
//! ```

use std::future::Future;
use std::ops::BitOr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::headers::Headers;
use crate::outcome::Verdict;
use crate::payload::{CodecError, Decode, Encode, Payload};

/// A request as a handler sees it.
#[derive(Clone, Debug)]
pub struct Request<T> {
    /// The body.
    pub payload: T,
    /// The caller's headers.
    pub headers: Headers,
    /// The id under which the service was asked.
    pub service: String,
    /// How long the caller still waits; `None` if it didn't say.
    pub time_left: Option<Duration>,
}

/// An answer, with its status and headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response<T> {
    /// Status, as in HTTP.
    pub status: u16,
    /// Headers.
    pub headers: Headers,
    /// The body.
    pub payload: T,
}

impl<T> Response<T> {
    /// 200 with this body.
    pub fn new(payload: T) -> Self {
        Self { status: 200, headers: Headers::new(), payload }
    }

    /// The same with another status (100 to 999).
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.insert(name, value);
        self
    }
}

/// Why a handler gives no answer. Any error becomes one ("handler failed"), so `?` works in handlers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub(crate) verdict: Verdict,
    pub(crate) status: u16,
    pub(crate) message: String,
}

impl Refusal {
    /// The request is wrong: 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self { verdict: Verdict::BadRequest, status: 400, message: message.into() }
    }

    /// The handler could not do it: 500.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { verdict: Verdict::HandlerFailed, status: 500, message: message.into() }
    }

    /// The same with another status: 4xx for [`bad_request`](Self::bad_request), 5xx for [`failed`](Self::failed).
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub(crate) fn into_outgoing(self) -> Outgoing {
        let payload = Payload { content_type: "text/plain; charset=utf-8".into(), bytes: self.message.into_bytes() };
        Outgoing { status: self.status, verdict: Some(self.verdict), headers: Headers::new(), payload }
    }
}

impl<E: std::error::Error> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::failed(error.to_string())
    }
}

/// What a handler may return: a value that can be sent, a [`Response`] around one, or a `Result` of either.
pub trait IntoAnswer {
    /// Writes the answer.
    #[doc(hidden)]
    fn into_answer(self) -> Result<Outgoing, Refusal>;
}

impl<T: Encode> IntoAnswer for T {
    fn into_answer(self) -> Result<Outgoing, Refusal> {
        Response::new(self).into_answer()
    }
}

impl<T: Encode> IntoAnswer for Response<T> {
    fn into_answer(self) -> Result<Outgoing, Refusal> {
        self.headers.check()?;
        if !(100..=999).contains(&self.status) {
            return Err(Refusal::failed(format!("the handler answered with the impossible status {}", self.status)));
        }
        let payload = self.payload.encode()?;
        Ok(Outgoing { status: self.status, verdict: None, headers: self.headers, payload })
    }
}

impl<T: IntoAnswer, E: Into<Refusal>> IntoAnswer for Result<T, E> {
    fn into_answer(self) -> Result<Outgoing, Refusal> {
        self.map_err(Into::into)?.into_answer()
    }
}

/// What goes back for a request.
#[derive(Clone, Debug)]
#[doc(hidden)]
pub struct Outgoing {
    pub(crate) status: u16,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) headers: Headers,
    pub(crate) payload: Payload,
}

/// What a handler has to do for one request.
pub(crate) enum Work {
    /// May block.
    Sync(Box<dyn FnOnce() -> Outgoing + Send>),
    Future(Pin<Box<dyn Future<Output = Outgoing> + Send>>),
}

/// Makes the work of a request, or fails because its payload is not of the handler's type.
type Handler = Arc<dyn Fn(Request<Payload>) -> Result<Work, CodecError> + Send + Sync>;

/// Services by their ids.
#[derive(Clone, Default)]
pub struct Service {
    routes: Vec<(String, Handler)>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.ids()).finish()
    }
}

impl Service {
    /// A handler that is a plain function. It may block: it has a thread for itself.
    pub fn sync<In, Out, F>(id: impl Into<String>, handler: F) -> Self
    where
        In: Decode + Send + 'static,
        Out: IntoAnswer,
        F: Fn(Request<In>) -> Out + Send + Sync + 'static,
    {
        let handler = Arc::new(handler);
        let work = move |request: Request<Payload>| {
            let (request, handler) = (decode(request)?, Arc::clone(&handler));
            Ok(Work::Sync(Box::new(move || outgoing(handler(request)))))
        };
        Self { routes: vec![(id.into(), Arc::new(work))] }
    }

    /// A handler that is an async function. It must not block.
    pub fn future<In, Out, F, Fut>(id: impl Into<String>, handler: F) -> Self
    where
        In: Decode + Send + 'static,
        Out: IntoAnswer,
        F: Fn(Request<In>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Out> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let work = move |request: Request<Payload>| {
            let (request, handler) = (decode(request)?, Arc::clone(&handler));
            // The handler runs within the future, so that a panic before its first await is one of the future.
            Ok(Work::Future(Box::pin(async move { outgoing(handler(request).await) })))
        };
        Self { routes: vec![(id.into(), Arc::new(work))] }
    }

    /// These routes and those.
    #[must_use]
    pub fn join(mut self, other: Self) -> Self {
        self.routes.extend(other.routes);
        self
    }

    /// Ids in the order they were joined.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.routes.iter().map(|(id, _)| id.as_str())
    }

    pub(crate) fn find(&self, id: &str) -> Option<&Handler> {
        self.routes.iter().find(|(found, _)| found == id).map(|(_, handler)| handler)
    }
}

impl BitOr for Service {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.join(other)
    }
}

fn decode<In: Decode>(request: Request<Payload>) -> Result<Request<In>, CodecError> {
    let Request { payload, headers, service, time_left } = request;
    Ok(Request { payload: In::decode(payload)?, headers, service, time_left })
}

fn outgoing(answer: impl IntoAnswer) -> Outgoing {
    answer.into_answer().unwrap_or_else(Refusal::into_outgoing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Json;

    fn ask(service: &Service, id: &str, payload: impl Encode) -> Result<Outgoing, CodecError> {
        let payload = payload.encode()?;
        let request = Request { payload, headers: Headers::new(), service: id.to_owned(), time_left: None };
        match service.find(id).unwrap()(request)? {
            Work::Sync(work) => Ok(work()),
            Work::Future(_) => panic!("{id} is sync"),
        }
    }

    #[test]
    fn a_handler_may_return_a_value_a_response_or_a_result() {
        let service = Service::sync("value", |request: Request<String>| request.payload)
            | Service::sync("response", |_: Request<()>| Response::new(Json(1)).status(201).header("x", "y"))
            | Service::sync("result", |request: Request<String>| request.payload.parse::<u8>().map(Json));
        assert_eq!(ask(&service, "value", "a").unwrap().payload.bytes, b"a");
        let created = ask(&service, "response", ()).unwrap();
        assert_eq!((created.status, created.headers.text("x"), created.verdict), (201, Some("y"), None));
        assert_eq!(ask(&service, "result", "7").unwrap().payload.bytes, b"7");
        let failed = ask(&service, "result", "seven").unwrap();
        assert_eq!((failed.status, failed.verdict), (500, Some(Verdict::HandlerFailed)));
        assert!(!failed.payload.bytes.is_empty());
    }

    #[test]
    fn what_a_handler_may_not_answer_is_its_failure() {
        let service = Service::sync("status", |_: Request<()>| Response::new(()).status(7))
            | Service::sync("header", |_: Request<()>| Response::new(()).header("rig-correlation", "x"));
        for id in ["status", "header"] {
            assert_eq!(ask(&service, id, ()).unwrap().verdict, Some(Verdict::HandlerFailed), "{id}");
        }
    }

    #[test]
    fn a_payload_of_another_type_never_reaches_the_handler() {
        let service = Service::sync("number", |request: Request<Json<u8>>| request.payload);
        assert!(ask(&service, "number", "seven").is_err());
    }
}
