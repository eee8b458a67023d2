//! The schema registry.

use std::sync::atomic::Ordering;

use crate::avro::registry::RegistryMetrics;
use crate::control::exposition::{Kind, Page};

pub(super) fn write(page: &mut Page, schemas: Option<&RegistryMetrics>) {
    let Some(schemas) = schemas else { return };
    let reachable = u8::from(schemas.is_reachable());
    let name = "tidegate_schema_registry_reachable";
    page.single(
        name,
        Kind::Gauge,
        "0 while the schema registry can't be reached, and what needs a schema waits.",
        reachable,
    );
    let name = "tidegate_schema_requests_total";
    page.family(name, Kind::Counter, "Questions to the schema registry.");
    for (outcome, count) in [("ok", &schemas.given), ("unusable", &schemas.unusable), ("failed", &schemas.failed)] {
        page.sample(name, &[("outcome", outcome)], count.load(Ordering::Relaxed));
    }
}
