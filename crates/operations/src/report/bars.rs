//! Objective and actual side by side: the recovery time by phase, the loss as a bound, drills
//! as dots over time.
//!
//! Lengths are shares of the width, so a drawing fits a phone without its words shrinking. What
//! is measured is solid, what is assumed is hatched, what nobody measured is a dashed box that
//! lies outside the scale, since it has no length.

use jiff::Timestamp;
use maud::{Markup, html};
use muster_model::{
    Verdict,
    drill::{MeasuredBy, RecoveryLoss, RecoveryTime},
};

use super::{
    data::{Rehearsed, ReportData},
    format::{self, bound, seconds},
    shapes,
    words::{drill_name, phase_words, seconds_of, time_words},
};

/// What is left free to the right of the longest bar, as a factor.
const HEADROOM: f64 = 1.06;

/// The share of the width for phases of unknown length, in percent.
const UNKNOWN_WIDTH: f64 = 9.0;

/// Below this share of the scale a bar is drawn a second time, enlarged.
const ENLARGE_BELOW: f64 = 0.3;

/// Segments narrower than these carry no name, and no number, in percent.
const NAME_FROM: f64 = 22.0;
const NUMBER_FROM: f64 = 5.0;

/// A part of a bar.
struct Segment {
    label: String,
    /// Its place in the list of phases below the bar.
    number: Option<usize>,
    s: f64,
    assumed: bool,
}

/// A bar: its segments in order, the objective, the share of the width before its nought.
struct Bar {
    segments: Vec<Segment>,
    objective_s: Option<f64>,
    unknown: bool,
}

impl Bar {
    fn total(&self) -> f64 {
        self.segments.iter().map(|segment| segment.s).sum()
    }

    /// Seconds at the right edge.
    fn scale(&self) -> f64 {
        (self.total().max(self.objective_s.unwrap_or(0.0)) * HEADROOM).max(f64::MIN_POSITIVE)
    }

    fn is_small(&self) -> bool {
        self.total() > 0.0 && self.total() < self.scale() * ENLARGE_BELOW
    }

    fn start(&self) -> f64 {
        if self.unknown { UNKNOWN_WIDTH } else { 0.0 }
    }

    /// Where a moment lies, in percent of the width.
    fn x(&self, s: f64, scale: f64) -> f64 {
        self.start() + (100.0 - self.start()) * (s / scale).clamp(0.0, 1.0)
    }
}

fn pct(x: f64) -> String {
    format!("{x:.2}%")
}

/// The recovery time by phase against its objective, with its phases in words below.
pub(super) fn time(time: &RecoveryTime) -> Markup {
    let bar = time_bar(time);
    let label = time_label(time);
    html! {
        @if bar.segments.is_empty() {
            p.quiet { "Nothing to draw: the recovery time was not measured." }
        } @else {
            (draw(&bar, bar.scale(), &label))
            @if bar.is_small() {
                p.enlarged { "The same bar, enlarged to " (seconds(bar.total())) }
                (draw(&Bar { objective_s: None, ..time_bar(time) }, bar.total(), "The same bar, enlarged"))
            }
        }
        (phases(time))
    }
}

fn time_bar(time: &RecoveryTime) -> Bar {
    let mut segments: Vec<Segment> = time
        .phases
        .iter()
        .enumerate()
        .filter_map(|(i, phase)| {
            let s = seconds_of(Some(phase))?;
            let assumed = phase.source == MeasuredBy::Assumed;
            Some(Segment { label: phase.name.clone(), number: Some(i + 1), s, assumed })
        })
        .collect();
    let known: f64 = segments.iter().map(|segment| segment.s).sum();
    let rest = time.actual_s.filter(|s| s.is_finite()).unwrap_or(0.0) - known;
    if rest > known * 0.005 {
        let label = "other".to_owned();
        segments.push(Segment { label, number: None, s: rest, assumed: false });
    }
    let unknown = time.phases.iter().any(|phase| seconds_of(Some(phase)).is_none());
    Bar { segments, objective_s: time.objective_s, unknown }
}

fn time_label(time: &RecoveryTime) -> String {
    let parts: Vec<String> =
        time.phases.iter().map(|phase| format!("{} {}", phase.name, phase_words(phase))).collect();
    format!(
        "Recovery time {}: {}",
        format::against(time.actual_s, time.objective_s),
        parts.join("; ")
    )
}

