//! The shipped profiles for large machines, and where this machine differs from them.
//!
//! `parse` reads the files; `bound` knows when a value is good enough; `machine` reads what the machine has.

mod bound;
mod machine;
mod parse;

pub use bound::Bound;
pub use parse::{ProfileError, Setting, limits, sysctl, unit};

use machine::Machine;

const SYSCTL_CONF: &str = include_str!("../profiles/sysctl.conf");
const LIMITS_CONF: &str = include_str!("../profiles/limits.conf");
const UNIT: &str = include_str!("../profiles/tidegate.service");

/// How the machine stands to one setting.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// As good as the profile, or better.
    Met,
    /// Short of the profile.
    Missed,
    /// The machine does not have the key, or does not show it here (containers hide some).
    Absent,
}

/// One setting of the profiles, held against this machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// Its name, e.g. `net.core.somaxconn` or `nofile`.
    pub key: String,
    /// How the machine stands to it.
    pub verdict: Verdict,
    /// The machine's value; empty if absent.
    pub is: String,
    /// The profile's value and how it binds, e.g. `at least 65535`.
    pub should: String,
    /// What the setting buys, from the profile.
    pub buys: String,
    /// The command or line that changes it; empty if nothing has to change.
    pub how_to_change: String,
}

/// Holds this machine against `sysctl.conf` and `limits.conf`, in their order.
#[must_use]
pub fn compare() -> Vec<Finding> {
    compare_with(&Machine::this())
}

fn compare_with(machine: &Machine) -> Vec<Finding> {
    let parsed =
        |settings: Result<Vec<Setting>, ProfileError>| settings.expect("invariant: a test parses the profiles");
    let (sysctl, limits, unit) = (parsed(sysctl(SYSCTL_CONF)), parsed(limits(LIMITS_CONF)), parsed(unit(UNIT)));
    let kernel = sysctl.iter().filter_map(|setting| {
        let is = machine.sysctl(&setting.key);
        if is.is_none() && setting.optional {
            return None;
        }
        let (key, value) = (&setting.key, &setting.value);
        let remedy = format!("sysctl -w {key}='{value}'; to keep it: the same line in /etc/sysctl.d/90-tidegate.conf");
        Some(finding(setting, is, remedy))
    });
    let process = limits.iter().map(|setting| {
        let (key, value) = (&setting.key, &setting.value);
        let service = service_line(&unit, key).map_or_else(String::new, |line| format!("; in a service: {line}"));
        let remedy = format!("as root: ulimit {} {value}{service}", shell_option(key));
        finding(setting, machine.limit(key), remedy)
    });
    kernel.chain(process).collect()
}

fn finding(setting: &Setting, is: Option<String>, remedy: String) -> Finding {
    let bound = Bound::of(setting);
    let verdict = match &is {
        None => Verdict::Absent,
        Some(is) if bound.holds(is, &setting.value) => Verdict::Met,
        Some(_) => Verdict::Missed,
    };
    let with_unit = |text: String| {
        let unit = machine::unit_name(&setting.key).filter(|_| text.ends_with(|last: char| last.is_ascii_digit()));
        unit.map_or_else(|| text.clone(), |unit| format!("{text} {unit}"))
    };
    Finding {
        key: setting.key.clone(),
        verdict,
        is: with_unit(is.unwrap_or_default()),
        should: with_unit(bound.describe(&setting.value)),
        buys: setting.buys.clone(),
        how_to_change: if verdict == Verdict::Missed { remedy } else { String::new() },
    }
}

/// The line of the systemd unit that sets the limit `item` (systemd.exec(5): `LimitNOFILE=` and so on).
fn service_line(unit: &[Setting], item: &str) -> Option<String> {
    let wanted = format!("Limit{}", item.to_ascii_uppercase());
    let setting = unit.iter().find(|setting| setting.key == wanted)?;
    Some(format!("{}={}", setting.key, setting.value))
}

/// The option of the shell's `ulimit` for an item of limits.conf.
fn shell_option(item: &str) -> &'static str {
    match item {
        "nofile" => "-n",
        "memlock" => "-l",
        _ => "-a",
    }
}

#[cfg(test)]
mod tests;
