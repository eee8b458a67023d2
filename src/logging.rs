//! Logs on standard error: text for people, or one JSON object per line (`LOG_FMT=json`, or `gcl` for Google Cloud).

use std::fmt;
use std::io::IsTerminal as _;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Errors only.
    Error,
    /// Warnings too.
    Warn,
    /// Notable events too.
    Info,
    /// Everything.
    Debug,
    /// Nothing.
    None,
}

impl Level {
    /// The values of `LOG_LEVEL`, Elixir's finer ones included.
    pub const WORDS: &[(&str, Self)] = &[
        ("warn", Self::Warn),
        ("warning", Self::Warn),
        ("error", Self::Error),
        ("critical", Self::Error),
        ("alert", Self::Error),
        ("emergency", Self::Error),
        ("notice", Self::Info),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("none", Self::None),
    ];

    fn filter(self) -> LevelFilter {
        match self {
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::None => LevelFilter::OFF,
        }
    }
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// `{"time":…,"severity":"warn","message":…,"metadata":{…}}`.
    Json,
    /// The same with the severities of Google Cloud Logging.
    Gcl,
}

impl Format {
    /// The values of `LOG_FMT`.
    pub const WORDS: &[(&str, Self)] =
        &[("", Self::Text), ("text", Self::Text), ("json", Self::Json), ("gcl", Self::Gcl)];

    /// The name of a level in this format.
    fn severity(self, level: tracing::Level) -> &'static str {
        let (plain, google) = match level {
            tracing::Level::ERROR => ("error", "ERROR"),
            tracing::Level::WARN => ("warn", "WARNING"),
            tracing::Level::INFO => ("info", "INFO"),
            _ => ("debug", "DEBUG"),
        };
        if self == Self::Gcl { google } else { plain }
    }

    /// One line of JSON, without its line feed.
    fn json_line(self, level: tracing::Level, message: &str, metadata: Map<String, Value>) -> String {
        let mut line = Map::new();
        line.insert("time".to_owned(), jiff::Timestamp::now().to_string().into());
        line.insert("severity".to_owned(), self.severity(level).into());
        line.insert("message".to_owned(), message.into());
        line.insert("metadata".to_owned(), Value::Object(metadata));
        Value::Object(line).to_string()
    }

    /// The start-up summary in this format: lines for people, or one JSON object.
    #[must_use]
    pub fn summary(self, text: &str) -> String {
        match self {
            Self::Text => text.to_owned(),
            Self::Json | Self::Gcl => self.json_line(tracing::Level::INFO, text, Map::new()),
        }
    }
}

/// Sends the process's logs to standard error. A second call in one process has no effect.
pub fn start(level: Level, format: Format) {
    let builder = tracing_subscriber::fmt()
        .with_max_level(level.filter())
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match format {
        Format::Text => builder.try_init(),
        Format::Json | Format::Gcl => builder.event_format(JsonLines(format)).try_init(),
    };
    if let Err(error) = started {
        tracing::debug!(%error, "logs are already going somewhere");
    }
}

struct JsonLines(Format);

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        fields.metadata.insert("module".to_owned(), event.metadata().target().into());
        writeln!(writer, "{}", self.0.json_line(*event.metadata().level(), &fields.message, fields.metadata))
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    metadata: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        self.metadata.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.put(field, format!("{value:?}").into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_line_survives_quotes_and_line_feeds() {
        let line = Format::Json.json_line(tracing::Level::WARN, "a \"b\"\nc", Map::new());
        assert!(!line.contains('\n'));
        let value: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(value["severity"], "warn");
        assert_eq!(value["message"], "a \"b\"\nc");
    }

    #[test]
    fn google_gets_its_own_severities() {
        assert_eq!(Format::Gcl.severity(tracing::Level::WARN), "WARNING");
        assert_eq!(Format::Json.severity(tracing::Level::ERROR), "error");
    }
}
