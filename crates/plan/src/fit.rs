//! How long a restore takes, as a function of its size: a straight line through what drills
//! measured, with what is not known about it.
//!
//! `time = a + b · bytes`, by least squares. An interval that covers 95 of 100 next
//! measurements needs three samples of different size; with fewer the estimate says that its
//! uncertainty is unknown rather than inventing one.

/// A measured restore.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Bytes restored.
    pub bytes: f64,
    /// Seconds that it took.
    pub seconds: f64,
}

/// A line through samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// Seconds that a restore of nothing takes.
    pub start_s: f64,
    /// Seconds that each byte adds.
    pub seconds_per_byte: f64,
    /// How many samples there were.
    pub samples: usize,
    spread: Option<Spread>,
}

/// What is needed to say how far a prediction may be off.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    /// Standard deviation of the residuals, in seconds.
    residual_s: f64,
    mean_bytes: f64,
    /// Sum of squared distances from the mean.
    squares: f64,
}

/// A predicted duration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The most likely, in seconds.
    pub seconds: f64,
    /// From and to, in seconds: 95 of 100 restores are expected between. `None`: not known.
    pub interval: Option<(f64, f64)>,
}

/// Lays a line through samples; `None` without any.
///
/// Neither part of the line is ever negative: more bytes never take less time. One sample, or
/// several of one size, give a line through the origin.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "the number of drills is small")]
pub fn fit(samples: &[Sample]) -> Option<Fit> {
    let usable = |sample: &&Sample| sample.bytes.is_finite() && sample.seconds.is_finite();
    let samples: Vec<&Sample> = samples.iter().filter(usable).collect();
    if samples.is_empty() {
        return None;
    }
    let n = samples.len() as f64;
    let mean_bytes = samples.iter().map(|sample| sample.bytes).sum::<f64>() / n;
    let mean_s = samples.iter().map(|sample| sample.seconds).sum::<f64>() / n;
    let squares: f64 = samples.iter().map(|sample| (sample.bytes - mean_bytes).powi(2)).sum();
    let products =
        samples.iter().map(|sample| (sample.bytes - mean_bytes) * (sample.seconds - mean_s));
    let is_line = squares > 0.0;
    let slope = if is_line { (products.sum::<f64>() / squares).max(0.0) } else { 0.0 };
    let (start_s, seconds_per_byte) = match mean_s - slope * mean_bytes {
        start if is_line && start >= 0.0 => (start, slope),
        _ if mean_bytes > 0.0 => (0.0, mean_s / mean_bytes),
        _ => (mean_s, 0.0),
    };
    let residual = |sample: &&Sample| sample.seconds - start_s - seconds_per_byte * sample.bytes;
    let residuals: f64 = samples.iter().map(|sample| residual(sample).powi(2)).sum();
    let spread = (samples.len() >= 3 && is_line).then(|| Spread {
        residual_s: (residuals / (n - 2.0)).sqrt(),
        mean_bytes,
        squares,
    });
    Some(Fit { start_s, seconds_per_byte, samples: samples.len(), spread })
}

impl Fit {
    /// Predicts how long a restore of so many bytes takes.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "the number of drills is small")]
    pub fn predict(&self, bytes: f64) -> Estimate {
        let seconds = self.start_s + self.seconds_per_byte * bytes;
        let interval = self.spread.map(|spread| {
            let far = (bytes - spread.mean_bytes).powi(2) / spread.squares;
            let error = spread.residual_s * (1.0 + 1.0 / self.samples as f64 + far).sqrt();
            let half = student_t(self.samples.saturating_sub(2)) * error;
            ((seconds - half).max(0.0), seconds + half)
        });
        Estimate { seconds, interval }
    }
}

/// The quantile of Student's distribution that leaves 2.5 % on each side, by degrees of
/// freedom; between the rows of the table the one above, which is the wider.
fn student_t(freedom: usize) -> f64 {
    const TABLE: [(usize, f64); 14] = [
        (1, 12.706),
        (2, 4.303),
        (3, 3.182),
        (4, 2.776),
        (5, 2.571),
        (6, 2.447),
        (7, 2.365),
        (8, 2.306),
        (9, 2.262),
        (10, 2.228),
        (15, 2.131),
        (20, 2.086),
        (30, 2.042),
        (60, 2.000),
    ];
    let row = TABLE.iter().rev().find(|(rows, _)| *rows <= freedom);
    row.map_or(f64::INFINITY, |(_, quantile)| *quantile)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(points: &[(f64, f64)]) -> Fit {
        let samples: Vec<Sample> =
            points.iter().map(|&(bytes, seconds)| Sample { bytes, seconds }).collect();
        fit(&samples).unwrap()
    }

    #[test]
    fn nothing_measured_is_nothing_known() {
        assert_eq!(fit(&[]), None);
    }

    #[test]
    fn one_sample_gives_a_speed_and_no_certainty() {
        let estimate = line(&[(100.0, 10.0)]).predict(200.0);
        assert_eq!(estimate, Estimate { seconds: 20.0, interval: None });
    }

    #[test]
    fn two_samples_give_a_line_and_no_certainty() {
        let fit = line(&[(100.0, 12.0), (200.0, 22.0)]);
        assert!((fit.start_s - 2.0).abs() < 1e-9);
        let estimate = fit.predict(300.0);
        assert!((estimate.seconds - 32.0).abs() < 1e-9);
        assert_eq!(estimate.interval, None);
    }

    #[test]
    fn the_interval_is_that_of_the_textbook() {
        // Residuals ±1 around 2 + 0.1 x, checked by hand: s = 1.2247 with 2 degrees of freedom.
        let fit = line(&[(100.0, 13.0), (200.0, 21.0), (300.0, 31.0), (400.0, 43.0)]);
        let estimate = fit.predict(250.0);
        assert!((estimate.seconds - 27.0).abs() < 1e-9, "{estimate:?}");
        let (low, high) = estimate.interval.unwrap();
        let half = 4.303 * (4.0_f64 / 2.0).sqrt() * (1.25_f64).sqrt();
        assert!((high - 27.0 - half).abs() < 1e-6 && (27.0 - low - half).abs() < 1e-6);
        let far = fit.predict(4000.0).interval.unwrap();
        assert!(far.1 - far.0 > high - low, "further away less is known");
    }

    #[test]
    fn more_bytes_never_take_less_time() {
        let fit = line(&[(100.0, 30.0), (200.0, 20.0), (300.0, 10.0)]);
        assert!(fit.seconds_per_byte >= 0.0 && fit.start_s >= 0.0, "{fit:?}");
        let same = line(&[(100.0, 9.0), (100.0, 11.0), (100.0, 10.0)]);
        assert_eq!(same.predict(200.0), Estimate { seconds: 20.0, interval: None });
    }
}
