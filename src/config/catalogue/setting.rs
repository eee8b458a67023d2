//! One setting, and how the catalogue writes it down.

/// How a setting is given on the command line, and whether it may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `--flag` or `--flag=false`.
    Switch,
    /// `--flag` or `--flag=VALUE`; holds the name of the value, and the value of the bare flag.
    Amount(&'static str, &'static str),
    /// `--flag VALUE`; holds the name of the value.
    Text(&'static str),
    /// Like text, but never printed.
    Secret(&'static str),
}

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Heading it stands under in `--help`.
    pub heading: &'static str,
    /// Environment variable; the flag is the same in kebab case.
    pub variable: &'static str,
    /// How it is given.
    pub kind: Kind,
    /// Its default.
    pub default: Option<&'static str>,
    /// What it does.
    pub help: &'static str,
    /// Left out of `--help`.
    pub hidden: bool,
}

impl Setting {
    /// The flag without its dashes.
    #[must_use]
    pub fn flag(&self) -> String {
        self.variable.to_ascii_lowercase().replace('_', "-")
    }
}

pub(super) const fn text(
    heading: &'static str,
    variable: &'static str,
    value_name: &'static str,
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting {
        heading,
        variable,
        kind: Kind::Text(value_name),
        default: if default.is_empty() { None } else { Some(default) },
        help,
        hidden: false,
    }
}

pub(super) const fn secret(
    heading: &'static str,
    variable: &'static str,
    value_name: &'static str,
    help: &'static str,
) -> Setting {
    Setting { heading, variable, kind: Kind::Secret(value_name), default: None, help, hidden: false }
}

pub(super) const fn switch(
    heading: &'static str,
    variable: &'static str,
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting { heading, variable, kind: Kind::Switch, default: Some(default), help, hidden: false }
}

pub(super) const fn hidden(setting: Setting) -> Setting {
    Setting { hidden: true, ..setting }
}
