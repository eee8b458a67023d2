//! What Tidegate costs, beside what it can't cost less than.
//!
//! A tour: the criterion benchmarks in `benches/` measure one part each, in the same group as its **floor**: the least work
//! that any program must do for the same effect (a copy of the same bytes, a `send` on the same sockets, one look-up in a
//! hash map). [`samples`] makes their events and [`subscribers`] their index, [`floor`] holds the floors, [`fan_out`] drives a production shard by hand.
//!
//! [`figures`] measures whole processes: the real `tidegate` on one core, the load generator on another, and in turn with
//! it a floor program that does the same with bare system calls. The binary `tidegate-figures` runs it for
//! `cargo xtask bench-report`.

pub mod fan_out;
pub mod figures;
pub mod floor;
pub mod samples;
pub mod signed;
pub mod subscribers;
