//! What patterns have seen of a path so far.
//!
//! Two folders of the same [`Followed`] are the same to the patterns: whatever lies below is
//! matched at both or at neither. So a tree that is shared by countless paths is looked at a few
//! times only. It is the language of `exclude.rs` once more, component by component, the corners
//! of `**` included; tests compare the two.

use super::{Part, Pattern, Patterns, to_lower_case};

/// What a list of patterns has seen of a folder's path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Followed {
    /// Components so far, as far as they matter.
    depth: usize,
    /// For each pattern.
    patterns: Vec<Progress>,
}

/// How far one pattern is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Progress {
    /// It decides nothing any more, since a later one has matched.
    Over,
    /// It has matched, and so it does all below.
    Matched,
    /// The places in the pattern where the path may go on; in order.
    Partial(Vec<Place>),
}

/// A place in a pattern. The last three are only counted where there are several `**`, and no
/// further than their number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Place {
    /// The part that comes next.
    at: usize,
    /// Components that the `**` here has taken.
    taken: usize,
    /// Components that must follow because a `**` stood for too few (see `matches_unfolded`).
    owed: usize,
    /// Components before the first that was matched; what is owed is less by as many.
    before: usize,
}

impl Patterns {
    /// What is seen of the root.
    pub(crate) fn follow(&self) -> Followed {
        let patterns = vec![Progress::Partial(Vec::new()); self.patterns.len()];
        self.step(Followed { depth: 0, patterns }, b"/")
    }

    /// What is seen of the folder `name` in a folder of which `above` was.
    pub(crate) fn follow_into(&self, above: &Followed, name: &[u8]) -> Followed {
        match self.ignores_case {
            true => self.step(above.clone(), &to_lower_case(name)),
            false => self.step(above.clone(), name),
        }
    }

    fn step(&self, mut followed: Followed, component: &[u8]) -> Followed {
        let depth = followed.depth;
        for (pattern, progress) in self.patterns.iter().zip(&mut followed.patterns) {
            if let Progress::Partial(places) = progress {
                *progress = pattern.step(places, component, depth);
            }
        }
        let matched = |progress: &Progress| matches!(progress, Progress::Matched);
        if let Some(last) = followed.patterns.iter().rposition(matched) {
            followed.patterns[..last].fill(Progress::Over);
        }
        let stars = self.patterns.iter().map(Pattern::stars).max().unwrap_or(0);
        followed.depth = (depth + 1).min(stars.max(1));
        followed
    }

    /// Whether the patterns match the path that was followed.
    #[cfg(test)]
    fn match_followed(&self, followed: &Followed) -> bool {
        let states = self.patterns.iter().zip(&followed.patterns);
        let last = states.rev().find(|(_, progress)| matches!(progress, Progress::Matched));
        last.is_some_and(|(pattern, _)| !pattern.is_negated)
    }
}

impl Pattern {
    /// How many `**` there are.
    fn stars(&self) -> usize {
        self.parts.iter().filter(|part| matches!(part, Part::AnyDepth)).count()
    }

    /// Goes one component on. `depth` is that component's place in the path, at most the number
    /// of `**`, or 1.
    fn step(&self, places: &[Place], component: &[u8], depth: usize) -> Progress {
        let stars = self.stars();
        let mut next = Vec::new();
        let is_anchored = matches!(self.parts[0], Part::Root);
        let mut now = places.to_vec();
        if is_anchored == (depth == 0) {
            let before = if stars > 1 { depth } else { 0 };
            self.arrive(Place { before, ..Place::default() }, &mut now);
            // Nothing at all matches nothing.
            now.retain(|place| place.at < self.parts.len() || place.owed > 0);
        }
        for place in now {
            match self.parts.get(place.at) {
                None if place.owed > 1 => next.push(Place { owed: place.owed - 1, ..place }),
                None => return Progress::Matched,
                Some(Part::AnyDepth) => {
                    let counts = self.star_number(place.at) > 1;
                    let taken = if counts { (place.taken + 1).min(stars) } else { 0 };
                    self.arrive(Place { taken, ..place }, &mut next);
                }
                Some(part) if part.matches(component) => {
                    self.arrive(Place { at: place.at + 1, ..place }, &mut next);
                }
                Some(_) => {}
            }
        }
        if next.iter().any(|place| place.at == self.parts.len() && place.owed == 0) {
            return Progress::Matched;
        }
        next.sort_unstable();
        next.dedup();
        Progress::Partial(next)
    }

