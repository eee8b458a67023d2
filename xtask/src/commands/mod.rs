//! One module per command.

pub(crate) mod bench_report;
pub(crate) mod chaos;
pub(crate) mod kafka;
pub(crate) mod licences;
pub(crate) mod simulate;
pub(crate) mod smoke;
pub(crate) mod test;
