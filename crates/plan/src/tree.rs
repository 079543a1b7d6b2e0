//! YAML as a tree in which every node knows where it stands.
//!
//! Built from the parser's events by hand, because what a plan's reader needs is just what a
//! ready-made value has lost: positions, duplicate keys, and whether a scalar was quoted. The
//! text comes from anywhere, so size, depth and what aliases unfold to are bounded.

use std::{collections::BTreeMap, fmt};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};
use serde_json::{Map, Value};

/// The longest text that is read, in bytes: a hundred times a large plan.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// The deepest nesting. A plan needs eight levels.
const DEPTH_MAX: usize = 48;
/// The most nodes, those that aliases repeat included.
const NODES_MAX: usize = 200_000;

/// A place in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

impl Position {
    /// The first character of a text.
    pub const START: Self = Self { line: 1, column: 1 };

    /// So many characters further to the right.
    #[must_use]
    pub fn right(self, characters: usize) -> Self {
        Self { column: self.column + characters, ..self }
    }

    fn of(marker: &Marker) -> Self {
        Self { line: marker.line().max(1), column: marker.col() + 1 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) content: Content,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    Scalar(Scalar),
    List(Vec<Node>),
    /// In the order of the text, duplicates included.
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// Written without quotes, so that `true` is no text.
    pub(crate) plain: bool,
    /// From the position of the node to that of the text's first character; `None` in block
    /// scalars, whose text begins on another line.
    pub(crate) inset: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) at: Position,
    pub(crate) text: String,
}

/// The text is no YAML, or more of it than is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) at: Position,
    pub(crate) message: String,
}

impl Node {
    /// The value of a key; of the first, when there are several.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|(name, _)| name.text == key).map(|(_, node)| node)
    }

    /// Keys and values of a map; nothing of anything else.
    pub(crate) fn entries(&self) -> &[(Key, Self)] {
        match &self.content {
            Content::Map(entries) => entries,
            Content::Scalar(_) | Content::List(_) => &[],
        }
    }

    /// The items of a list; nothing of anything else.
    pub(crate) fn items(&self) -> &[Self] {
        match &self.content {
            Content::List(items) => items,
            Content::Scalar(_) | Content::Map(_) => &[],
        }
    }

    /// The scalar, when it is one.
    pub(crate) fn scalar(&self) -> Option<&Scalar> {
        match &self.content {
            Content::Scalar(scalar) => Some(scalar),
            Content::List(_) | Content::Map(_) => None,
        }
    }

    /// What it is, for a message.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.content {
            Content::List(_) => "a list",
            Content::Map(_) => "a mapping",
            Content::Scalar(scalar) => match scalar.to_json() {
                Value::Null => "nothing",
                Value::Bool(_) => "true or false",
                Value::Number(_) => "a number",
                _ => "a text",
            },
        }
    }

    /// Nothing stands here.
    pub(crate) fn is_null(&self) -> bool {
        self.scalar().is_some_and(|scalar| scalar.to_json().is_null())
    }

    /// The node as JSON sees it; of duplicate keys the first counts.
    pub(crate) fn to_json(&self) -> Value {
        match &self.content {
            Content::Scalar(scalar) => scalar.to_json(),
            Content::List(items) => items.iter().map(Self::to_json).collect(),
            Content::Map(entries) => {
                let mut map = Map::new();
                for (key, node) in entries {
                    map.entry(key.text.clone()).or_insert_with(|| node.to_json());
                }
                Value::Object(map)
            }
        }
    }

    fn count(&self) -> usize {
        let below = match &self.content {
            Content::Scalar(_) => 0,
            Content::List(items) => items.iter().map(Self::count).sum(),
            Content::Map(entries) => entries.iter().map(|(_, node)| 1 + node.count()).sum(),
        };
        below + 1
    }

    fn depth(&self) -> usize {
        let below = match &self.content {
            Content::Scalar(_) => None,
            Content::List(items) => items.iter().map(Self::depth).max(),
            Content::Map(entries) => entries.iter().map(|(_, node)| node.depth()).max(),
        };
        below.unwrap_or(0) + 1
    }
}

impl Key {
    /// The key as a value of its own.
    pub(crate) fn as_node(&self) -> Node {
        scalar(self.at, self.text.clone(), ScalarStyle::SingleQuoted)
    }
}

