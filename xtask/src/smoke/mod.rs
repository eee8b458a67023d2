//! Short runs of what is too long for a test: every benchmark once, every load scenario, and the demo as the README
//! starts it.

mod benchmarks;
mod demo;
mod load;
mod process;

pub use benchmarks::benchmarks;
pub use demo::demo;
pub use load::load;
