//! Comparing what was answered with what a plan expects.

use std::fmt;

use serde_json::Value;

use crate::text::quote;

/// A value that a database answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// SQL's NULL.
    Null,
    /// True or false.
    Bool(bool),
    /// A number as decimal text, however many digits it has.
    Number(String),
    /// Anything else, as the database writes it.
    Text(String),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(truth) => write!(f, "{truth}"),
            Self::Number(text) => f.write_str(&quote(text)),
            Self::Text(text) => write!(f, "'{}'", quote(text)),
        }
    }
}

impl Answer {
    /// Whether this is what was expected. Numbers are compared as numbers, also when a column of
    /// text holds one; an expected text equals a number that is written so.
    pub(super) fn is(&self, expected: &Value) -> bool {
        match (self, expected) {
            (Self::Null, Value::Null) => true,
            (Self::Bool(truth), Value::Bool(expected)) => truth == expected,
            (Self::Number(text) | Self::Text(text), Value::Number(expected)) => {
                same_number(text, &expected.to_string())
            }
            (Self::Number(text) | Self::Text(text), Value::String(expected)) => text == expected,
            (Self::Text(text), Value::Array(_) | Value::Object(_)) => {
                serde_json::from_str(text).is_ok_and(|value: Value| same(&value, expected))
            }
            _ => false,
        }
    }
}

/// Whether two JSON values are equal, numbers compared as numbers: 1 is 1.0.
pub(super) fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            same_number(&left.to_string(), &right.to_string())
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len()
                && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .all(|(name, left)| right.get(name).is_some_and(|right| same(left, right)))
        }
        _ => left == right,
    }
}

/// Whether two decimal texts are the same number, exactly, with any number of digits.
pub(super) fn same_number(left: &str, right: &str) -> bool {
    match (Decimal::parse(left), Decimal::parse(right)) {
        (Some(left), Some(right)) => left == right,
        _ => false,
    }
}

/// `digits × 10^exponent`, without zeros at either end of the digits: one form per number.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let negative = mantissa.starts_with('-');
        let mantissa = mantissa.strip_prefix(['-', '+']).unwrap_or(mantissa);
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let digits = all.trim_end_matches('0');
        let behind = i64::try_from(all.len() - digits.len()).ok()?;
        let exponent = i64::from(exponent) - i64::try_from(fraction.len()).ok()? + behind;
        let digits = digits.trim_start_matches('0').to_owned();
        if digits.is_empty() {
            return Some(Self { negative: false, digits, exponent: 0 });
        }
        Some(Self { negative, digits, exponent })
    }
}

/// Decodes `%41` to `A`; nothing when that gives no text.
pub(super) fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let code = tail
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        bytes.push(code.unwrap_or(*first));
        if code.is_some() {
            rest = &rest[2..];
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_compared_as_numbers() {
        for (left, right) in [
            ("0", "0.00"),
            ("-0", "0"),
            ("1", "1.0"),
            ("100", "1e2"),
            ("1.50", "15E-1"),
            ("-2", "-2.000"),
            ("0.1", ".1"),
            ("12345678901234567890.5", "12345678901234567890.50"),
        ] {
            assert!(same_number(left, right), "{left} {right}");
        }
        for (left, right) in
            [("1", "-1"), ("10", "1"), ("", "0"), ("NaN", "NaN"), ("1", "x"), ("-", "0")]
        {
            assert!(!same_number(left, right), "{left} {right}");
        }
    }

    #[test]
    fn answers_are_compared_sensibly() {
        let number = |text: &str| Answer::Number(text.to_owned());
        let text = |text: &str| Answer::Text(text.to_owned());
        assert!(number("0.00").is(&json!(0)));
        assert!(number("9007199254740993").is(&json!(9_007_199_254_740_993_i64)));
        assert!(!number("9007199254740992").is(&json!(9_007_199_254_740_993_i64)));
        assert!(text("42").is(&json!(42)));
        assert!(number("42").is(&json!("42")));
        assert!(!number("1").is(&json!(true)));
        assert!(!Answer::Bool(true).is(&json!(1)));
        assert!(Answer::Null.is(&json!(null)));
        assert!(!Answer::Null.is(&json!("null")));
        assert!(!Answer::Null.is(&json!(0)));
        assert!(text(r#"{"a": 1.0}"#).is(&json!({"a": 1})));
    }

    #[test]
    fn json_is_compared_deeply() {
        assert!(same(&json!({"a": [1, 2.0]}), &json!({"a": [1.0, 2]})));
        assert!(!same(&json!([1]), &json!([1, 1])));
        assert!(!same(&json!({"a": 1}), &json!({"b": 1})));
        assert!(!same(&json!("1"), &json!(1)));
    }

    #[test]
    fn percent_signs_are_decoded() {
        assert_eq!(percent_decoded("p%40ss%").as_deref(), Some("p@ss%"));
        assert_eq!(percent_decoded("%ff"), None);
    }
}
