//! Who may subscribe and publish (`SUBSCRIPTION_CHECK`, `SUBMISSION_CHECK`; contract, section 2).

use std::collections::VecDeque;

use ahash::RandomState;
use hashbrown::HashMap;
use http::Uri;

use super::key::fingerprint;
use crate::proxy::endpoint::Backend;

/// Answers of one shard that are kept.
const MAX_KEPT: usize = 4_096;

/// What somebody must show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Nothing (`no_check`).
    Nobody,
    /// A valid token (`jwt_validation`).
    Token,
    /// Whatever the service behind this URL wants to see.
    Url(CheckUrl),
}

/// A URL that is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckUrl {
    /// Where the service listens.
    pub backend: Backend,
    /// Path and query, in their case.
    pub path: Box<str>,
}

impl Check {
    /// Reads a setting.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("no_check") {
            return Ok(Self::Nobody);
        }
        if text.eq_ignore_ascii_case("jwt_validation") {
            return Ok(Self::Token);
        }
        if !text.contains("://") {
            return Err("unknown check".to_owned());
        }
        CheckUrl::parse(text).map(Self::Url)
    }
}

impl CheckUrl {
    /// Reads a URL of HTTP.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|error| format!("not a URL ({error})"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err("a URL starts with http:// or https://".to_owned()),
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        let host = authority.ok_or("a URL here has a host and no user name")?.host().trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self { backend: Backend { tls, host: host.into(), port, http2: false }, path: path.into() })
    }
}

/// A question to a URL, as far as the answer may depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Question([u8; 32]);

impl Question {
    /// The question with these parts.
    #[must_use]
    pub fn new(url: &CheckUrl, content_type: &[u8], authorization: Option<&[u8]>, body: &[u8]) -> Self {
        let parts =
            [url.backend.host.as_bytes(), url.path.as_bytes(), content_type, authorization.unwrap_or_default(), body];
        let port =
            [url.backend.port.to_be_bytes(), [u8::from(url.backend.tls), u8::from(authorization.is_some())]].concat();
        let lengths: Vec<u8> = parts.iter().flat_map(|part| (part.len() as u64).to_be_bytes()).collect();
        Self(fingerprint([lengths.as_slice(), &port].into_iter().chain(parts)))
    }
}

/// Answers that are still good.
#[derive(Debug, Default)]
pub struct Answers {
    by_question: HashMap<Question, (bool, u64), RandomState>,
    /// In the order of their ends.
    ends: VecDeque<Question>,
}

impl Answers {
    /// The answer to a question, if it still counts at `now_ms`.
    #[must_use]
    pub fn get(&self, question: Question, now_ms: u64) -> Option<bool> {
        self.by_question.get(&question).filter(|(_, until_ms)| now_ms < *until_ms).map(|(allowed, _)| *allowed)
    }

    /// Keeps an answer until `until_ms`; the oldest goes where there are too many.
    pub fn keep(&mut self, question: Question, allowed: bool, until_ms: u64) {
        if self.by_question.insert(question, (allowed, until_ms)).is_some() {
            return;
        }
        self.ends.push_back(question);
        if self.ends.len() > MAX_KEPT
            && let Some(oldest) = self.ends.pop_front()
        {
            self.by_question.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_a_word_in_any_case_or_a_url_in_its_own() {
        assert_eq!(Check::parse("NO_CHECK"), Ok(Check::Nobody));
        assert_eq!(Check::parse("Jwt_Validation"), Ok(Check::Token));
        let Ok(Check::Url(url)) = Check::parse("https://Auth.example:8443/May/I?x=Y") else { panic!("a URL") };
        assert_eq!((&*url.path, url.backend.port, url.backend.tls), ("/May/I?x=Y", 8443, true));
        let Ok(Check::Url(url)) = Check::parse("http://[::1]") else { panic!("a URL") };
        assert_eq!((&*url.backend.host, &*url.path, url.backend.port), ("::1", "/", 80));
        for bad in ["", "yes", "ftp://x/", "http://", "http://user@host/", "http://a b/"] {
            assert!(Check::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_answer_counts_for_its_question_and_its_time_only() {
        let url = CheckUrl::parse("http://localhost/a").unwrap();
        let question = Question::new(&url, b"application/json", Some(b"Bearer x"), b"{}");
        let mut answers = Answers::default();
        answers.keep(question, true, 10);
        assert_eq!((answers.get(question, 9), answers.get(question, 10)), (Some(true), None));
        for other in [
            Question::new(&url, b"application/json", Some(b"Bearer y"), b"{}"),
            Question::new(&url, b"application/json", None, b"{}"),
            Question::new(&url, b"application/jso", Some(b"nBearer x"), b"{}"),
        ] {
            assert_eq!(answers.get(other, 0), None);
        }
    }

    #[test]
    fn a_flood_of_questions_keeps_a_bounded_number() {
        let url = CheckUrl::parse("http://localhost/a").unwrap();
        let mut answers = Answers::default();
        for number in 0..3 * MAX_KEPT as u64 {
            answers.keep(Question::new(&url, b"", None, &number.to_be_bytes()), false, 10);
        }
        assert_eq!((answers.by_question.len(), answers.ends.len()), (MAX_KEPT, MAX_KEPT));
    }
}
