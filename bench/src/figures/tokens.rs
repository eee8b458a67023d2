//! Checks of a token: one that is known, and new ones beside the crypto library's bare verification.

use std::hint::black_box;
use std::time::{Duration, Instant};

use tidegate_shards::auth::algorithm::Algorithm;
use xtask::report::{Bound, Finding, Unit};

use super::context::Context;
use super::cpu;
use super::error::FigureError;
use crate::signed::{NOW_S, Signed};

const ROUNDS: usize = 5;
const CACHE_BYTES: usize = 1 << 20;
/// Checks between two looks at the clock.
const TURN: u32 = 16;

pub(super) fn checks(context: &Context) -> Result<Vec<Finding>, FigureError> {
    let span = Duration::from_millis(context.pick(500, 50));
    cpu::bound_to(cpu::SERVER, || {
        let mut findings = vec![cached(span)?];
        for (algorithm, name, bound) in [
            (Algorithm::Hs256, "token-hs256", 10.0),
            (Algorithm::Rs256, "token-rs256", 1.25),
            (Algorithm::Es256, "token-es256", 1.25),
        ] {
            findings.push(uncached(algorithm, name, bound, span)?);
        }
        Ok(findings)
    })
}

fn cached(span: Duration) -> Result<Finding, FigureError> {
    let mut finding =
        Finding::new("token-cached", "Check of a token that is known", Bound::Below(1_000.0), Unit::Nanoseconds);
    let signed = Signed::new(Algorithm::Rs256);
    let verifier = signed.verifier(CACHE_BYTES);
    for _ in 0..ROUNDS {
        finding.values.push(each_ns(span, || verifier.verify(black_box(&signed.token), NOW_S).is_ok())?);
    }
    finding.details.push(format!("RS256, {} bytes, {ROUNDS} rounds of {span:?}", signed.token.len()));
    Ok(finding)
}

fn uncached(algorithm: Algorithm, name: &str, bound: f64, span: Duration) -> Result<Finding, FigureError> {
    let mut finding = Finding::new(
        name,
        &format!("Check of a new {algorithm} token, claims and all, in times of ring's verification of its signature"),
        Bound::Below(bound),
        Unit::Ratio,
    );
    let signed = Signed::new(algorithm);
    // Without memory, every token is new.
    let verifier = signed.verifier(0);
    for _ in 0..ROUNDS {
        let ours_ns = each_ns(span, || verifier.verify(black_box(&signed.token), NOW_S).is_ok())?;
        let bare_ns = each_ns(span, || black_box(&signed).verify_bare().is_ok())?;
        finding.values.push(ours_ns / bare_ns);
        finding.details.push(format!("{:.2} µs; ring {:.2} µs", ours_ns / 1e3, bare_ns / 1e3));
    }
    Ok(finding)
}

/// What one check takes, in nanoseconds, repeated for `span`.
fn each_ns(span: Duration, check: impl Fn() -> bool) -> Result<f64, FigureError> {
    let (began, mut checks) = (Instant::now(), 0_u32);
    while began.elapsed() < span {
        for _ in 0..TURN {
            if !check() {
                return Err(FigureError::Invalid("a good token was refused".to_owned()));
            }
        }
        checks += TURN;
    }
    Ok(began.elapsed().as_nanos() as f64 / f64::from(checks))
}
