//! Patterns that say which paths to leave out of a backup, or to bring back from one.
//!
//! The language is restic's, its corners included, because people keep their exclude files when
//! they change the tool:
//!
//! - A pattern is matched component by component. In each, `*` stands for any text, `?` for one
//!   character, `[a-z]` and `[^a-z]` for one of a class, and `\` takes the next character as it is.
//! - `**` as a component stands for any number of components.
//! - With a leading `/` a pattern begins at the root. Otherwise it matches at any depth: `*.o` and
//!   `build/*.o` need no `**/` in front.
//! - A pattern that matches a folder matches everything below it.
//! - With a leading `!` a pattern takes back what patterns before it have matched. The last pattern
//!   that says anything about a path decides.
//!
//! Patterns are cleaned like paths: `/a//b/` is `/a/b`, and `a/../b` is `b`. Paths are bytes and
//! are taken as they are.
//!
//! **Invariant:** matching cannot fail; a malformed pattern is refused when it is parsed. Nothing
//! in here looks at the file system or the environment.
//!
//! # Source
//!
//! restic's `internal/filter/filter.go`, `exclude.go` and `include.go`; Go's `filepath.Match`,
//! `filepath.Clean`, `strings.ToLower` and `os.Expand`.

mod followed;

use std::borrow::{Borrow, Cow};

pub(crate) use self::followed::Followed;

/// A list of patterns, in the order that decides.
///
/// ```
/// use muster_repository::exclude::Patterns;
///
/// let excludes = Patterns::parse(["/home/*/.cache", "*.o", "!keep.o"])?;
/// assert!(excludes.matches(b"/home/ada/.cache/thumbnails/1.png"));
/// assert!(excludes.matches(b"/src/main.o"));
/// assert!(!excludes.matches(b"/src/keep.o"));
/// # Ok::<(), muster_repository::exclude::PatternError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    patterns: Vec<Pattern>,
    ignores_case: bool,
}

impl Patterns {
    /// Parses patterns; empty ones are skipped.
    ///
    /// # Errors
    ///
    /// When patterns are malformed: a class that is not closed, is empty or has half a range, or a
    /// `\` at the end of a component.
    pub fn parse<P: AsRef<[u8]>>(
        patterns: impl IntoIterator<Item = P>,
    ) -> Result<Self, PatternError> {
        Self::parse_with(patterns, false)
    }

    /// Parses patterns which take capital and small letters for the same.
    ///
    /// # Errors
    ///
    /// As [`Patterns::parse`].
    pub fn parse_ignoring_case<P: AsRef<[u8]>>(
        patterns: impl IntoIterator<Item = P>,
    ) -> Result<Self, PatternError> {
        Self::parse_with(patterns, true)
    }

    fn parse_with<P: AsRef<[u8]>>(
        patterns: impl IntoIterator<Item = P>,
        ignores_case: bool,
    ) -> Result<Self, PatternError> {
        let mut parsed = Vec::new();
        let mut malformed = Vec::new();
        for text in patterns {
            let text = text.as_ref();
            if text.is_empty() {
                continue;
            }
            // Judged as it was written first: in small letters, bytes that are no text would pass.
            let pattern = Pattern::parse(text).and_then(|pattern| {
                if ignores_case { Pattern::parse(&to_lower_case(text)) } else { Some(pattern) }
            });
            match pattern {
                Some(pattern) => parsed.push(pattern),
                None => malformed.push(String::from_utf8_lossy(text).into_owned()),
            }
        }
        if malformed.is_empty() {
            Ok(Self { patterns: parsed, ignores_case })
        } else {
            Err(PatternError { patterns: malformed })
        }
    }

