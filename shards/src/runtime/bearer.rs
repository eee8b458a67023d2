//! Whose request it is, by its tokens.

use super::{World, tokens};
use crate::bearer::Bearer;

/// Of a connection call: the `jwt` parameter, or else a valid `Authorization`. An invalid header never refuses a connection.
///
/// # Errors
/// The reason why the parameter is refused.
pub(super) fn of_connection<'a>(
    _world: &World,
    jwt: Option<&str>,
    _authorization: impl Iterator<Item = &'a [u8]>,
) -> Result<Bearer, String> {
    match jwt {
        Some(_) => Err(tokens::JWT_REFUSED.to_owned()),
        None => Ok(Bearer::default()),
    }
}

/// Of a PUT of subscriptions: every `Bearer` token must be valid.
///
/// # Errors
/// The reason why the call is refused.
pub(super) fn of_put<'a>(_world: &World, mut authorization: impl Iterator<Item = &'a [u8]>) -> Result<Bearer, String> {
    if authorization.any(|value| value.starts_with(b"Bearer ")) {
        return Err(tokens::JWT_REFUSED.to_owned());
    }
    Ok(Bearer::default())
}
