//! The rules that decide where a request ends (RFC 9112 §6), read so that nobody can read them differently.

use super::{HeadError, HttpVersion};

/// How long the body of a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// Neither `content-length` nor `transfer-encoding`: no body.
    None,
    /// `content-length`, in bytes.
    Bytes(u64),
    /// `transfer-encoding: chunked`.
    Chunked,
}

/// Checks the fields that frame a request and name its host.
pub(super) fn check(headers: &[httparse::Header<'_>], version: HttpVersion) -> Result<BodyLength, HeadError> {
    let mut body = BodyLength::None;
    let mut host = None;
    for header in headers {
        let value = header.value.trim_ascii();
        if header.name.eq_ignore_ascii_case("content-length") {
            body = match body {
                BodyLength::None => BodyLength::Bytes(content_length(value)?),
                BodyLength::Bytes(_) => return Err(HeadError::ContentLength),
                BodyLength::Chunked => return Err(HeadError::TransferEncoding),
            };
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            let alone = body == BodyLength::None && version == HttpVersion::Http11;
            if !alone || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(HeadError::TransferEncoding);
            }
            body = BodyLength::Chunked;
        } else if header.name.eq_ignore_ascii_case("host") && host.replace(value).is_some() {
            return Err(HeadError::Host);
        }
    }
    match host {
        Some(value) if is_host(value) => Ok(body),
        None if version == HttpVersion::Http10 => Ok(body),
        _ => Err(HeadError::Host),
    }
}

/// Digits alone: no sign, no list, no more than an `u64` holds.
fn content_length(value: &[u8]) -> Result<u64, HeadError> {
    if value.is_empty() {
        return Err(HeadError::ContentLength);
    }
    value.iter().try_fold(0_u64, |length, &digit| {
        if !digit.is_ascii_digit() {
            return Err(HeadError::ContentLength);
        }
        length
            .checked_mul(10)
            .and_then(|length| length.checked_add(u64::from(digit - b'0')))
            .ok_or(HeadError::ContentLength)
    })
}

/// The characters of `uri-host [ ":" port ]` (RFC 9110 §7.2), without the comma, which would make a list of it.
fn is_host(value: &[u8]) -> bool {
    value.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=:[]%".contains(&byte))
}