    /// Returns whether there is no pattern, so that nothing can match.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Returns whether the patterns match `path` or a folder it is in.
    ///
    /// The empty path matches nothing.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.judge_components(path, |components| self.decide(|pattern| pattern.matches(components)))
            .unwrap_or(false)
    }

    /// Returns whether the patterns match `path` or a folder it is in, and whether they possibly
    /// match anything below `path`.
    ///
    /// A restore descends into a folder when the second is true, and brings it back when the first
    /// is. "Possibly" is coarse: a pattern that does not begin at the root may match anywhere.
    pub fn matches_with_child(&self, path: &[u8]) -> (bool, bool) {
        self.judge_components(path, |components| {
            let matched = self.decide(|pattern| pattern.matches(components));
            let child_may_match = self.decide(|pattern| {
                if pattern.is_negated {
                    pattern.matches(components)
                } else {
                    pattern.child_may_match(components)
                }
            });
            (matched, child_may_match)
        })
        .unwrap_or((false, false))
    }

    fn judge_components<T>(&self, path: &[u8], judge: impl FnOnce(&[&[u8]]) -> T) -> Option<T> {
        if self.patterns.is_empty() || path.is_empty() {
            return None;
        }
        Some(if self.ignores_case {
            judge(&path_components(&to_lower_case(path)))
        } else {
            judge(&path_components(path))
        })
    }

    /// Lets the last pattern decide that has something to say.
    fn decide(&self, has_a_say: impl Fn(&Pattern) -> bool) -> bool {
        let last = self.patterns.iter().rev().find(|pattern| has_a_say(pattern));
        last.is_some_and(|pattern| !pattern.is_negated)
    }
}

/// Patterns that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parse patterns: malformed: {}", .patterns.join(", "))]
pub struct PatternError {
    /// The malformed patterns, in their order, as far as they are text.
    pub patterns: Vec<String>,
}

/// Reads the patterns in the text of an exclude or include file.
///
/// One to a line; white space around it is dropped, and so are empty lines and those that begin
/// with `#`. In the others, `$NAME` and `${NAME}` are replaced by what `variable` returns for the
/// name, nothing if it does not know it, and `$$` by a dollar sign. There is no other way to quote
/// a dollar sign; one before anything that is no name stays as it is.
///
/// The text may begin with a byte order mark; the two of UTF-16 are understood as well.
pub fn patterns_in_file(
    text: &[u8],
    mut variable: impl FnMut(&[u8]) -> Option<Vec<u8>>,
) -> Vec<Vec<u8>> {
    decode_text(text)
        .split(|byte| *byte == b'\n')
        .map(trim)
        .filter(|line| !line.is_empty() && !line.starts_with(b"#"))
        .map(|line| expand_variables(line, &mut variable))
        .collect()
}

#[derive(Debug, Clone)]
struct Pattern {
    is_negated: bool,
    /// At least one.
    parts: Vec<Part>,
}

/// What a pattern says of one component of the path.
#[derive(Debug, Clone)]
enum Part {
    /// The `/` that an absolute path begins with; only ever the first part.
    Root,
    /// `**`: any number of components.
    AnyDepth,
    /// `*`, as which `**` is unfolded: one component.
    Any,
    Literal(Vec<u8>),
    Glob(Glob),
}

impl Pattern {
    /// Returns `None` when the pattern is malformed.
    fn parse(text: &[u8]) -> Option<Self> {
        let (is_negated, text) = match text.strip_prefix(b"!") {
            Some(text) => (true, text),
            None => (false, text),
        };
        let parts = clean(text).into_iter().map(Part::parse).collect::<Option<_>>()?;
        Some(Self { is_negated, parts })
    }

    fn matches(&self, components: &[&[u8]]) -> bool {
        if self.any_depth_at().is_none() {
            return matches_components(&self.parts, components);
        }
        let mut unfolded = Vec::with_capacity(self.parts.len() + components.len());
        matches_unfolded(&mut unfolded, &self.parts, components)
    }