impl Scalar {
    /// YAML 1.2's core schema: `no` is a text, `true` is not.
    pub(crate) fn to_json(&self) -> Value {
        if !self.plain {
            return Value::from(self.text.as_str());
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Value::Null,
            "true" | "True" | "TRUE" => Value::Bool(true),
            "false" | "False" | "FALSE" => Value::Bool(false),
            text => number(text).unwrap_or_else(|| Value::from(text)),
        }
    }
}

fn number(text: &str) -> Option<Value> {
    let digits = text.trim_start_matches(['-', '+']);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if let Ok(whole) = text.parse::<i64>() {
        return Some(Value::from(whole));
    }
    let is_number = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    let float = is_number.then(|| text.parse::<f64>().ok()).flatten()?;
    serde_json::Number::from_f64(float).map(Value::Number)
}

/// Reads one document.
///
/// # Errors
/// Fails at the first place where the text is no YAML, uses what plans do not (tags, several
/// documents, keys that are no texts), or exceeds a bound.
pub(crate) fn parse(text: &str) -> Result<Node, SyntaxError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(error(Position::START, format!("a plan has at most {TEXT_BYTES_MAX} bytes")));
    }
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        let (event, span) = event.map_err(|cause| scan_error(&cause))?;
        builder.take(event, Position::of(&span.start))?;
    }
    let nothing = || scalar(Position::START, String::new(), ScalarStyle::Plain);
    Ok(builder.root.unwrap_or_else(nothing))
}

fn error(at: Position, message: impl Into<String>) -> SyntaxError {
    SyntaxError { at, message: message.into() }
}

fn scan_error(cause: &ScanError) -> SyntaxError {
    error(Position::of(cause.marker()), cause.info())
}

fn scalar(at: Position, text: String, style: ScalarStyle) -> Node {
    let inset = match style {
        ScalarStyle::Plain => Some(0),
        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Some(1),
        ScalarStyle::Literal | ScalarStyle::Folded => None,
    };
    let plain = style == ScalarStyle::Plain;
    Node { at, content: Content::Scalar(Scalar { text, plain, inset }) }
}

/// A collection that has not ended yet.
struct Open {
    at: Position,
    anchor: usize,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Node>),
    Map(Vec<(Key, Node)>, Option<Key>),
}

