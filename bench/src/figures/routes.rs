//! A request finds its endpoint among a thousand definitions.

use std::hint::black_box;
use std::time::Instant;

use http::Method;
use serde_json::json;
use tidegate_shards::proxy::counts::RequestCounters;
use tidegate_shards::proxy::definition::{Definition, Surroundings};
use tidegate_shards::proxy::table::ApiTable;
use xtask::report::{Bound, Finding, Unit};

use super::context::Context;
use super::cpu;
use super::error::FigureError;

const DEFINITIONS: usize = 1_000;
const ROUNDS: usize = 5;

pub(super) fn route_match(context: &Context) -> Result<Vec<Finding>, FigureError> {
    let mut finding = Finding::new(
        "routes",
        "Route match: a request finds its endpoint among 1,000 definitions, each with a path of its own and a captured part",
        Bound::Below(2_000.0),
        Unit::Nanoseconds,
    );
    let calls: usize = context.pick(100_000, 2_000);
    context.say("compiling the definitions");
    let table = table()?;
    let paths: Vec<String> = (0..DEFINITIONS).map(|number| format!("/shop{number}/orders/{}", number * 7)).collect();
    cpu::bound_to(cpu::SERVER, || {
        let mut found = 0;
        for round in 0..=ROUNDS {
            let began = Instant::now();
            for call in 0..calls {
                // A stride that visits all paths, neighbours far apart.
                let path = &paths[call * 617 % paths.len()];
                found += usize::from(table.find(black_box(&Method::GET), black_box(path)).is_some());
            }
            // The first round builds the automaton.
            if round > 0 {
                finding.values.push(began.elapsed().as_nanos() as f64 / calls as f64);
            }
        }
        let expected = (ROUNDS + 1) * calls;
        if found != expected {
            finding.problems.push(format!("{found} of {expected} requests found an endpoint"));
        }
    });
    finding.details.push(format!("{calls} requests to {DEFINITIONS} endpoints in turn, {ROUNDS} times"));
    Ok(vec![finding])
}

fn table() -> Result<ApiTable, FigureError> {
    let surroundings = Surroundings { environment: &|_| None, avro: false };
    let mut routes = Vec::with_capacity(DEFINITIONS);
    for number in 0..DEFINITIONS {
        let definition = json!({
            "id": format!("shop{number}"), "name": "shop", "auth_type": "none",
            "version_data": {"default": {"endpoints": [{
                "id": "order", "method": "GET", "path_regex": format!("/shop{number}/orders/([^/]+)"),
                "path_replacement": r"/orders/\1", "target": "http",
            }]}},
            "proxy": {"target_url": "http://127.0.0.1", "port": 9000},
        });
        let definition = Definition::parse(&definition, &surroundings)
            .map_err(|errors| FigureError::Invalid(errors.lines().collect::<Vec<_>>().join("; ")))?;
        routes.extend(definition.routes);
    }
    let table = ApiTable::new(routes, &mut RequestCounters::new(1));
    Ok(table.map_err(|error| FigureError::Invalid(error.to_string()))?.for_one_thread())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_the_figure_has_the_endpoint_of_its_number() {
        let table = table().unwrap();
        assert_eq!(table.len(), DEFINITIONS);
        let found = table.find(&Method::GET, "/shop617/orders/4319").unwrap();
        assert_eq!((&*found.endpoint.api_id, found.path.as_str()), ("shop617", "/orders/4319"));
        assert!(table.find(&Method::GET, "/shop617/orders/1/2").is_none());
    }
}