    /// Notes a place, and those behind the `**` that stand there.
    fn arrive(&self, mut place: Place, places: &mut Vec<Place>) {
        while let Some(Part::AnyDepth) = self.parts.get(place.at) {
            places.push(place);
            let owed = match self.star_number(place.at) {
                1 => 0,
                _ => (place.owed + 1).saturating_sub(place.taken),
            };
            place = Place { at: place.at + 1, taken: 0, owed, ..place };
        }
        if place.at == self.parts.len() {
            let owed = place.owed.saturating_sub(place.before);
            place = Place { at: place.at, owed, ..Place::default() };
        }
        places.push(place);
    }

    /// The how-manieth `**` stands there.
    fn star_number(&self, at: usize) -> usize {
        self.parts[..=at].iter().filter(|part| matches!(part, Part::AnyDepth)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All texts of 1 to `longest` of these, joined by `/`.
    fn joined(of: &[&str], longest: usize) -> Vec<String> {
        let mut all: Vec<String> = of.iter().map(ToString::to_string).collect();
        let mut last = all.clone();
        for _ in 1..longest {
            let longer =
                |text: &String| of.iter().map(|more| format!("{text}/{more}")).collect::<Vec<_>>();
            last = last.iter().flat_map(longer).collect();
            all.extend_from_slice(&last);
        }
        all
    }

    fn check(patterns: &Patterns, path: &str, shown: &dyn std::fmt::Debug) {
        let names = path.split('/');
        let followed = names
            .fold(patterns.follow(), |above, name| patterns.follow_into(&above, name.as_bytes()));
        let expected = patterns.matches(format!("/{path}").as_bytes());
        assert_eq!(patterns.match_followed(&followed), expected, "{shown:?} at /{path}");
    }

    #[test]
    fn what_was_followed_matches_as_the_whole_path_does() {
        let paths = joined(&["a", "b"], 6);
        for pattern in joined(&["a", "*", "**"], 4) {
            for pattern in [format!("/{pattern}"), pattern] {
                let patterns = Patterns::parse([&pattern]).unwrap();
                paths.iter().for_each(|path| check(&patterns, path, &pattern));
            }
        }
    }

    #[test]
    fn the_last_pattern_decides() {
        let paths = joined(&["a", "b", "C"], 4);
        for list in [
            &["a", "!b", "a/b"][..],
            &["/a/**", "!/a/b", "c"],
            &["/", "!a/a"],
            &["**/**/a", "!b/**", "/**/b/**/a"],
        ] {
            let patterns = Patterns::parse_ignoring_case(list).unwrap();
            paths.iter().for_each(|path| check(&patterns, path, &list));
        }
    }

    #[test]
    fn folders_that_are_the_same_to_the_patterns_are_told_to_be() {
        let patterns = Patterns::parse(["*.tmp", "x/y", "/q/**/z"]).unwrap();
        let at = |path: &str| {
            let names = path.split('/');
            names.fold(patterns.follow(), |at, name| patterns.follow_into(&at, name.as_bytes()))
        };
        assert_eq!(at("a"), at("b/c/d"));
        assert_eq!(at("a/x"), at("x/a/x"));
        assert_ne!(at("a"), at("x"));
        assert_eq!(at("q/a"), at("q/b/c"));
        assert_ne!(at("q/a"), at("a/a"));
    }
}
