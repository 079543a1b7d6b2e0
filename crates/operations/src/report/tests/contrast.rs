//! Words can be read on what lies behind them, in light and in dark: 4.5 to 1 at least.
//!
//! # Source
//! WCAG 2.2, success criterion 1.4.3 and the definition of relative luminance.

const STYLE: &str = include_str!("../style.css");

/// A colour for words and the grounds that it is used on.
const PAIRS: [(&str, &[&str]); 9] = [
    ("ink", &["paper", "sheet", "ok-bg", "bad-bg", "warn-bg", "warn-stripe", "none-bg", "track"]),
    ("soft", &["paper", "sheet", "ok-bg", "bad-bg", "warn-bg", "warn-stripe", "none-bg"]),
    ("link", &["paper", "sheet", "ok-bg", "bad-bg", "warn-bg", "warn-stripe"]),
    ("ok", &["paper", "sheet", "ok-bg"]),
    ("bad", &["paper", "sheet", "bad-bg"]),
    ("warn", &["paper", "sheet", "warn-bg", "warn-stripe"]),
    ("none", &["paper", "sheet", "none-bg"]),
    ("bar-text", &["bar-a", "bar-b"]),
    ("knock", &["ok", "bad"]),
];

/// The value of a variable in a rule: three bytes.
fn colour(rule: &str, name: &str) -> [f64; 3] {
    let value = rule.split(&format!("--{name}:#")).nth(1).expect(name);
    let hex: String = value.chars().take_while(char::is_ascii_hexdigit).collect();
    let wide: String = match hex.len() {
        3 => hex.chars().flat_map(|c| [c, c]).collect(),
        _ => hex,
    };
    [0, 2, 4].map(|i| f64::from(u8::from_str_radix(&wide[i..i + 2], 16).unwrap()) / 255.0)
}

fn luminance(colour: [f64; 3]) -> f64 {
    let linear = |c: f64| match c {
        ..=0.04045 => c / 12.92,
        _ => ((c + 0.055) / 1.055).powf(2.4),
    };
    let [r, g, b] = colour.map(linear);
    0.2126 * r + 0.7152 * g + 0.0722 * b
}

fn contrast(a: [f64; 3], b: [f64; 3]) -> f64 {
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

#[test]
fn words_can_be_read_in_light_and_in_dark() {
    let light = STYLE.split(":root{").nth(1).unwrap();
    let dark = STYLE.split("prefers-color-scheme:dark){:root{").nth(1).unwrap();
    for (theme, rule) in [("light", light), ("dark", dark)] {
        for (words, grounds) in PAIRS {
            for ground in grounds {
                let ratio = contrast(colour(rule, words), colour(rule, ground));
                assert!(ratio >= 4.5, "{theme}: {words} on {ground} has {ratio:.2}");
            }
        }
    }
    assert!((contrast([0.0; 3], [1.0; 3]) - 21.0).abs() < 0.01);
}
