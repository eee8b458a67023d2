//! What TLS adds to a connection: memory while it is idle, and CPU to open it.

use std::process::Stdio;

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tidegate_load::{Report, Scenario, Target, Transport, Workload};
use xtask::report::{Bound, Finding, Unit};

use super::context::{Context, faults, server_cpu_s};
use super::error::FigureError;
use super::process::Server;

const IDLE_CONNECTIONS: u32 = 10_000;
const CONCURRENCY: u32 = 128;

/// A Tidegate with a certificate whose key is ECDSA P-256.
struct Secure {
    server: Server,
    /// Address of the TLS port, `https://127.0.0.1:PORT`.
    url: String,
    _files: TempDir,
}

fn start(context: &Context) -> Result<Secure, FigureError> {
    let invalid = |error: rcgen::Error| FigureError::Invalid(format!("no certificate could be made: {error}"));
    let files = tempfile::tempdir().map_err(FigureError::system("making a folder"))?;
    let key = KeyPair::generate().map_err(invalid)?;
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).map_err(invalid)?;
    let certificate = params.self_signed(&key).map_err(invalid)?;
    let write = |name: &str, text: String| {
        let path = files.path().join(name);
        std::fs::write(&path, text).map_err(FigureError::system("writing a certificate"))?;
        Ok::<_, FigureError>(path.to_string_lossy().into_owned())
    };
    let settings = [
        ("HTTPS_CERTFILE", write("certificate.pem", certificate.pem())?),
        ("HTTPS_KEYFILE", write("key.pem", key.serialize_pem())?),
        ("INBOUND_HTTPS_PORT", "0".to_owned()),
        ("API_HTTPS_PORT", "0".to_owned()),
        ("LOG_LEVEL", "error".to_owned()),
    ];
    let server = context.tidegate_saying(&settings, Stdio::null(), secure_address_in)?;
    Ok(Secure { url: server.url().to_owned(), server, _files: files })
}

/// The TLS address in the line for scripts, `tidegate ready … inbound-tls=127.0.0.1:4001 …`.
fn secure_address_in(line: &str) -> Option<String> {
    let rest = line.strip_prefix("tidegate ready ")?;
    let address = rest.split_whitespace().find_map(|word| word.strip_prefix("inbound-tls="))?;
    Some(format!("https://{address}"))
}

pub(super) fn idle(context: &Context) -> Result<Vec<Finding>, FigureError> {
    let mut findings = Vec::new();
    for (transport, name, kind) in
        [(Transport::Ws, "memory-tls-ws", "WebSocket"), (Transport::Sse, "memory-tls-sse", "event stream")]
    {
        let mut memory = Finding::new(
            name,
            &format!("Memory per idle TLS 1.3 connection, 10,000 of kind {kind}: growth of RSS for each"),
            Bound::Below(12.0),
            Unit::Kibibytes,
        );
        let plain = memory_of(context, &context.tidegate(&[])?, None, transport)?;
        let secure = start(context)?;
        let (bytes, report) = memory_of(context, &secure.server, Some(&secure.url), transport)?;
        memory.values.push(bytes / 1024.0);
        memory.details.push(format!("{:.2} KiB; plain {:.2} KiB", bytes / 1024.0, plain.0 / 1024.0));
        memory.problems.extend(faults("tidegate with TLS", &report));
        memory.problems.extend(faults("tidegate", &plain.1));
        findings.push(memory);
    }
    Ok(findings)
}

fn memory_of(
    context: &Context,
    server: &Server,
    url: Option<&str>,
    transport: Transport,
) -> Result<(f64, Report), FigureError> {
    // At least one heartbeat each: their period is 15 s.
    let workload = Workload::Idle { connections: IDLE_CONNECTIONS, duration_s: context.pick(31.0, 16.0) };
    let target = Target::new(url.unwrap_or(server.url()), transport);
    let report = context.load(Scenario::new(workload, target), server)?;
    let usage = report.server.as_ref();
    let usage = usage.ok_or_else(|| FigureError::Invalid("the server's process was not observed".to_owned()))?;
    Ok((usage.rss_per_connection_bytes(u64::from(IDLE_CONNECTIONS)), report))
}

pub(super) fn handshakes(context: &Context) -> Result<Vec<Finding>, FigureError> {
    let mut finding = Finding::new(
        "tls-handshakes",
        "Full TLS 1.3 handshakes (ECDSA P-256, X25519) with a WebSocket and a subscription, per CPU-second, of the same without \
         TLS",
        Bound::AtLeast(0.0),
        Unit::Ratio,
    );
    let (plain_total, secure_total) = context.pick((40_000, 20_000), (10_000, 3_000));
    for _ in 0..context.pick(3, 1) {
        let plain_server = context.tidegate(&[])?;
        let plain = churn(context, &plain_server, plain_server.url(), plain_total)?;
        drop(plain_server);
        let secure_server = start(context)?;
        let secure = churn(context, &secure_server.server, &secure_server.url, secure_total)?;
        let plain_rate = plain_total as f64 / server_cpu_s(&plain)?;
        let secure_rate = secure_total as f64 / server_cpu_s(&secure)?;
        finding.values.push(secure_rate / plain_rate);
        finding.details.push(format!("{secure_rate:.0} a second and core; plain {plain_rate:.0}"));
        finding.problems.extend(faults("tidegate with TLS", &secure));
        finding.problems.extend(faults("tidegate", &plain));
    }
    Ok(vec![finding])
}

fn churn(context: &Context, server: &Server, url: &str, total: u64) -> Result<Report, FigureError> {
    let workload = Workload::Churn { total, concurrency: CONCURRENCY, reset: false };
    let mut scenario = Scenario::new(workload, Target::new(url, Transport::Ws));
    scenario.limits.run_timeout_s = context.pick(300.0, 60.0);
    context.load(scenario, server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tls_address_is_found_in_the_line_for_scripts() {
        let line =
            "tidegate ready inbound=127.0.0.1:1 internal=127.0.0.1:2 inbound-tls=127.0.0.1:3 internal-tls=127.0.0.1:4";
        assert_eq!(secure_address_in(line).as_deref(), Some("https://127.0.0.1:3"));
        assert_eq!(secure_address_in("tidegate ready inbound=127.0.0.1:1 internal=127.0.0.1:2"), None);
    }
}
