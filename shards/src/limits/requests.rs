//! How many requests a client may send: for each address, and for each credential, whoever uses it.

use std::net::IpAddr;

use super::LimitSettings;
use super::rate::{Rate, RateTable, TooMany, client_key};

/// Credentials of one request that are looked at; one that brings more is limited by these.
const MAX_CREDENTIALS: usize = 8;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// Its address sends too many (`MAX_REQUESTS_PER_SECOND_PER_ADDRESS`).
    Address(TooMany),
    /// Its credential does (`MAX_REQUESTS_PER_SECOND_PER_TOKEN`).
    Token(TooMany),
}

impl Limited {
    /// The answer's text.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Address(_) => "Too many requests from this address.",
            Self::Token(_) => "Too many requests with this token.",
        }
    }

    /// Value of `retry-after`, in seconds.
    #[must_use]
    pub fn retry_after_s(self) -> u64 {
        match self {
            Self::Address(too_many) | Self::Token(too_many) => too_many.retry_after_s(),
        }
    }
}

/// The buckets of one shard; none where there is no limit.
#[derive(Debug)]
pub struct RequestRates {
    addresses: Option<RateTable>,
    tokens: Option<RateTable>,
}

impl RequestRates {
    /// Full ones.
    #[must_use]
    pub fn new(settings: &LimitSettings) -> Self {
        let table = |per_second: u32| {
            let burst = u64::from(per_second) * u64::from(settings.request_burst_s);
            (per_second > 0).then(|| RateTable::new(Rate::new(per_second, 1_000, burst)))
        };
        Self { addresses: table(settings.requests_per_address), tokens: table(settings.requests_per_token) }
    }

    /// Whether nothing is limited.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.addresses.is_none() && self.tokens.is_none()
    }

    /// Counts a request at `now_us`. `client` is its address, unless that is a trusted proxy's; `authorization` are the values
    /// of that field, `query` what follows the `?`: a token may be there (`jwt`).
    ///
    /// # Errors
    /// [`Limited`]; the request must not be served.
    pub fn take<'a>(
        &mut self,
        client: Option<IpAddr>,
        authorization: impl Iterator<Item = &'a [u8]>,
        query: Option<&'a str>,
        now_us: u64,
    ) -> Result<(), Limited> {
        if let (Some(addresses), Some(client)) = (&mut self.addresses, client) {
            addresses.take(client_key(client), now_us).map_err(Limited::Address)?;
        }
        let Some(tokens) = &mut self.tokens else { return Ok(()) };
        let in_query =
            query.into_iter().flat_map(|query| query.split('&')).filter_map(|pair| pair.strip_prefix("jwt="));
        for credential in credentials(authorization).chain(in_query.map(str::as_bytes)).take(MAX_CREDENTIALS) {
            tokens.take(credential, now_us).map_err(Limited::Token)?;
        }
        Ok(())
    }
}

/// The credentials in the values of `authorization`, without their schemes: one token has one bucket, however it is written.
fn credentials<'a>(values: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    values
        .flat_map(|value| value.split(|byte| *byte == b','))
        .filter_map(|one| one.split(u8::is_ascii_whitespace).rfind(|word| !word.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(requests_per_address: u32, requests_per_token: u32) -> RequestRates {
        let settings =
            LimitSettings { requests_per_address, requests_per_token, request_burst_s: 1, ..LimitSettings::default() };
        RequestRates::new(&settings)
    }

    fn take(rates: &mut RequestRates, address: &str, authorization: &[&str], query: Option<&str>) -> bool {
        let values = authorization.iter().map(|value| value.as_bytes());
        rates.take(Some(address.parse().unwrap()), values, query, 0).is_ok()
    }

    #[test]
    fn without_limits_everything_passes() {
        let mut rates = rates(0, 0);
        assert!(rates.is_unlimited());
        assert!((0..1_000).all(|_| take(&mut rates, "192.0.2.1", &["Bearer a"], None)));
    }

    #[test]
    fn an_address_has_its_requests_whatever_its_credentials() {
        let mut rates = rates(2, 0);
        assert!(take(&mut rates, "192.0.2.1", &["Bearer a"], None));
        assert!(take(&mut rates, "192.0.2.1", &["Bearer b"], None));
        assert!(!take(&mut rates, "192.0.2.1", &["Bearer c"], None));
        assert!(take(&mut rates, "192.0.2.2", &["Bearer a"], None));
        let nobody = rates.take(None, std::iter::empty(), None, 0);
        assert_eq!(nobody, Ok(()), "a trusted proxy isn't limited");
    }

    #[test]
    fn a_token_has_its_requests_from_wherever_and_however_it_is_sent() {
        let mut rates = rates(0, 4);
        assert!(take(&mut rates, "192.0.2.1", &["Bearer secret"], None));
        assert!(take(&mut rates, "192.0.2.2", &["bearer   secret"], None));
        assert!(take(&mut rates, "192.0.2.3", &["Bearer other", "secret "], None));
        assert!(take(&mut rates, "192.0.2.4", &["Bearer another, Bearer secret"], None));
        assert!(!take(&mut rates, "192.0.2.5", &[], Some("a=b&jwt=secret")));
        assert!(take(&mut rates, "192.0.2.5", &[], Some("a=b&jwt=yet-another")));
        assert!((0..10).all(|_| take(&mut rates, "192.0.2.5", &[], None)), "no token, no limit");
    }
}
