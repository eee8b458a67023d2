//! Which web sites may use the gateway: what `access-control-allow-origin` says to their pages (Fetch standard, "CORS
//! protocol"), and whose pages may open WebSockets, which browsers let every page do (RFC 6455, section 10.2).

/// Why a text is no origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an origin is a scheme and a host, such as https://shop.example or http://localhost:8080, without a path")]
pub struct NotAnOrigin;

/// An origin as browsers write it: in lower case, without the scheme's own port (RFC 6454, section 6.1).
///
/// # Errors
/// [`NotAnOrigin`] for anything else than `scheme://host`, `scheme://host:port` or `null`.
pub fn normalised(text: &str) -> Result<Box<str>, NotAnOrigin> {
    let origin = text.to_ascii_lowercase();
    if origin == "null" {
        return Ok(origin.into());
    }
    let (scheme, authority) = origin.split_once("://").ok_or(NotAnOrigin)?;
    let is_host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:%".contains(&byte);
    let scheme_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    if scheme.is_empty() || !scheme.bytes().all(scheme_byte) {
        return Err(NotAnOrigin);
    }
    let port = match scheme {
        "http" | "ws" => ":80",
        "https" | "wss" => ":443",
        _ => "",
    };
    let host = if port.is_empty() { authority } else { authority.strip_suffix(port).unwrap_or(authority) };
    if host.is_empty() || host.starts_with(':') || !host.bytes().all(is_host_byte) {
        return Err(NotAnOrigin);
    }
    Ok(format!("{scheme}://{host}").into())
}

fn list(text: &str) -> Result<Box<[Box<str>]>, NotAnOrigin> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(normalised).collect()
}

fn is_listed(listed: &[Box<str>], origin: &[u8]) -> bool {
    listed.iter().any(|entry| entry.as_bytes().eq_ignore_ascii_case(origin))
}

/// What Tidegate's own answers say to pages of other sites (`CORS`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cors {
    /// The same to all of them.
    Fixed(Box<str>),
    /// The origin that asks, if it is one of these.
    Listed(Box<[Box<str>]>),
}

/// The header fields that follow from it for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorsAnswer<'a> {
    /// Value of `access-control-allow-origin`; none where the origin isn't listed.
    pub allow: Option<&'a str>,
    /// The answer depends on the origin: caches must know (`vary: origin`).
    pub varies: bool,
}

impl Cors {
    /// One value is taken as it is; several, with commas between, are a list of origins.
    ///
    /// # Errors
    /// [`NotAnOrigin`] where an entry of a list is none.
    pub fn parse(text: &str) -> Result<Self, NotAnOrigin> {
        if text.contains(',') { list(text).map(Self::Listed) } else { Ok(Self::Fixed(text.into())) }
    }

    /// For a request with this `origin`.
    #[must_use]
    pub fn answer(&self, origin: Option<&[u8]>) -> CorsAnswer<'_> {
        match self {
            Self::Fixed(value) => CorsAnswer { allow: Some(value), varies: false },
            Self::Listed(listed) => {
                let entry =
                    origin.and_then(|origin| listed.iter().find(|entry| entry.as_bytes().eq_ignore_ascii_case(origin)));
                CorsAnswer { allow: entry.map(|entry| &**entry), varies: true }
            }
        }
    }

    /// The same as lines of a head.
    #[must_use]
    pub fn lines(&self, origin: Option<&[u8]>) -> String {
        let CorsAnswer { allow, varies } = self.answer(origin);
        let mut lines = String::new();
        if let Some(allow) = allow {
            lines = format!("access-control-allow-origin: {allow}\r\n");
        }
        if varies {
            lines.push_str("vary: origin\r\n");
        }
        lines
    }
}

/// Whose pages may open WebSockets (`ALLOWED_ORIGINS`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// Everybody's.
    Any,
    /// Those of these sites, and programs that are no browsers.
    Listed(Box<[Box<str>]>),
}

impl AllowedOrigins {
    /// A list with commas between; an empty one, or `*`, allows all.
    ///
    /// # Errors
    /// [`NotAnOrigin`] where an entry is none.
    pub fn parse(text: &str) -> Result<Self, NotAnOrigin> {
        if matches!(text.trim(), "" | "*") { Ok(Self::Any) } else { list(text).map(Self::Listed) }
    }

    /// Whether a WebSocket may be opened by a request with these values of `origin`. Every browser sends one, and no page
    /// can change it; a request without comes from another program, which could send any.
    pub fn allows<'a>(&self, mut origins: impl Iterator<Item = &'a [u8]>) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(listed) => origins.all(|origin| is_listed(listed, origin)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_written_as_browsers_write_it() {
        for (text, origin) in [
            ("https://Shop.Example", "https://shop.example"),
            ("https://shop.example:443", "https://shop.example"),
            ("http://shop.example:80", "http://shop.example"),
            ("http://shop.example:443", "http://shop.example:443"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("null", "null"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ] {
            assert_eq!(normalised(text).as_deref(), Ok(origin));
        }
        for text in ["shop.example", "https://", "https://a/", "https://a b", "://a", "https://:80", "*", "https://a?b"]
        {
            assert_eq!(normalised(text), Err(NotAnOrigin), "{text}");
        }
    }

    #[test]
    fn one_cors_value_is_sent_as_it_is() {
        for value in ["*", "https://shop.example", "anything at all"] {
            let cors = Cors::parse(value).unwrap();
            assert_eq!(cors.answer(Some(b"https://other.example")), CorsAnswer { allow: Some(value), varies: false });
        }
    }

    #[test]
    fn of_several_origins_the_one_that_asks_is_sent() {
        let cors = Cors::parse("https://a.example, https://B.example:443").unwrap();
        for (origin, allow) in [
            (Some("https://a.example"), Some("https://a.example")),
            (Some("https://b.example"), Some("https://b.example")),
            (Some("https://c.example"), None),
            (Some("https://a.example.evil.example"), None),
            (None, None),
        ] {
            assert_eq!(cors.answer(origin.map(str::as_bytes)), CorsAnswer { allow, varies: true }, "{origin:?}");
        }
        assert_eq!(cors.lines(None), "vary: origin\r\n");
        let lines = cors.lines(Some(b"https://a.example"));
        assert_eq!(lines, "access-control-allow-origin: https://a.example\r\nvary: origin\r\n");
        assert_eq!(Cors::parse("https://a.example, *"), Err(NotAnOrigin));
    }

    #[test]
    fn web_sockets_are_for_listed_origins_and_for_programs_without_one() {
        let allowed = AllowedOrigins::parse("https://a.example").unwrap();
        let allows = |origins: &[&'static str]| allowed.allows(origins.iter().map(|origin| origin.as_bytes()));
        assert!(allows(&[]));
        assert!(allows(&["https://a.example"]));
        assert!(!allows(&["https://evil.example"]));
        assert!(!allows(&["null"]));
        assert!(!allows(&["https://a.example", "https://evil.example"]));
        assert!(!allows(&["https://a.example.evil.example"]));
        assert!(!allows(&["http://a.example"]));
        for any in ["", "*"] {
            assert!(AllowedOrigins::parse(any).unwrap().allows([&b"https://evil.example"[..]].into_iter()));
        }
    }
}
