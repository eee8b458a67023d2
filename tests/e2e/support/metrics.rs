//! Prometheus' text format, as far as the tests need it.

/// One scrape.
pub(crate) struct Metrics {
    text: String,
    samples: Vec<Sample>,
}

/// One line: name, labels, value.
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Metrics {
    /// Parses the text of one scrape; a line that isn't in the format fails the test.
    pub(crate) fn parse(text: &str) -> Self {
        let samples = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| Sample::parse(line).unwrap_or_else(|| panic!("not a sample: {line:?}")))
            .collect();
        Self { text: text.to_owned(), samples }
    }

    /// Sum over all label values; 0 where there is no sample.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        self.sum_where(name, &[])
    }

    /// Sum over the samples that carry these labels.
    pub(crate) fn sum_where(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let carries = |sample: &&Sample| {
            labels.iter().all(|(key, value)| sample.labels.iter().any(|(k, v)| k == key && v == value))
        };
        self.samples.iter().filter(|sample| sample.name == name).filter(carries).map(|sample| sample.value).sum()
    }

    /// Is there a `# TYPE` line that says this?
    pub(crate) fn has_type(&self, name: &str, kind: &str) -> bool {
        let line = format!("# TYPE {name} {kind}");
        self.text.lines().any(|candidate| candidate == line)
    }

    /// Distinct values of a label over all samples whose name starts with `prefix`.
    pub(crate) fn label_values(&self, prefix: &str, label: &str) -> Vec<&str> {
        let mut values: Vec<&str> = self
            .samples
            .iter()
            .filter(|sample| sample.name.starts_with(prefix))
            .flat_map(|sample| sample.labels.iter().filter(|(key, _)| key == label).map(|(_, value)| value.as_str()))
            .collect();
        values.sort_unstable();
        values.dedup();
        values
    }
}

impl Sample {
    fn parse(line: &str) -> Option<Self> {
        let (series, value) = match line.split_once('}') {
            Some((series, value)) => (series, value.trim()),
            None => line.split_once(' ')?,
        };
        let value = value.split(' ').next()?.parse().ok()?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels
            .split("\",")
            .filter(|label| !label.is_empty())
            .map(|label| {
                let (key, value) = label.split_once("=\"")?;
                Some((key.to_owned(), value.trim_end_matches('"').to_owned()))
            })
            .collect::<Option<_>>()?;
        Some(Self { name: name.to_owned(), labels, value })
    }
}
