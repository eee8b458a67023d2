//! Every criterion benchmark once, unmeasured: it must still build and work.

use serde_json::Value;

use crate::programs::{self, Profile};
use crate::repository::cargo;
use crate::steps::{self, Outcome};

/// Runs each benchmark of the workspace once.
#[must_use]
pub fn benchmarks() -> Outcome {
    match programs::metadata().map(|metadata| count(&metadata)) {
        Ok(0) => Outcome::failed("no package has a benchmark"),
        Ok(_) => {
            let arguments = ["bench", "--workspace", "--bench", "*", "--locked", "--profile", Profile::Ci.name()];
            steps::command(cargo(&arguments).args(["--", "--test"]))
        }
        Err(reason) => Outcome::failed(reason),
    }
}

fn count(metadata: &Value) -> usize {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let targets = packages.flat_map(|package| package["targets"].as_array().into_iter().flatten());
    targets.filter(|target| target["kind"] == serde_json::json!(["bench"])).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn benchmarks_are_counted_among_the_targets_of_all_packages() {
        let metadata = serde_json::json!({"packages": [
            {"targets": [{"kind": ["lib"]}, {"kind": ["bench"]}]}, {"targets": [{"kind": ["bench"]}]}]});
        assert_eq!(count(&metadata), 2);
    }
}
