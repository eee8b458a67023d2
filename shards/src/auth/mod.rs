//! Who may: tokens are verified (JSON Web Tokens, RFC 7519, in the compact form of RFC 7515), credentials found in requests.
//!
//! [`credentials`] finds tokens in a request. A [`Verifier`] takes one: [`compact`] takes it apart within limits, an
//! [`Issuer`](settings::Issuer) says what it must claim and which [`key`] may have signed it, [`cache`] remembers those that
//! passed. Keys are secrets, or come from [`pem`] and [`jwk`]. A [`check`] says who may subscribe and publish.
//!
//! No algorithm is taken from a token: each key has its own, and a token that names another one is refused.

pub mod algorithm;
pub mod cache;
pub mod check;
pub mod compact;
pub mod credentials;
mod der;
pub mod jwk;
pub mod key;
pub mod pem;
mod refusal;
pub mod settings;
mod verified;
mod verifier;

pub use self::refusal::TokenRefusal;
pub use self::verified::{SessionList, Verified};
pub use self::verifier::Verifier;