    /// Returns whether the pattern may match something below the path of these components.
    fn child_may_match(&self, components: &[&[u8]]) -> bool {
        if !matches!(self.parts[0], Part::Root) {
            return true;
        }
        // A path that ends with `/`, such as the root, does not name its child yet. (restic would
        // compare the empty name, but never asks about such a path.)
        let components = match components {
            [named @ .., b""] => named,
            _ => components,
        };
        // From `**` on, anything goes.
        let n_parts = self.any_depth_at().unwrap_or(self.parts.len());
        let n_compared = n_parts.min(components.len());
        let components = match self.any_depth_at() {
            Some(_) => &components[..n_compared],
            None => components,
        };
        matches_components(&self.parts[..n_compared], components)
    }

    fn any_depth_at(&self) -> Option<usize> {
        self.parts.iter().position(|part| matches!(part, Part::AnyDepth))
    }
}

impl Part {
    fn parse(text: &[u8]) -> Option<Self> {
        Some(match text {
            b"/" => Self::Root,
            // The root alone has nothing behind its `/`, which restic takes for `**`.
            b"**" | b"" => Self::AnyDepth,
            _ if text.iter().any(|byte| br"\[]*?".contains(byte)) => Self::Glob(Glob::parse(text)?),
            _ => Self::Literal(text.to_vec()),
        })
    }

    fn matches(&self, component: &[u8]) -> bool {
        match self {
            Self::Root => component == b"/",
            Self::AnyDepth | Self::Any => true,
            Self::Literal(text) => component == text,
            Self::Glob(glob) => glob.matches(component),
        }
    }
}

/// Tries every way to unfold the `**` in `rest`, each into some number of `*`, behind the parts
/// that are `unfolded` already.
///
/// restic stops unfolding when the pattern, with every later `**` still counted as one component,
/// would become longer than the path. A second `**` can therefore not always stand for nothing:
/// `/**/x/**` does not match `/a/x`, although it matches all below.
fn matches_unfolded<'a>(
    unfolded: &mut Vec<&'a Part>,
    rest: &'a [Part],
    components: &[&[u8]],
) -> bool {
    let n_unfolded = unfolded.len();
    let at = rest.iter().position(|part| matches!(part, Part::AnyDepth));
    unfolded.extend(&rest[..at.unwrap_or(rest.len())]);
    let matched = match at {
        None => matches_components(unfolded, components),
        Some(at) => {
            let behind = &rest[at + 1..];
            let n_components_left = components.len().checked_sub(unfolded.len() + behind.len());
            n_components_left.is_some_and(|n_left| {
                (0..=n_left).any(|n_any| {
                    if n_any > 0 {
                        unfolded.push(&Part::Any);
                    }
                    matches_unfolded(unfolded, behind, components)
                })
            })
        }
    };
    unfolded.truncate(n_unfolded);
    matched
}

/// Matches parts without `**` with as many components in a row, at the root or anywhere.
fn matches_components<P: Borrow<Part>>(parts: &[P], components: &[&[u8]]) -> bool {
    let (Some(first), Some(n_behind)) = (parts.first(), components.len().checked_sub(parts.len()))
    else {
        return false;
    };
    let offsets = match first.borrow() {
        Part::Root => 0..=0,
        _ => usize::from(components[0] == b"/")..=n_behind,
    };
    offsets.into_iter().any(|offset| {
        parts
            .iter()
            .zip(&components[offset..])
            .all(|(part, component)| part.borrow().matches(component))
    })
}

/// A component's pattern, cut at its stars.
#[derive(Debug, Clone, Default)]
struct Glob {
    chunks: Vec<Chunk>,
}

/// A star, except perhaps at the start of the pattern, and what follows it up to the next one.
#[derive(Debug, Clone, Default)]
struct Chunk {
    follows_star: bool,
    units: Vec<Unit>,
}

#[derive(Debug, Clone)]
enum Unit {
    Byte(u8),
    AnyCharacter,
    Class { is_negated: bool, ranges: Vec<(u32, u32)> },
}