fn phases(time: &RecoveryTime) -> Markup {
    html! {
        ol.phases {
            @for phase in &time.phases {
                li {
                    (swatch(phase.source, seconds_of(Some(phase)).is_none()))
                    span.name { (phase.name) } " " span.figure { (phase_words(phase)) }
                }
            }
        }
    }
}

fn swatch(source: MeasuredBy, unknown: bool) -> Markup {
    let class = match source {
        _ if unknown => "seg-unknown",
        MeasuredBy::Assumed => "seg-assumed",
        _ => "seg-a",
    };
    html! {
        svg.swatch width="14" height="12" aria-hidden="true" {
            rect class=(class) x="1" y="1" width="12" height="10" {}
        }
    }
}

/// Draws a bar whose right edge lies at `scale` seconds.
fn draw(bar: &Bar, scale: f64, label: &str) -> Markup {
    let mut from_s = 0.0;
    let placed: Vec<(f64, f64, &Segment)> = bar
        .segments
        .iter()
        .map(|segment| {
            let (x, end) = (bar.x(from_s, scale), bar.x(from_s + segment.s, scale));
            from_s += segment.s;
            (x, end - x, segment)
        })
        .collect();
    html! {
        svg.bar width="100%" height="46" role="img" aria-label=(label) {
            rect.track x=(pct(bar.start())) y="18" width=(pct(100.0 - bar.start())) height="22" {}
            @if bar.unknown {
                rect.seg-unknown x="0.3%" y="18.5" width=(pct(UNKNOWN_WIDTH - 1.0)) height="21" {}
                text.seg-text.dark x=(pct(UNKNOWN_WIDTH / 2.0)) y="33" text-anchor="middle" { "?" }
            }
            @for (i, (x, width, segment)) in placed.iter().enumerate() {
                (draw_segment(*x, *width, segment, i % 2 == 1))
            }
            @if let Some(objective) = bar.objective_s {
                (objective_line(bar.x(objective, scale), &seconds(objective)))
                @if bar.total() > objective {
                    rect.over x=(pct(bar.x(objective, scale))) y="41"
                        width=(pct(bar.x(bar.total(), scale) - bar.x(objective, scale))) height="4" {}
                }
            }
        }
    }
}

fn draw_segment(x: f64, width: f64, segment: &Segment, odd: bool) -> Markup {
    let class = match (segment.assumed, odd) {
        (true, _) => "seg-assumed",
        (false, true) => "seg-b",
        (false, false) => "seg-a",
    };
    let text_class = if segment.assumed { "seg-text dark" } else { "seg-text" };
    let text = match width {
        NAME_FROM.. => {
            segment.number.map_or_else(String::new, |n| format!("{n} ")) + &segment.label
        }
        NUMBER_FROM.. => segment.number.map_or_else(String::new, |n| n.to_string()),
        _ => String::new(),
    };
    html! {
        rect class=(class) x=(pct(x)) y="18" width=(pct(width)) height="22" {}
        @if !text.is_empty() {
            text class=(text_class) x=(pct(x + width / 2.0)) y="33" text-anchor="middle" { (text) }
        }
    }
}

fn objective_line(x: f64, words: &str) -> Markup {
    let (anchor, shift) = if x > 50.0 { ("end", "-5") } else { ("start", "5") };
    html! {
        line.objective x1=(pct(x)) x2=(pct(x)) y1="0" y2="46" {}
        text.objective-text x=(pct(x)) dx=(shift) y="11" text-anchor=(anchor) { "objective " (words) }
    }
}

/// The bound of the loss against its objective: lost for certain, and perhaps lost.
pub(super) fn loss(loss: &RecoveryLoss) -> Markup {
    let Some(most) = loss.actual_s_max.or(loss.actual_s_min).filter(|s| s.is_finite()) else {
        return html! { p.quiet { "The loss was not measured." } };
    };
    let least = loss.actual_s_min.unwrap_or(0.0).clamp(0.0, most.max(0.0));
    let segment = |label: &str, s: f64, assumed| Segment {
        label: label.to_owned(),
        number: None,
        s: s.max(0.0),
        assumed,
    };
    let bar = Bar {
        segments: vec![segment("lost", least, false), segment("perhaps lost", most - least, true)],
        objective_s: loss.objective_s,
        unknown: false,
    };
    let words = bound(loss.actual_s_min, loss.actual_s_max);
    let label = format!("Loss {words}, {}", format::objective(loss.objective_s));
    draw(&bar, bar.scale(), &label)
}

