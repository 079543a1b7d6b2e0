//! Small marks, one per verdict and standing: told apart by shape, so that they can be read in
//! black and white and by people who see no red.

use maud::{Markup, html};
use muster_control::matrix::Standing;

/// Patterns that other drawings of the page refer to by id; goes into the page once.
pub(super) fn patterns() -> Markup {
    html! {
        svg.patterns width="0" height="0" aria-hidden="true" focusable="false" {
            defs {
                pattern #hatch width="6" height="6" patternUnits="userSpaceOnUse"
                    patternTransform="rotate(45)" {
                    rect.hatch-ground width="6" height="6" {}
                    rect.hatch-line width="2" height="6" {}
                }
                pattern #hatch-stale width="4" height="4" patternUnits="userSpaceOnUse"
                    patternTransform="rotate(45)" {
                    rect.stale-line width="1.8" height="4" {}
                }
            }
        }
    }
}

/// The mark of a standing. The word stands beside it, so it is hidden from readers aloud.
pub(super) fn standing(standing: Standing) -> Markup {
    html! {
        svg.mark width="18" height="18" viewBox="-9 -9 18 18" aria-hidden="true" {
            @match standing {
                Standing::Proven => {
                    circle.solid r="8" {}
                    path.knock d="M-4 0.2 -1.2 3 4 -3" {}
                }
                Standing::Failing => {
                    rect.solid x="-7.5" y="-7.5" width="15" height="15" rx="2" {}
                    path.knock d="M-3.4 -3.4 3.4 3.4 M3.4 -3.4 -3.4 3.4" {}
                }
                Standing::Stale => circle.line r="7.2" fill="url(#hatch-stale)" {},
                Standing::Never => circle.line.dashed r="7.2" {},
            }
        }
    }
}

/// The mark of a verdict, or of "unfinished", around the origin: to be put into a drawing.
pub(super) fn verdict_shape(verdict: &str) -> Markup {
    html! {
        @match verdict {
            "pass" => circle.solid r="5" {},
            "fail" => path.cross d="M-4.5 -4.5 4.5 4.5 M4.5 -4.5 -4.5 4.5" {},
            "inconclusive" => {
                circle.line r="4.8" {}
                path.solid d="M0 -4.8 A4.8 4.8 0 0 1 0 4.8 Z" {}
            },
            "error" => path.line d="M0 -5.6 5.4 4.4 -5.4 4.4 Z" {},
            "aborted" => rect.line x="-4.4" y="-4.4" width="8.8" height="8.8" {},
            "expired" => path.line d="M0 -6 6 0 0 6 -6 0 Z" {},
            "skipped" => path.cross d="M-5 0 H5" {},
            _ => circle.line.dashed r="5" {},
        }
    }
}

/// The mark of a verdict as a drawing of its own, beside its word.
pub(super) fn verdict(verdict: &str) -> Markup {
    html! {
        svg.mark width="16" height="16" viewBox="-8 -8 16 16" aria-hidden="true" {
            (verdict_shape(verdict))
        }
    }
}
