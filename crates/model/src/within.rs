//! Durations of the calendar, as restic writes them: in years, months, days and hours.
//!
//! How far back such a duration reaches from a moment is not said here: that takes a calendar.

use std::{fmt, str::FromStr};

/// A duration of the calendar, as restic writes it: `1y5m7d2h` (m is months).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Within {
    /// Years.
    pub years: u16,
    /// Months.
    pub months: u32,
    /// Days.
    pub days: u32,
    /// Hours.
    pub hours: u32,
}

impl Within {
    /// Whether it is no time at all, which means that the rule is not used.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

/// As restic prints it.
impl fmt::Display for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts =
            [(u32::from(self.years), 'y'), (self.months, 'm'), (self.days, 'd'), (self.hours, 'h')];
        for (number, unit) in parts.into_iter().filter(|(number, _)| *number > 0) {
            write!(f, "{number}{unit}")?;
        }
        Ok(())
    }
}

impl FromStr for Within {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("'{text}' is not a duration such as 1y5m7d2h (m is months)");
        let mut within = Self::default();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(expected)?;
            let (number, tail) = rest.split_at(digits);
            let number: u32 = number.parse().map_err(|_| expected())?;
            match tail.as_bytes()[0] {
                b'y' => within.years = u16::try_from(number).map_err(|_| expected())?,
                b'm' => within.months = number,
                b'd' => within.days = number,
                b'h' => within.hours = number,
                _ => return Err(expected()),
            }
            rest = &tail[1..];
        }
        Ok(within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read_again() {
        for text in ["30d", "1y5m7d2h", "12h"] {
            assert_eq!(text.parse::<Within>().unwrap().to_string(), text);
        }
        for text in ["30", "5s", "d", "-1d"] {
            assert!(text.parse::<Within>().is_err(), "{text}");
        }
    }
}
