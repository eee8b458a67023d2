//! What a token costs: found again, and verified for the first time, beside the crypto library's bare verification.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use tidegate_bench::signed::{NOW_S, Signed};
use tidegate_shards::auth::algorithm::Algorithm;

fn tokens(criterion: &mut Criterion) {
    let signed = Signed::new(Algorithm::Hs256);
    let cached = signed.verifier(1 << 20);
    criterion.bench_function("token check cached", |bencher| {
        bencher.iter(|| cached.verify(black_box(&signed.token), NOW_S).expect("it is valid"));
    });
    for algorithm in [Algorithm::Hs256, Algorithm::Rs256, Algorithm::Es256] {
        let signed = Signed::new(algorithm);
        let uncached = signed.verifier(0);
        criterion.bench_function(&format!("token check {algorithm}"), |bencher| {
            bencher.iter(|| uncached.verify(black_box(&signed.token), NOW_S).expect("it is valid"));
        });
        criterion.bench_function(&format!("bare {algorithm}"), |bencher| {
            bencher.iter(|| black_box(&signed).verify_bare().expect("it is valid"));
        });
    }
}

criterion_group!(benches, tokens);
criterion_main!(benches);
