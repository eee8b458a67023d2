//! Tokens in the heads of requests.

/// Credentials of one request that are looked at: more are somebody's attempt to make work.
pub const MAX_CREDENTIALS: usize = 8;

/// The `Bearer` tokens of all `authorization` fields, each of which may hold several, separated by commas.
pub fn bearer<'a>(fields: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a str> {
    parts(fields).filter_map(|part| part.strip_prefix("Bearer ")).map(str::trim).take(MAX_CREDENTIALS)
}

/// All tokens of these fields, bare or behind `Bearer` in any case.
pub fn any<'a>(fields: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a str> {
    let token = |part: &'a str| match part.split_once(' ') {
        Some((scheme, token)) => scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()),
        None => Some(part),
    };
    parts(fields).filter_map(token).filter(|token| !token.is_empty()).take(MAX_CREDENTIALS)
}

/// The values of the cookie `name` in all `cookie` fields.
pub fn cookie<'a>(fields: impl Iterator<Item = &'a [u8]>, name: &str) -> impl Iterator<Item = &'a str> {
    let pairs = fields.filter_map(|field| std::str::from_utf8(field).ok()).flat_map(|field| field.split(';'));
    let values = pairs.filter_map(move |pair| pair.trim().strip_prefix(name)?.strip_prefix('='));
    values.map(|value| value.trim_matches('"')).filter(|value| !value.is_empty()).take(MAX_CREDENTIALS)
}

fn parts<'a>(fields: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a str> {
    fields.filter_map(|field| std::str::from_utf8(field).ok()).flat_map(|field| field.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields<'a>(values: &'a [&'a str]) -> impl Iterator<Item = &'a [u8]> {
        values.iter().map(|value| value.as_bytes())
    }

    #[test]
    fn several_credentials_in_several_fields_are_all_found() {
        let values = ["Bearer a, Bearer b", "Basic x", "bearer c", "d", "Bearer  e "];
        assert_eq!(bearer(fields(&values)).collect::<Vec<_>>(), ["a", "b", "e"]);
        assert_eq!(any(fields(&values)).collect::<Vec<_>>(), ["a", "b", "c", "d", "e"]);
    }

    #[test]
    fn no_more_than_a_few_credentials_are_looked_at() {
        let many = "Bearer a,".repeat(1_000);
        assert_eq!(bearer(fields(&[&many])).count(), MAX_CREDENTIALS);
        assert_eq!(any(fields(&[&many])).count(), MAX_CREDENTIALS);
    }

    #[test]
    fn a_token_is_found_in_its_cookie_and_in_no_other() {
        let values = ["a=1; token=\"x\"; tokens=y", "TOKEN=z;token=w; token="];
        assert_eq!(cookie(fields(&values), "token").collect::<Vec<_>>(), ["x", "w"]);
    }
}
