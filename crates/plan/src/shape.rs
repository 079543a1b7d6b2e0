//! The shape of a plan, as data: which fields there are and what belongs in each.
//!
//! One table ([`crate::fields`]) serves three readers, so that they cannot drift apart: the
//! check in this module, the JSON Schema, and the reference of fields. The check reports all
//! that is wrong; what is right the decoder takes from the same tree.

use muster_model::{Finding, Severity};

use crate::{
    position::join,
    tree::{Content, Key, Node, Position},
    value::{self, Wrong},
};

/// What belongs in a place.
#[derive(Debug)]
pub(crate) enum Shape {
    /// The number 1: the version of the language.
    Version,
    Text,
    Word,
    Duration,
    /// A duration of the calendar, in restic's words.
    Within,
    /// Bytes per second.
    Rate,
    Percentage,
    Count,
    ExitCode,
    Status,
    Bool,
    Schedule,
    TimeZone,
    Date,
    Secret,
    Address,
    /// Where a repository is.
    Place,
    PostgresUrl,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Any value.
    Any,
    /// Any scalar that is not nothing.
    Scalar,
    /// Program and arguments; never empty.
    Argv,
    List(&'static Shape),
    OneOrMore(&'static Shape),
    Map(Keys, &'static Shape),
    Object(&'static Object),
    /// A text, or an object for those who need more.
    TextOr(&'static Object),
    /// The word `none`, or an object.
    NoneOr(&'static Object),
    /// Exactly one of these objects, told by the first field of each.
    Variant(&'static [Object]),
}

/// What the keys of a map are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Keys {
    /// Names that become parts of paths and tags.
    Names,
    /// Any texts.
    Texts,
    /// Disruptions.
    Disruptions,
    /// Durations.
    Durations,
}

/// A mapping with known fields.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) fields: &'static [Field],
    /// Exactly one of these must be there.
    pub(crate) one_of: &'static [&'static str],
    /// What its values mean together.
    pub(crate) sense: Option<Sense>,
}

/// Finds what is wrong with the values of a mapping together: the field, and why.
pub(crate) type Sense = fn(&Node) -> Option<(&'static str, Wrong)>;

/// A field.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) required: bool,
    pub(crate) about: &'static str,
}

impl Object {
    pub(crate) const fn new(fields: &'static [Field]) -> Self {
        Self { fields, one_of: &[], sense: None }
    }

    pub(crate) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

impl Field {
    pub(crate) const fn new(name: &'static str, shape: Shape, about: &'static str) -> Self {
        Self { name, shape, required: false, about }
    }

    pub(crate) const fn required(name: &'static str, shape: Shape, about: &'static str) -> Self {
        Self { name, shape, required: true, about }
    }
}

/// Finds all that is wrong with a tree's shape.
pub(crate) fn check(root: &Node, object: &'static Object) -> Vec<Finding> {
    let mut checker = Checker { findings: Vec::new() };
    checker.object("", root.at, root, object);
    checker.findings
}

struct Checker {
    findings: Vec<Finding>,
}

impl Checker {
    fn report(&mut self, path: &str, at: Position, wrong: Wrong) {
        self.findings.push(Finding {
            code: wrong.code.to_owned(),
            severity: Severity::Error,
            path: path.to_owned(),
            line: at.line,
            column: at.column,
            message: wrong.message,
            help: wrong.help,
        });
    }

    /// Reports what a function of [`crate::value`] says, at the place in the scalar's text.
    fn scalar<T>(&mut self, path: &str, node: &Node, result: Result<T, Wrong>) {
        let Err(wrong) = result else { return };
        let inset = node.scalar().map_or(0, |scalar| match wrong.offset {
            0 => 0,
            offset => value::shift(scalar, offset),
        });
        self.report(path, node.at.right(inset), wrong);
    }

    /// `parent` is where the key of the node stands.
    fn node(&mut self, path: &str, parent: Position, node: &Node, shape: &'static Shape) {
        match shape {
            Shape::Version => self.scalar(path, node, version(node)),
            Shape::Text => self.scalar(path, node, value::text(node)),
            Shape::Word => self.scalar(path, node, value::word(node)),
            Shape::Duration => self.scalar(path, node, value::duration(node)),
            Shape::Within => self.scalar(path, node, value::within(node)),
            Shape::Rate => self.scalar(path, node, value::rate(node)),
            Shape::Percentage => self.scalar(path, node, value::percentage(node)),
            Shape::Count => self.scalar(path, node, value::count(node)),
            Shape::ExitCode => self.scalar(path, node, value::exit_code(node)),
            Shape::Status => self.scalar(path, node, value::status(node)),
            Shape::Bool => self.scalar(path, node, value::boolean(node)),
            Shape::Schedule => self.scalar(path, node, value::schedule(node)),
            Shape::TimeZone => self.scalar(path, node, value::time_zone(node)),
            Shape::Date => self.scalar(path, node, value::date(node)),
            Shape::Secret => self.scalar(path, node, value::secret(node)),
            Shape::Address => self.scalar(path, node, value::address(node)),
            Shape::Place => self.scalar(path, node, value::repository_place(node)),
            Shape::PostgresUrl => self.scalar(path, node, value::postgres_url(node)),
            Shape::OneOf(words) => self.scalar(path, node, one_of(node, words)),
            Shape::Any => {}
            Shape::Scalar => self.scalar(path, node, value::word(node)),
            Shape::Argv => self.list(path, node, &Shape::Word, true),
            Shape::List(item) => self.list(path, node, item, false),
            Shape::OneOrMore(item) => match node.content {
                Content::List(_) => self.list(path, node, item, true),
                _ => self.node(path, parent, node, item),
            },
            Shape::Map(keys, item) => self.map(path, node, *keys, item),
            Shape::Object(object) => self.object(path, parent, node, object),
            Shape::TextOr(object) => match node.content {
                Content::Map(_) => self.object(path, parent, node, object),
                _ => self.scalar(path, node, value::text(node)),
            },
            Shape::NoneOr(object) => match node.scalar() {
                Some(scalar) if scalar.text == "none" => {}
                _ => self.object(path, parent, node, object),
            },
            Shape::Variant(variants) => self.variant(path, parent, node, variants),
        }
    }

    fn list(&mut self, path: &str, node: &Node, item: &'static Shape, filled: bool) {
        let Content::List(items) = &node.content else {
            let message = format!("this is {}, and a list belongs here", node.kind());
            let wrong = Wrong::new("wrong-type", message, "write [one, two]");
            return self.report(path, node.at, wrong);
        };
        if filled && items.is_empty() {
            let wrong = Wrong::new("bad-value", "this list is empty", "write at least one item");
            self.report(path, node.at, wrong);
        }
        for (index, node) in items.iter().enumerate() {
            self.node(&format!("{path}[{index}]"), node.at, node, item);
        }
    }

    fn map(&mut self, path: &str, node: &Node, keys: Keys, item: &'static Shape) {
        let Some(entries) = self.entries(path, node.at, node) else { return };
        for (key, node) in entries {
            let path = join(path, &key.text);
            if let Err(wrong) = check_key(key, keys) {
                self.report(&path, key.at, wrong);
            }
            self.node(&path, key.at, node, item);
        }
    }

    fn object(&mut self, path: &str, parent: Position, node: &Node, object: &'static Object) {
        let Some(entries) = self.entries(path, parent, node) else { return };
        for (key, value) in entries {
            match object.field(&key.text) {
                Some(field) => self.node(&join(path, &key.text), key.at, value, &field.shape),
                None => self.unknown(path, key, object.fields),
            }
        }
        let has = |name: &str| node.get(name).is_some();
        for field in object.fields.iter().filter(|field| field.required && !has(field.name)) {
            let help = format!("{}: {}", field.name, field.about);
            let message = format!("'{}' is missing", field.name);
            self.report(path, parent, Wrong::new("missing-field", message, help));
        }
        self.exactly_one(path, parent, node, object.one_of);
        let wrong = object.sense.and_then(|sense| sense(node));
        if let Some((field, wrong)) = wrong
            && let Some(value) = node.get(field)
        {
            self.report(&join(path, field), value.at, wrong);
        }
    }

    fn exactly_one(&mut self, path: &str, parent: Position, node: &Node, names: &[&str]) {
        let mut there = node.entries().iter().filter(|(key, _)| names.contains(&key.text.as_str()));
        let all = names.join(", ");
        match (names.is_empty(), there.next(), there.next()) {
            (true, ..) | (_, Some(_), None) => {}
            (_, None, _) => {
                let message = format!("one of {all} is missing");
                self.report(
                    path,
                    parent,
                    Wrong::new("missing-field", message, "write exactly one"),
                );
            }
            (_, Some((first, _)), Some((second, _))) if first.text == second.text => {}
            (_, Some((first, _)), Some((second, _))) => {
                let message = format!("'{}' stands beside '{}'", second.text, first.text);
                let help = format!("write exactly one of {all}");
                let path = join(path, &second.text);
                self.report(&path, second.at, Wrong::new("bad-value", message, help));
            }
        }
    }

    fn variant(&mut self, path: &str, parent: Position, node: &Node, variants: &'static [Object]) {
        let names: Vec<&str> = variants.iter().filter_map(Object::told_by).collect();
        if let Some(variant) = variants
            .iter()
            .find(|variant| variant.told_by().is_some_and(|name| node.get(name).is_some()))
        {
            self.known_variant(path, parent, node, (variant, &names));
            return self.exactly_one(path, parent, node, &names);
        }
        let Some(entries) = self.entries(path, parent, node) else { return };
        for (key, _) in entries {
            let fields = variants.iter().flat_map(|variant| variant.fields);
            if !fields.clone().any(|field| field.name == key.text) {
                self.unknown(path, key, fields);
            }
        }
        self.exactly_one(path, parent, node, &names);
    }

    /// Fields that tell another variant are left to [`Self::exactly_one`].
    fn known_variant(
        &mut self,
        path: &str,
        parent: Position,
        node: &Node,
        (variant, names): (&'static Object, &[&str]),
    ) {
        let Some(entries) = self.entries(path, parent, node) else { return };
        for (key, value) in entries {
            match variant.field(&key.text) {
                Some(field) => self.node(&join(path, &key.text), key.at, value, &field.shape),
                None if names.contains(&key.text.as_str()) => {}
                None => self.unknown(path, key, variant.fields),
            }
        }
        let has = |name: &str| node.get(name).is_some();
        for field in variant.fields.iter().filter(|field| field.required && !has(field.name)) {
            let help = format!("{}: {}", field.name, field.about);
            let message = format!("'{}' is missing", field.name);
            self.report(path, parent, Wrong::new("missing-field", message, help));
        }
    }

    /// The entries of a mapping; reports keys that stand twice, and what is no mapping.
    fn entries<'a>(
        &mut self,
        path: &str,
        at: Position,
        node: &'a Node,
    ) -> Option<&'a [(Key, Node)]> {
        let Content::Map(entries) = &node.content else {
            let message = format!("this is {}, and a mapping belongs here", node.kind());
            let wrong = Wrong::new("wrong-type", message, "write fields as {name: value}");
            self.report(path, if node.is_null() { at } else { node.at }, wrong);
            return None;
        };
        let mut seen = std::collections::HashMap::new();
        for (key, _) in entries {
            if let Some(line) = seen.insert(key.text.as_str(), key.at.line) {
                let message = format!("'{}' stands twice, first in line {line}", key.text);
                let wrong = Wrong::new("duplicate-name", message, "give one another name");
                self.report(&join(path, &key.text), key.at, wrong);
            }
        }
        Some(entries)
    }

    fn unknown<F>(&mut self, path: &str, key: &Key, fields: F)
    where
        F: IntoIterator<Item = &'static Field>,
    {
        let names: Vec<&str> = fields.into_iter().map(|field| field.name).collect();
        let help = match value::nearest(&key.text, names.iter().copied()) {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!("the fields here are {}", names.join(", ")),
        };
        let message = format!("there is no field '{}' here", value::shorten(&key.text));
        self.report(&join(path, &key.text), key.at, Wrong::new("unknown-field", message, help));
    }
}

impl Object {
    /// The field that tells this variant from its siblings.
    pub(crate) fn told_by(&self) -> Option<&'static str> {
        self.fields.first().map(|field| field.name)
    }
}

fn version(node: &Node) -> Result<(), Wrong> {
    match node.to_json().as_u64() {
        Some(1) => Ok(()),
        _ => {
            let message = "this version of the language is not known";
            Err(Wrong::new("bad-value", message, "write muster: 1"))
        }
    }
}

fn one_of(node: &Node, words: &[&'static str]) -> Result<(), Wrong> {
    let text = value::text(node)?;
    if words.contains(&text) {
        return Ok(());
    }
    let help = match value::nearest(text, words.iter().copied()) {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("write one of {}", words.join(", ")),
    };
    let message = format!("'{}' means nothing here", value::shorten(text));
    Err(Wrong::new("bad-value", message, help))
}

fn check_key(key: &Key, keys: Keys) -> Result<(), Wrong> {
    match keys {
        Keys::Texts => Ok(()),
        Keys::Names => value::check_name(&key.text),
        Keys::Disruptions => one_of(&key.as_node(), &crate::fields::DISRUPTIONS),
        Keys::Durations => value::duration(&key.as_node()).map(|_| ()),
    }
}