/// Turns events into nodes with a stack of its own: recursion would follow the text's nesting.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
    documents: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, at: Position) -> Result<(), SyntaxError> {
        match event {
            Event::DocumentStart(_) => self.begin_document(at),
            Event::Alias(anchor) => self.repeat(anchor, at),
            Event::Scalar(text, style, anchor, tag) => {
                let text_only = refuse_tag(tag.as_deref(), at)?;
                let mut node = scalar(at, text.into_owned(), style);
                if let Content::Scalar(scalar) = &mut node.content {
                    scalar.plain &= !text_only;
                }
                self.count(1, at)?;
                self.put(node, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.begin(at, anchor, tag.as_deref(), OpenKind::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.begin(at, anchor, tag.as_deref(), OpenKind::Map(Vec::new(), None))
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn begin_document(&mut self, at: Position) -> Result<(), SyntaxError> {
        self.documents += 1;
        match self.documents {
            1 => Ok(()),
            _ => Err(error(at, "a second document begins here, and a plan is one")),
        }
    }

    fn begin(
        &mut self,
        at: Position,
        anchor: usize,
        tag: Option<&Tag>,
        kind: OpenKind,
    ) -> Result<(), SyntaxError> {
        refuse_tag(tag, at)?;
        self.count(1, at)?;
        if self.open.len() >= DEPTH_MAX {
            return Err(error(at, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        self.open.push(Open { at, anchor, kind });
        Ok(())
    }

    fn end(&mut self) -> Result<(), SyntaxError> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let content = match open.kind {
            OpenKind::List(items) => Content::List(items),
            OpenKind::Map(entries, _) => Content::Map(entries),
        };
        self.put(Node { at: open.at, content }, open.anchor)
    }

    fn repeat(&mut self, anchor: usize, at: Position) -> Result<(), SyntaxError> {
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(error(at, "this alias stands inside what it repeats"));
        };
        let (count, depth) = (node.count(), node.depth());
        let node = Node { at, content: node.content.clone() };
        self.count(count, at)?;
        if self.open.len() + depth > DEPTH_MAX {
            return Err(error(at, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        self.put(node, 0)
    }

    fn count(&mut self, more: usize, at: Position) -> Result<(), SyntaxError> {
        self.nodes += more;
        match self.nodes > NODES_MAX {
            true => Err(error(at, format!("more than {NODES_MAX} values, repeated ones included"))),
            false => Ok(()),
        }
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), SyntaxError> {
        if anchor > 0 {
            self.count(node.count(), node.at)?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.root = self.root.take().or(Some(node)),
            Some(OpenKind::List(items)) => items.push(node),
            Some(OpenKind::Map(entries, key)) => match key.take() {
                Some(key) => entries.push((key, node)),
                None => *key = Some(as_key(node)?),
            },
        }
        Ok(())
    }
}

fn as_key(node: Node) -> Result<Key, SyntaxError> {
    match node.content {
        Content::Scalar(scalar) => Ok(Key { at: node.at, text: scalar.text }),
        Content::List(_) | Content::Map(_) => Err(error(node.at, "a key must be a text")),
    }
}

/// Refuses tags, but for `!!str`, which makes a text of what looks like a number: then `true`.
fn refuse_tag(tag: Option<&Tag>, at: Position) -> Result<bool, SyntaxError> {
    match tag {
        None => Ok(false),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Ok(true),
        Some(tag) if tag.is_yaml_core_schema() => Ok(false),
        Some(tag) => Err(error(at, format!("the tag {tag} means nothing in a plan"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_error(text: &str, line: usize, column: usize, part: &str) {
        let error = parse(text).unwrap_err();
        assert_eq!(error.at, Position { line, column }, "{error:?}");
        assert!(error.message.contains(part), "{error:?}");
    }

    #[test]
    fn nodes_know_their_line_and_column_in_characters() {
        let root = parse("# ä\nname: \"ä\"\nlist: [ö, {k: v}]\nempty:\n").unwrap();
        let at = |node: &Node| (node.at.line, node.at.column);
        assert_eq!(at(root.get("name").unwrap()), (2, 7));
        let list = root.get("list").unwrap();
        assert_eq!(at(list), (3, 7));
        assert_eq!(at(&list.items()[1]), (3, 11));
        assert_eq!(at(list.items()[1].get("k").unwrap()), (3, 15));
        assert_eq!(root.entries()[3 - 1].0.at, Position { line: 4, column: 1 });
        assert!(root.get("empty").unwrap().is_null());
    }

    #[test]
    fn duplicate_keys_are_kept() {
        let root = parse("a: 1\na: 2\n").unwrap();
        assert_eq!(root.entries().len(), 2);
        assert_eq!(root.to_json(), serde_json::json!({"a": 1}));
    }

    #[test]
    fn scalars_follow_yaml_1_2() {
        let json = |text: &str| parse(text).unwrap().to_json();
        assert_eq!(json("no"), "no");
        assert_eq!(json("true"), true);
        assert_eq!(json("'true'"), "true");
        assert_eq!(json("1.5"), 1.5);
        assert_eq!(json("-3"), -3);
        assert_eq!(json("15m"), "15m");
        assert_eq!(json("!!str 5"), "5");
        assert_eq!(json(".inf"), ".inf");
        assert!(json("~").is_null());
        assert!(json("").is_null());
    }

    #[test]
    fn an_alias_repeats_and_a_bomb_does_not_go_off() {
        let root = parse("a: &x {k: v}\nb: *x\n").unwrap();
        assert_eq!(root.get("b").unwrap().get("k").unwrap().to_json(), "v");
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..20 {
            let below = format!("*a{}", level - 1);
            let line = [below.as_str(); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{line}]\n"));
        }
        assert!(parse(&bomb).unwrap_err().message.contains("more than"), "the bomb went off");
        check_error("a: &x [*x]\n", 1, 8, "inside");
    }

    #[test]
    fn what_plans_do_not_use_is_refused_where_it_stands() {
        check_error("a: !secret x\n", 1, 4, "tag");
        check_error("a: 1\n---\nb: 2\n", 2, 1, "second document");
        check_error("? [a]\n: 1\n", 1, 3, "key");
        check_error(&"[".repeat(DEPTH_MAX + 9), 1, DEPTH_MAX + 1, "nested");
        check_error(&"[".repeat(500), 1, 256, "recursion");
        check_error("a: [1\nb: 2\n", 2, 2, "");
        check_error(&"x".repeat(TEXT_BYTES_MAX + 1), 1, 1, "bytes");
    }
}
