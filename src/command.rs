//! The command line: subcommands, and every setting of [`crate::config::catalogue`] as a flag and an environment variable.

use clap::{Arg, ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand, ValueHint};

use crate::config::catalogue::{CATALOGUE, Kind, Setting};
use crate::config::values::Values;
use crate::demo::DemoArguments;
use crate::tune::TuneArguments;

/// What `tidegate` was asked to do.
#[derive(Debug, Parser)]
#[command(
    name = "tidegate",
    version,
    about = "A reactive interaction gateway: events from Kafka to every subscribed browser, phone and device.",
    long_about = "Tidegate holds the connections of browsers, phones and devices and brings them the events that \
                  services write to Kafka (or publish over HTTP), over Server-Sent Events, WebSocket and long polling.\n\n\
                  Without a subcommand it serves. Every setting is a flag and an environment variable; the flag wins, \
                  and an empty value counts as unset.",
    after_help = "Examples:\n  tidegate                                    local hub, clients on port 4000\n  \
                  tidegate --kafka-brokers kafka:9092         events from Kafka's topic `rig`\n  \
                  tidegate check --kafka-brokers kafka:9092   is this machine ready?\n  \
                  tidegate demo                               a live ticket shop, to try it out\n  \
                  tidegate tune                               how many shards suit this machine?"
)]
pub struct CommandLine {
    /// What to do; `serve` when left out.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The subcommands.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Serve clients (the default)
    Serve,
    /// Start gateway and a small ticket shop with a live seat map, to be opened in a browser
    Demo(DemoArguments),
    /// Check the settings and this machine, and say what to change
    Check,
    /// Find the best shard count for this machine by measuring it under load
    ///
    /// Starts gateways with 1, 2, 4 … shards on free loopback ports, one after the other, puts each under load from the
    /// cores that are left, and recommends a count. Of the settings below only --cpus counts.
    Tune(TuneArguments),
}

/// Reads the process's arguments and environment; answers `--help`, `--version` and usage errors itself and exits.
#[must_use]
pub fn read() -> (Command, Values) {
    let matches = definition().get_matches();
    let line = CommandLine::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    (line.command.unwrap_or(Command::Serve), values(&matches))
}

/// The definition: each setting is accepted before and after the subcommand.
#[must_use]
pub fn definition() -> clap::Command {
    CommandLine::command()
        .args(CATALOGUE.iter().map(argument))
        .mut_subcommands(|subcommand| subcommand.after_help("All settings of `tidegate --help` apply here too."))
}

fn argument(setting: &'static Setting) -> Arg {
    let argument = Arg::new(setting.variable)
        .long(setting.flag())
        .env(setting.variable)
        .hide_env_values(true)
        .help_heading(setting.heading)
        .help(setting.help)
        .value_hint(ValueHint::Other)
        .hide(setting.hidden)
        .global(true);
    let argument = match setting.default {
        Some(default) => argument.default_value(default),
        None => argument,
    };
    let optional_value = |argument: Arg, missing, name| {
        argument.num_args(0..=1).require_equals(true).default_missing_value(missing).value_name(name)
    };
    match setting.kind {
        Kind::Switch => optional_value(argument, "true", "true|false"),
        Kind::Amount(name, missing) => optional_value(argument, missing, name),
        Kind::Text(value_name) | Kind::Secret(value_name) => argument.value_name(value_name).allow_hyphen_values(true),
    }
}

fn values(matches: &ArgMatches) -> Values {
    let mut values = Values::default();
    for setting in CATALOGUE {
        if let Some(text) = matches.get_one::<String>(setting.variable) {
            values.set(setting.variable, text);
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Values {
        values(&definition().try_get_matches_from(line).expect("the line parses"))
    }

    #[test]
    fn the_definition_holds_together() {
        definition().debug_assert();
    }

    #[test]
    fn a_flag_counts_before_and_after_the_subcommand() {
        assert_eq!(parse(&["tidegate", "--inbound-port", "1", "check"]).text("INBOUND_PORT"), Some("1"));
        assert_eq!(parse(&["tidegate", "check", "--inbound-port", "2"]).text("INBOUND_PORT"), Some("2"));
    }

    #[test]
    fn a_switch_may_be_given_bare_or_with_a_value() {
        assert_eq!(parse(&["tidegate", "--kafka-ssl-enabled", "check"]).text("KAFKA_SSL_ENABLED"), Some("true"));
        assert_eq!(parse(&["tidegate", "--spin", "check"]).text("SPIN"), Some("1000"));
        assert_eq!(parse(&["tidegate", "--spin=50"]).text("SPIN"), Some("50"));
        assert_eq!(parse(&["tidegate", "--kafka-ssl-enabled=no"]).text("KAFKA_SSL_ENABLED"), Some("no"));
    }

    #[test]
    fn help_names_the_flag_and_the_variable_of_every_visible_setting() {
        let help = definition().render_long_help().to_string();
        for setting in CATALOGUE.iter().filter(|setting| !setting.hidden) {
            assert!(help.contains(&format!("--{}", setting.flag())), "no flag for {}", setting.variable);
            assert!(help.contains(&format!("[env: {}]", setting.variable)), "no variable {}", setting.variable);
        }
    }
}
