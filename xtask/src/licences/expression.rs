//! SPDX licence expressions: parsed, and held against a list of licences.
//!
//! Grammar: SPDX specification 2.3, annex D, plus the `/` that old packages write for `OR`. `WITH` binds tighter than
//! `AND`, which binds tighter than `OR`.

use std::str::FromStr;

/// Parentheses may nest this deep; more is refused, so that no text can exhaust the stack.
const MAX_DEPTH: usize = 32;

/// A licence expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// One licence, with its exception if it has one: `Apache-2.0 WITH LLVM-exception`. A trailing `+` (or later) is left
    /// out: what a version allows, a choice that includes it allows too.
    Licence(String),
    /// Both apply.
    And(Box<Self>, Box<Self>),
    /// Either may be chosen.
    Or(Box<Self>, Box<Self>),
}

/// Why a text is no licence expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A licence was expected here.
    #[error("expected a licence, found {0:?}")]
    NotALicence(String),
    /// A complete expression is followed by something else.
    #[error("unexpected {0:?} after the expression")]
    Trailing(String),
    /// A parenthesis was opened and not closed.
    #[error("a parenthesis is not closed")]
    Unclosed,
    /// Too many nested parentheses.
    #[error("more than {MAX_DEPTH} nested parentheses")]
    TooDeep,
}

impl Expression {
    /// True if the expression can be met with nothing but `allowed` licences.
    #[must_use]
    pub fn allows(&self, allowed: &[&str]) -> bool {
        match self {
            Self::Licence(name) => allowed.iter().any(|candidate| candidate.eq_ignore_ascii_case(name)),
            Self::And(left, right) => left.allows(allowed) && right.allows(allowed),
            Self::Or(left, right) => left.allows(allowed) || right.allows(allowed),
        }
    }
}

impl FromStr for Expression {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let spaced = text.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
        let mut parser = Parser { tokens: spaced.split_whitespace().collect(), next: 0 };
        let expression = parser.or(0)?;
        match parser.peek() {
            None => Ok(expression),
            Some(token) => Err(ParseError::Trailing(token.to_owned())),
        }
    }
}

struct Parser<'a> {
    tokens: Vec<&'a str>,
    next: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.tokens.get(self.next).copied()
    }

    fn take(&mut self, expected: &str) -> bool {
        let found = self.peek().is_some_and(|token| token.eq_ignore_ascii_case(expected));
        self.next += usize::from(found);
        found
    }

    fn or(&mut self, depth: usize) -> Result<Expression, ParseError> {
        let mut left = self.and(depth)?;
        while self.take("OR") {
            left = Expression::Or(Box::new(left), Box::new(self.and(depth)?));
        }
        Ok(left)
    }

    fn and(&mut self, depth: usize) -> Result<Expression, ParseError> {
        let mut left = self.single(depth)?;
        while self.take("AND") {
            left = Expression::And(Box::new(left), Box::new(self.single(depth)?));
        }
        Ok(left)
    }

    fn single(&mut self, depth: usize) -> Result<Expression, ParseError> {
        if depth > MAX_DEPTH {
            return Err(ParseError::TooDeep);
        }
        if self.take("(") {
            let inner = self.or(depth + 1)?;
            return if self.take(")") { Ok(inner) } else { Err(ParseError::Unclosed) };
        }
        let name = self.name()?.trim_end_matches('+').to_owned();
        if self.take("WITH") {
            return Ok(Expression::Licence(format!("{name} WITH {}", self.name()?)));
        }
        Ok(Expression::Licence(name))
    }

    fn name(&mut self) -> Result<&'a str, ParseError> {
        let token = self.peek().unwrap_or("");
        let is_name = token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.+:".contains(&byte));
        let is_operator = ["AND", "OR", "WITH"].iter().any(|operator| operator.eq_ignore_ascii_case(token));
        if token.is_empty() || !is_name || is_operator {
            return Err(ParseError::NotALicence(token.to_owned()));
        }
        self.next += 1;
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(text: &str, allowed: &[&str]) -> bool {
        text.parse::<Expression>().unwrap().allows(allowed)
    }

    #[test]
    fn a_choice_is_met_by_either_side() {
        assert!(allows("MIT OR GPL-3.0", &["MIT"]));
        assert!(allows("GPL-3.0 OR MIT", &["MIT"]));
        assert!(!allows("GPL-2.0 OR GPL-3.0", &["MIT"]));
    }

    #[test]
    fn a_conjunction_needs_both_sides() {
        assert!(allows("MIT AND BSD-3-Clause", &["MIT", "BSD-3-Clause"]));
        assert!(!allows("MIT AND GPL-3.0", &["MIT"]));
    }

    #[test]
    fn and_binds_tighter_than_or_unless_parentheses_say_otherwise() {
        assert!(allows("MIT OR Apache-2.0 AND GPL-3.0", &["MIT"]));
        assert!(!allows("(MIT OR Apache-2.0) AND GPL-3.0", &["MIT"]));
        assert!(allows("(MIT OR Apache-2.0) AND Unicode-3.0", &["MIT", "Unicode-3.0"]));
    }

    #[test]
    fn an_exception_belongs_to_its_licence() {
        assert!(allows("Apache-2.0 WITH LLVM-exception", &["Apache-2.0 WITH LLVM-exception"]));
        assert!(!allows("GPL-3.0 WITH Classpath-exception-2.0", &["GPL-3.0"]));
    }

    #[test]
    fn the_old_slash_is_a_choice_with_or_without_blanks() {
        assert!(allows("MIT/Apache-2.0", &["Apache-2.0"]));
        assert!(allows("Apache-2.0 / MIT", &["MIT"]));
    }

    #[test]
    fn a_licence_or_any_later_version_is_met_by_that_version() {
        assert!(allows("MPL-2.0+", &["MPL-2.0"]));
    }

    #[test]
    fn a_text_that_is_no_expression_is_refused_with_the_reason() {
        let error = |text: &str| text.parse::<Expression>().unwrap_err();
        assert_eq!(error(""), ParseError::NotALicence(String::new()));
        assert_eq!(error("MIT OR"), ParseError::NotALicence(String::new()));
        assert_eq!(error("OR MIT"), ParseError::NotALicence("OR".to_owned()));
        assert_eq!(error("MIT Apache-2.0"), ParseError::Trailing("Apache-2.0".to_owned()));
        assert_eq!(error("(MIT"), ParseError::Unclosed);
        assert_eq!(error("MIT)"), ParseError::Trailing(")".to_owned()));
        assert_eq!(error("see <LICENSE>"), ParseError::Trailing("<LICENSE>".to_owned()));
        assert_eq!(error(&"(".repeat(10_000)), ParseError::TooDeep);
    }
}
