//! The bundled service on a [`ReactiveServer`], the other side of calls through the bare client.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use tidegate_reactive::{ReactiveServer, Refusal, Request, ServerSettings, Service};

use crate::calls::number::CallNumber;
use crate::calls::reactive::{block_on, chain};
use crate::error::LoadError;
use crate::service::ServiceOptions;

/// The flag that ends it is looked at this often.
const WAIT: Duration = Duration::from_millis(50);
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// Serves `id` until `stop` is set.
pub(crate) fn serve(
    options: &ServiceOptions,
    id: &str,
    stop: &AtomicBool,
    ready: impl FnOnce(),
) -> Result<(), LoadError> {
    let answer_bytes = options.answer_bytes;
    let service = Service::future(id, move |request: Request<Vec<u8>>| async move {
        let number =
            CallNumber::at_front(&request.payload).ok_or_else(|| Refusal::bad_request("there is no number"))?;
        let mut payload = Vec::new();
        number.append_payload(answer_bytes, &mut payload);
        Ok::<_, Refusal>(payload)
    });
    let settings = ServerSettings::new(&options.brokers, &options.topic);
    let server = block_on(ReactiveServer::start(settings, service))
        .map_err(|error| LoadError::Reactive { what: options.topic.clone(), reason: chain(&error) })?;
    ready();
    while !stop.load(Relaxed) {
        thread::sleep(WAIT);
    }
    block_on(server.shutdown(SHUTDOWN_GRACE));
    Ok(())
}
