//! Settings of the TLS ports, and of who may call the internal port.

use std::path::PathBuf;

use super::MAX_TIMEOUT_MS;
use super::values::Reader;
use crate::control::{Access, MIN_TOKEN_CHARACTERS};
use crate::tls::Configs;
use crate::tls::files::{CERTFILE, CLIENT_CA, Contents, KEYFILE, KEYFILE_PASS, TlsFiles};

/// The TLS ports.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// Port for clients; 0 takes a free one.
    pub inbound_port: u16,
    /// Port of the internal API; 0 takes a free one.
    pub internal_port: u16,
    /// Where certificates and keys are.
    pub files: TlsFiles,
    /// What the files held at the start.
    pub contents: Contents,
    /// What was made of it.
    pub configs: Configs,
    /// Seconds between two looks for changes of the files; 0 looks at SIGHUP only.
    pub reload_seconds: u64,
    /// Milliseconds that a handshake may take.
    pub handshake_timeout_ms: u64,
    /// Handshakes that may be in progress on this node.
    pub max_handshakes: usize,
}

/// Reads them; `None` without certificate. All are validated either way.
pub(super) fn tls(reader: &mut Reader<'_>) -> Option<TlsConfig> {
    let inbound_port = reader.port("INBOUND_HTTPS_PORT");
    let internal_port = reader.port("API_HTTPS_PORT");
    let reload_seconds = reader.number("HTTPS_RELOAD_SECONDS", 0..=86_400);
    let handshake_timeout_ms = reader.number("HTTPS_HANDSHAKE_TIMEOUT_MS", 100..=MAX_TIMEOUT_MS);
    let max_handshakes = reader.size("HTTPS_MAX_HANDSHAKES", 1..=1 << 20);
    let files = files(reader)?;
    let read = files.read().and_then(|contents| files.configs(&contents).map(|configs| (contents, configs)));
    match read {
        Ok((contents, configs)) => Some(TlsConfig {
            inbound_port,
            internal_port,
            files,
            contents,
            configs,
            reload_seconds,
            handshake_timeout_ms,
            max_handshakes,
        }),
        Err(problems) => {
            for problem in problems {
                reader.problem(problem.setting, problem.wrong, problem.remedy);
            }
            None
        }
    }
}

/// One key for all certificates, or as many keys as certificates.
fn files(reader: &mut Reader<'_>) -> Option<TlsFiles> {
    let (certificates, keys) = (reader.list(CERTFILE), reader.list(KEYFILE));
    let client_ca = reader.text(CLIENT_CA).map(PathBuf::from);
    if certificates.is_empty() {
        if !keys.is_empty() {
            reader.problem(KEYFILE, "HTTPS_CERTFILE is missing", "Please also set HTTPS_CERTFILE to enable HTTPS.");
        }
        if client_ca.is_some() {
            let remedy = "Please also set HTTPS_CERTFILE and HTTPS_KEYFILE";
            reader.problem(CLIENT_CA, "only TLS connections have client certificates", remedy);
        }
        if reader.values().is_set(KEYFILE_PASS) && keys.is_empty() {
            reader.problem(KEYFILE_PASS, "HTTPS_KEYFILE is missing", "Please also set HTTPS_KEYFILE to enable HTTPS.");
        }
        return None;
    }
    if keys.is_empty() {
        reader.problem(CERTFILE, "HTTPS_KEYFILE is missing", "Please also set HTTPS_KEYFILE to enable HTTPS.");
        return None;
    }
    if keys.len() != 1 && keys.len() != certificates.len() {
        let wrong = format!("{} keys for {} certificates", keys.len(), certificates.len());
        reader.problem(KEYFILE, wrong, "List one key for each certificate in the same order, or one for all");
        return None;
    }
    let keys = keys.iter().cycle().map(PathBuf::from);
    let pairs = certificates.iter().map(PathBuf::from).zip(keys).collect();
    Some(TlsFiles { pairs, passphrase: reader.text(KEYFILE_PASS), client_ca })
}

/// Port of the plain internal API; `None` where it is off, or where client certificates are asked for, which it couldn't.
pub(super) fn plain_internal_port(reader: &mut Reader<'_>) -> Option<u16> {
    const OFF: &str = "off";
    if reader.text("API_HTTP_PORT").is_some_and(|text| text.eq_ignore_ascii_case(OFF)) {
        if reader.list(CERTFILE).is_empty() {
            let remedy = "Give a port, or set HTTPS_CERTFILE and HTTPS_KEYFILE";
            reader.problem("API_HTTP_PORT", "without TLS it is the only way to reach the internal API", remedy);
        }
        return None;
    }
    let port = reader.port("API_HTTP_PORT");
    (!reader.values().is_set(CLIENT_CA)).then_some(port)
}

/// Who may call the internal port.
pub(super) fn access(reader: &mut Reader<'_>) -> Access {
    let token = reader.text("INTERNAL_TOKEN");
    if token.as_ref().is_some_and(|token| token.chars().count() < MIN_TOKEN_CHARACTERS) {
        let remedy = "Use a random one, for example from `openssl rand -hex 32`";
        reader.problem("INTERNAL_TOKEN", format!("shorter than {MIN_TOKEN_CHARACTERS} characters"), remedy);
    }
    if token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
        reader.problem("INTERNAL_TOKEN", "it can't stand in a header", "Use letters, digits and punctuation of ASCII");
    }
    Access::new(token.as_deref(), reader.switch("INTERNAL_HEALTH_OPEN"))
}