impl Glob {
    /// Returns `None` when the pattern is malformed.
    fn parse(text: &[u8]) -> Option<Self> {
        let mut chunks = vec![Chunk::default()];
        let mut rest = text;
        while let Some((&byte, behind)) = rest.split_first() {
            rest = behind;
            let unit = match byte {
                b'*' => {
                    // Several stars in a row are one, and at the start nothing goes before it.
                    chunks.pop_if(|chunk| chunk.units.is_empty());
                    chunks.push(Chunk { follows_star: true, units: Vec::new() });
                    continue;
                }
                b'?' => Unit::AnyCharacter,
                b'[' => parse_class(&mut rest)?,
                b'\\' => Unit::Byte(*rest.split_off_first()?),
                _ => Unit::Byte(byte),
            };
            chunks.last_mut()?.units.push(unit);
        }
        Some(Self { chunks })
    }

    /// Takes each chunk where it fits first, as Go does, and never tries a later place again.
    fn matches(&self, component: &[u8]) -> bool {
        let mut rest = component;
        for (index, chunk) in self.chunks.iter().enumerate() {
            let is_last = index + 1 == self.chunks.len();
            if is_last && chunk.units.is_empty() {
                return true;
            }
            let skips = if chunk.follows_star { 0..=rest.len() } else { 0..=0 };
            let behind = skips
                .filter_map(|n_skipped| chunk.strip(&rest[n_skipped..]))
                .find(|behind| !is_last || behind.is_empty());
            match behind {
                Some(behind) => rest = behind,
                None => return false,
            }
        }
        rest.is_empty()
    }
}

impl Chunk {
    /// Matches the start of `text` and returns what follows.
    fn strip<'a>(&self, text: &'a [u8]) -> Option<&'a [u8]> {
        self.units.iter().try_fold(text, |rest, unit| {
            let (&byte, behind_byte) = rest.split_first()?;
            match unit {
                Unit::Byte(expected) => (byte == *expected).then_some(behind_byte),
                Unit::AnyCharacter => Some(split_character(rest)?.1),
                Unit::Class { is_negated, ranges } => {
                    let (character, behind) = split_character(rest)?;
                    let code = u32::from(character.unwrap_or(char::REPLACEMENT_CHARACTER));
                    let is_in = ranges.iter().any(|&(low, high)| low <= code && code <= high);
                    (is_in != *is_negated).then_some(behind)
                }
            }
        })
    }
}

/// Reads a class behind its `[` up to and including the `]`.
fn parse_class(rest: &mut &[u8]) -> Option<Unit> {
    let is_negated = rest.split_off(..usize::from(rest.starts_with(b"^")))? == b"^";
    let mut ranges = Vec::new();
    while ranges.is_empty() || !rest.starts_with(b"]") {
        let low = parse_class_character(rest)?;
        let high = if rest.starts_with(b"-") {
            rest.split_off_first()?;
            parse_class_character(rest)?
        } else {
            low
        };
        ranges.push((low.into(), high.into()));
    }
    rest.split_off_first()?;
    Some(Unit::Class { is_negated, ranges })
}

fn parse_class_character(rest: &mut &[u8]) -> Option<char> {
    match rest.first()? {
        b'-' | b']' => return None,
        b'\\' => _ = rest.split_off_first()?,
        _ => {}
    }
    let (character, behind) = split_character(rest)?;
    *rest = behind;
    character
}

/// Splits off the first character, or the first byte when it is not part of one.
fn split_character(text: &[u8]) -> Option<(Option<char>, &[u8])> {
    let start = &text[..text.len().min(4)];
    let character = start.utf8_chunks().next()?.valid().chars().next();
    Some((character, &text[character.map_or(1, char::len_utf8)..]))
}

/// Cleans a pattern like a path and splits it: the root first if it has one, then the components.
fn clean(text: &[u8]) -> Vec<&[u8]> {
    let mut cleaned: Vec<&[u8]> = Vec::new();
    let is_absolute = text.starts_with(b"/");
    if is_absolute {
        cleaned.push(b"/");
    }
    for component in text.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => match cleaned.last() {
                Some(&b"/") => {}
                Some(&last) if last != b".." => _ = cleaned.pop(),
                _ => cleaned.push(component),
            },
            _ => cleaned.push(component),
        }
    }
    match cleaned[..] {
        [] => vec![b"."],
        [b"/"] => vec![b"/", b""],
        _ => cleaned,
    }
}

