//! When a machine's value is good enough: the profile's reason says how the value binds.

use super::Setting;

/// How the value of a profile binds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bound {
    /// The machine's value may be higher.
    AtLeast,
    /// The machine's value may be lower.
    AtMost,
    /// No other value will do.
    Exactly,
    /// Three values (minimum, start, maximum), of which the maximum may be lower.
    MaximumAtMost,
    /// Two values; the machine's range may be wider.
    Covers,
}

impl Bound {
    /// Reads it from the setting's reason: `Exactly …`, `(upper bound)`, `maximum is an upper bound`; else a lower bound.
    #[must_use]
    pub fn of(setting: &Setting) -> Self {
        let numbers = setting.value.split(' ').count();
        if setting.buys.contains("maximum is an upper bound") && numbers == 3 {
            Self::MaximumAtMost
        } else if setting.buys.contains("Exactly") {
            Self::Exactly
        } else if setting.buys.contains("(upper bound)") {
            Self::AtMost
        } else if numbers == 2 {
            Self::Covers
        } else {
            Self::AtLeast
        }
    }

    /// Whether the machine's value `is` satisfies the profile's value `should`. Text that is no number must be equal.
    #[must_use]
    pub fn holds(self, is: &str, should: &str) -> bool {
        let (Some(have), Some(want)) = (numbers(is), numbers(should)) else { return is == should };
        if have.len() != want.len() {
            return false;
        }
        match self {
            Self::Exactly => have == want,
            Self::AtLeast => have.iter().zip(&want).all(|(have, want)| have >= want),
            Self::AtMost => have.iter().zip(&want).all(|(have, want)| have <= want),
            Self::MaximumAtMost => have.last() <= want.last(),
            Self::Covers => have.first() <= want.first() && have.last() >= want.last(),
        }
    }

    /// The value with how it binds, e.g. `at least 65535`.
    #[must_use]
    pub fn describe(self, should: &str) -> String {
        match self {
            Self::AtLeast if should == UNLIMITED => should.to_owned(),
            Self::AtLeast => format!("at least {should}"),
            Self::AtMost => format!("at most {should}"),
            Self::Exactly => format!("exactly {should}"),
            Self::MaximumAtMost => {
                let maximum = should.rsplit(' ').next().unwrap_or(should);
                format!("{should}, the maximum at most {maximum}")
            }
            Self::Covers => format!("{should} or wider"),
        }
    }
}

const UNLIMITED: &str = "unlimited";

fn numbers(text: &str) -> Option<Vec<u64>> {
    let number = |word: &str| if word == UNLIMITED { Some(u64::MAX) } else { word.parse().ok() };
    text.split_ascii_whitespace().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_accepts_what_is_as_good_or_better() {
        let cases = [
            (Bound::AtLeast, "65535", "65535", true),
            (Bound::AtLeast, "4096", "65535", false),
            (Bound::AtLeast, "unlimited", "1048576", true),
            (Bound::AtLeast, "8192", "unlimited", false),
            (Bound::AtMost, "10", "60", true),
            (Bound::AtMost, "4294967295", "131072", false),
            (Bound::Exactly, "2", "1", false),
            (Bound::Exactly, "1", "1", true),
            (Bound::MaximumAtMost, "4096 16384 4194304", "4096 16384 1048576", false),
            (Bound::MaximumAtMost, "8192 87380 524288", "4096 16384 1048576", true),
            (Bound::Covers, "1024 65535", "16384 65535", true),
            (Bound::Covers, "32768 60999", "16384 65535", false),
        ];
        for (bound, is, should, holds) in cases {
            assert_eq!(bound.holds(is, should), holds, "{bound:?}: {is} for {should}");
        }
    }

    #[test]
    fn text_must_be_equal_and_another_count_of_numbers_does_not_hold() {
        assert!(Bound::AtLeast.holds("bbr", "bbr"));
        assert!(!Bound::AtLeast.holds("cubic", "bbr"));
        assert!(!Bound::AtLeast.holds("5 5", "5"));
        assert!(!Bound::AtLeast.holds("", "5"));
    }
}