/// Where a strip's lines lie, in pixels from its top.
const STRIP_HEIGHT: f64 = 104.0;
const STRIP_NOUGHT: f64 = 74.0;
const STRIP_TOP: f64 = 8.0;
const STRIP_WITHOUT: f64 = 94.0;

/// Times beyond so many objectives are drawn at the top.
const STRIP_OBJECTIVES: f64 = 1.35;

/// The drills of one service and disruption as dots: to the right by time, upwards by recovery
/// time; those without a recovery time on a line of their own below.
pub(super) fn strip(data: &ReportData, group: &Rehearsed<'_>) -> Markup {
    let full = full_scale(data, group);
    let line = STRIP_NOUGHT - (STRIP_NOUGHT - STRIP_TOP) / STRIP_OBJECTIVES;
    let has_objective = objective_of(data, group).is_some();
    html! {
        div.strip {
            svg.strip-axis width="74" height=(STRIP_HEIGHT) aria-hidden="true" {
                @if has_objective { text x="68" y=(line + 4.0) text-anchor="end" { "objective" } }
                text x="68" y=(STRIP_NOUGHT + 4.0) text-anchor="end" { "0 s" }
                text x="68" y=(STRIP_WITHOUT + 4.0) text-anchor="end" { "no time" }
            }
            svg.dots width="100%" height=(STRIP_HEIGHT) role="group"
                aria-label=(format!("Drills of {}, {}", group.service, group.disruption)) {
                @if has_objective { line.objective x1="0" x2="100%" y1=(line) y2=(line) {} }
                line.nought x1="0" x2="100%" y1=(STRIP_NOUGHT) y2=(STRIP_NOUGHT) {}
                @for &i in &group.drills { (dot(data, i, full)) }
                @for &i in &group.unfinished { (unfinished_dot(data, i)) }
            }
        }
    }
}

/// The objective of the newest drill that has one: the line of a strip.
fn objective_of(data: &ReportData, group: &Rehearsed<'_>) -> Option<f64> {
    let mut newest = group.drills.iter().rev();
    newest.find_map(|i| data.drills[*i].recovery_time.objective_s).filter(|s| *s > 0.0)
}

/// Seconds at the top of a strip.
fn full_scale(data: &ReportData, group: &Rehearsed<'_>) -> f64 {
    let longest = group.drills.iter().filter_map(|i| data.drills[*i].recovery_time.actual_s);
    let full = objective_of(data, group).map(|objective| objective * STRIP_OBJECTIVES);
    full.unwrap_or_else(|| longest.fold(0.0, f64::max)).max(f64::MIN_POSITIVE)
}

fn dot(data: &ReportData, index: usize, full_s: f64) -> Markup {
    let drill = &data.drills[index];
    let y = match drill.recovery_time.actual_s.filter(|s| s.is_finite()) {
        Some(s) if drill.verdict != Verdict::Aborted => {
            STRIP_NOUGHT - (STRIP_NOUGHT - STRIP_TOP) * (s / full_s).clamp(0.0, 1.0)
        }
        _ => STRIP_WITHOUT,
    };
    let words = format!("{}: {}, {}", drill_name(drill), drill.verdict, time_words(drill));
    let x = share_of_period(data, drill.ended);
    linked_mark(&format!("#d{index}"), &words, drill.verdict.as_str(), x, y)
}

fn unfinished_dot(data: &ReportData, index: usize) -> Markup {
    let drill = &data.unfinished[index];
    let words = format!("drill {}: started, and no end is recorded", drill.number);
    let x = share_of_period(data, drill.started);
    linked_mark(&format!("#u{index}"), &words, "unfinished", x, STRIP_WITHOUT)
}

fn linked_mark(href: &str, words: &str, verdict: &str, share: f64, y: f64) -> Markup {
    html! {
        a href=(href) aria-label=(words) {
            svg x=(pct(2.0 + 96.0 * share)) y=(format!("{y:.1}")) width="1" height="1"
                overflow="visible" class={ "v-" (verdict) } {
                circle.touch r="9" {}
                (shapes::verdict_shape(verdict))
                title { (words) }
            }
        }
    }
}

fn share_of_period(data: &ReportData, at: Timestamp) -> f64 {
    let whole = data.until.duration_since(data.since).as_secs_f64();
    if whole <= 0.0 {
        return 0.5;
    }
    (at.duration_since(data.since).as_secs_f64() / whole).clamp(0.0, 1.0)
}