/// Splits a path, without cleaning it: the root first if it has one, then the components.
fn path_components(path: &[u8]) -> Vec<&[u8]> {
    let mut components = path.split(|byte| *byte == b'/').collect::<Vec<_>>();
    if components[0].is_empty() {
        components[0] = b"/";
    }
    components
}

/// Changes letters to small ones, one for one, and bytes that are no text to U+FFFD.
fn to_lower_case(text: &[u8]) -> Vec<u8> {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    // Only İ has more than one small character for it; Go knows the first.
    let to_lower = |character: char| character.to_lowercase().next();
    text.utf8_chunks()
        .flat_map(|chunk| {
            let invalid = chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER);
            chunk.valid().chars().filter_map(to_lower).chain(invalid)
        })
        .collect::<String>()
        .into_bytes()
}

/// Removes a byte order mark and turns UTF-16 that had one into UTF-8.
fn decode_text(text: &[u8]) -> Cow<'_, [u8]> {
    let decode_utf_16 = |text: &[u8], to_unit: fn([u8; 2]) -> u16| {
        let units = text.as_chunks().0.iter().map(|unit| to_unit(*unit));
        let characters = char::decode_utf16(units)
            .map(|character| character.unwrap_or(char::REPLACEMENT_CHARACTER));
        Cow::Owned(characters.collect::<String>().into_bytes())
    };
    match text {
        [0xef, 0xbb, 0xbf, text @ ..] => Cow::Borrowed(text),
        [0xfe, 0xff, text @ ..] => decode_utf_16(text, u16::from_be_bytes),
        [0xff, 0xfe, text @ ..] => decode_utf_16(text, u16::from_le_bytes),
        _ => Cow::Borrowed(text),
    }
}

/// Drops white space of all Unicode from both ends, also around bytes that are no text.
fn trim(line: &[u8]) -> &[u8] {
    let leading = line.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    let line = &line[leading.len() - leading.trim_start().len()..];
    let trailing = line.utf8_chunks().last().filter(|chunk| chunk.invalid().is_empty());
    let trailing = trailing.map_or("", |chunk| chunk.valid());
    &line[..line.len() - (trailing.len() - trailing.trim_end().len())]
}

/// Replaces variables the way Go's `os.Expand` does, except that `$$` is a dollar sign.
fn expand_variables(line: &[u8], variable: &mut impl FnMut(&[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut expanded = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'$' || behind.is_empty() {
            expanded.push(byte);
            continue;
        }
        let (name, n_bytes) = variable_name(behind);
        rest = &behind[n_bytes..];
        match name {
            // A bad name in braces vanishes with them, a dollar sign before none stays.
            b"" if n_bytes == 0 => expanded.push(b'$'),
            b"" => {}
            b"$" => expanded.push(b'$'),
            _ => expanded.extend(variable(name).unwrap_or_default()),
        }
    }
    expanded
}

/// Reads the name of a variable, in braces or not, and returns it and how many bytes it took.
/// `text` is not empty.
fn variable_name(text: &[u8]) -> (&[u8], usize) {
    let is_special = |byte: u8| b"*#$@!?-0123456789".contains(&byte);
    match text {
        [b'{', special, b'}', ..] if is_special(*special) => (&text[1..2], 3),
        [b'{', ..] => match text.iter().position(|byte| *byte == b'}') {
            Some(end) => (&text[1..end], end + 1),
            None => (b"", 1),
        },
        [special, ..] if is_special(*special) => (&text[..1], 1),
        _ => {
            let is_in_name = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_';
            let n_bytes = text.iter().take_while(is_in_name).count();
            (&text[..n_bytes], n_bytes)
        }
    }
}

#[cfg(test)]
mod tests;
