//! Trees: the entries of one folder, as canonical JSON.
//!
//! A tree is `{"nodes":[…]}` and a line feed, its nodes strictly ascending by the raw bytes of
//! their names. A tree's id is the hash of exactly these bytes, so the encoding follows Go's
//! to the letter: the order of fields, which of them are left out when zero, how strings are
//! escaped. Otherwise folders would not be deduplicated against those that restic stored.
//!
//! Names are quoted as a Go string literal first and as JSON second, which is how names that
//! are not UTF-8 survive.
//!
//! # Source
//! restic, `doc/design.rst`, *Trees and Data*; `internal/data/node.go`, `tree.go`.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{FormatError, go_json, go_quote, time::Timestamp};
use crate::id::BlobId;

/// What an entry of a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeKind {
    /// A regular file.
    File,
    /// A folder.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A block device.
    #[serde(rename = "dev")]
    BlockDevice,
    /// A character device.
    #[serde(rename = "chardev")]
    CharDevice,
    /// A named pipe.
    Fifo,
    /// A socket: recorded, never restored (only its process can make it again).
    Socket,
    /// Something else, recorded by name only.
    Irregular,
}

impl NodeKind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::File,
        Self::Dir,
        Self::Symlink,
        Self::BlockDevice,
        Self::CharDevice,
        Self::Fifo,
        Self::Socket,
        Self::Irregular,
    ];

    /// The kind as restic writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Dir => "dir",
            Self::Symlink => "symlink",
            Self::BlockDevice => "dev",
            Self::CharDevice => "chardev",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
            Self::Irregular => "irregular",
        }
    }
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtendedAttribute {
    /// The attribute's name with its namespace, for example `user.comment`.
    pub name: String,
    /// Its value.
    #[serde(with = "super::base64_bytes")]
    pub value: Vec<u8>,
}

/// One entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The name: any bytes but `/` and NUL.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: NodeKind,
    /// Go's `os.FileMode` (see [`super::mode`]).
    pub mode: u32,
    /// When the content changed last.
    pub mtime: Timestamp,
    /// When it was read last; equal to `mtime` unless access times are kept.
    pub atime: Timestamp,
    /// When its inode changed last.
    pub ctime: Timestamp,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The owner's name on the source host; empty when it had none.
    pub user: String,
    /// The group's name on the source host; empty when it had none.
    pub group: String,
    /// The inode's number.
    pub inode: u64,
    /// The file system's number; with `inode` it tells hard links.
    pub device_id: u64,
    /// Length of the content in bytes (files).
    pub size: u64,
    /// How many names the inode had.
    pub links: u64,
    /// Where a symbolic link points: any bytes.
    pub link_target: Vec<u8>,
    /// Extended attributes, ACLs among them, in the order in which the system lists them.
    pub extended_attributes: Vec<ExtendedAttribute>,
    /// Attributes of other operating systems, kept as they are.
    pub generic_attributes: BTreeMap<String, serde_json::Value>,
    /// The device's number (devices).
    pub device: u64,
    /// The chunks of a file; `None` for anything else.
    pub content: Option<Vec<BlobId>>,
    /// The tree of a folder; `None` for anything else.
    pub subtree: Option<BlobId>,
    /// What could not be read of the entry, as the tool that wrote it says.
    pub error: String,
}

impl Node {
    /// A node with nothing but a name, a kind and the epoch as its times.
    #[must_use]
    pub fn new(name: Vec<u8>, kind: NodeKind) -> Self {
        let epoch = Timestamp::UNIX_EPOCH;
        Self {
            name,
            kind,
            mode: super::mode::go_mode(kind, 0),
            mtime: epoch,
            atime: epoch,
            ctime: epoch,
            uid: 0,
            gid: 0,
            user: String::new(),
            group: String::new(),
            inode: 0,
            device_id: 0,
            size: 0,
            links: 0,
            link_target: Vec::new(),
            extended_attributes: Vec::new(),
            generic_attributes: BTreeMap::new(),
            device: 0,
            content: None,
            subtree: None,
            error: String::new(),
        }
    }

    /// Whether `other` is surely another name of the same inode: both have several names and
    /// share the numbers.
    #[must_use]
    pub fn is_hard_link(&self) -> bool {
        self.links > 1 && self.inode != 0 && self.kind != NodeKind::Dir
    }

    /// Reads a node from the JSON of its own.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, FormatError> {
        serde_json::from_slice::<NodeJson<'_>>(json)?.into_node()
    }

    /// Reads the node with which `json` begins; also returns how long it is.
    pub(crate) fn parse_first(json: &[u8]) -> Result<(Self, usize), FormatError> {
        let mut nodes = serde_json::Deserializer::from_slice(json).into_iter::<NodeJson<'_>>();
        let missing = || FormatError::invalid("a tree ends too early");
        let node = nodes.next().ok_or_else(missing)??.into_node()?;
        Ok((node, nodes.byte_offset()))
    }

    /// Appends the JSON of this node.
    pub(crate) fn write(&self, json: &mut Vec<u8>) -> Result<(), FormatError> {
        Ok(go_json::to_writer(json, &NodeJson::from_node(self))?)
    }

    /// Checks what serde cannot: the name, and that kind and references agree.
    fn validate(&self) -> Result<(), FormatError> {
        let shown = String::from_utf8_lossy(&self.name);
        let name_ok = !self.name.is_empty()
            && !matches!(self.name.as_slice(), b"." | b"..")
            && !self.name.contains(&b'/')
            && !self.name.contains(&0);
        if !name_ok {
            return Err(FormatError::invalid(format!("'{shown}' is no name of a file")));
        }
        match self.kind {
            NodeKind::File if self.content.is_none() => {
                Err(FormatError::invalid(format!("the file '{shown}' has no list of chunks")))
            }
            NodeKind::Dir if self.subtree.is_none() => {
                Err(FormatError::invalid(format!("the folder '{shown}' has no tree")))
            }
            _ => Ok(()),
        }
    }
}

/// The entries of one folder, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    /// The entries, strictly ascending by name.
    pub nodes: Vec<Node>,
}

impl Tree {
    /// Reads a tree from the plaintext of its blob.
    ///
    /// # Errors
    /// Fails when the JSON is not a tree's, a name is not the name of a file, the order is
    /// wrong, or a file or folder lacks its references.
    pub fn parse(plaintext: &[u8]) -> Result<Self, FormatError> {
        #[derive(Deserialize)]
        struct TreeJson<'a> {
            #[serde(borrow)]
            nodes: Option<Vec<NodeJson<'a>>>,
        }

        let json: TreeJson<'_> = serde_json::from_slice(plaintext)?;
        let nodes = json.nodes.unwrap_or_default();
        let nodes: Vec<Node> =
            nodes.into_iter().map(NodeJson::into_node).collect::<Result<_, _>>()?;
        for pair in nodes.windows(2) {
            if pair[0].name >= pair[1].name {
                let name = String::from_utf8_lossy(&pair[1].name).into_owned();
                return Err(FormatError::invalid(format!("'{name}' is out of order")));
            }
        }
        Ok(Self { nodes })
    }

    /// The entry with this name.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&Node> {
        let found = self.nodes.binary_search_by(|node| node.name.as_slice().cmp(name));
        found.ok().map(|position| &self.nodes[position])
    }
}

/// How the plaintext of a tree begins.
pub(crate) const TREE_OPENING: &[u8] = br#"{"nodes":["#;

/// How the plaintext of a tree ends.
pub(crate) const TREE_CLOSING: &[u8] = b"]}\n";

/// Writes a tree node by node, so that a folder of a million entries exists only once.
#[derive(Debug)]
pub struct TreeWriter {
    json: Vec<u8>,
    last_name: Option<Vec<u8>>,
}

impl Default for TreeWriter {
    fn default() -> Self {
        Self { json: TREE_OPENING.to_vec(), last_name: None }
    }
}

impl TreeWriter {
    /// An empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next entry.
    ///
    /// # Errors
    /// Fails when the entry is not valid or its name does not come after the last one.
    pub fn push(&mut self, node: &Node) -> Result<(), FormatError> {
        node.validate()?;
        if self.last_name.as_deref().is_some_and(|last| last >= node.name.as_slice()) {
            let name = String::from_utf8_lossy(&node.name).into_owned();
            return Err(FormatError::invalid(format!("'{name}' is out of order")));
        }
        if self.last_name.is_some() {
            self.json.push(b',');
        }
        node.write(&mut self.json)?;
        self.last_name = Some(node.name.clone());
        Ok(())
    }

    /// Adds the text of entries of another tree. That their names come next is for the caller to
    /// know.
    pub(crate) fn push_text(&mut self, entries: &[u8]) {
        if self.last_name.is_some() {
            self.json.push(b',');
        }
        self.json.extend_from_slice(entries);
        self.last_name = Some(Vec::new());
    }

    /// What was written and not forgotten.
    pub(crate) fn json(&self) -> &[u8] {
        &self.json
    }

    /// Lets go of what was written so far; the caller has it.
    pub(crate) fn forget_json(&mut self) {
        self.json.clear();
    }

    /// The plaintext of the tree's blob, but for what was forgotten.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.json.extend_from_slice(TREE_CLOSING);
        self.json
    }
}

/// A node as it stands in JSON: restic's field names, in restic's order.
#[derive(Serialize, Deserialize)]
struct NodeJson<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(rename = "type")]
    kind: NodeKind,
    #[serde(default, skip_serializing_if = "is_zero")]
    mode: u32,
    #[serde(default = "epoch")]
    mtime: Timestamp,
    #[serde(default = "epoch")]
    atime: Timestamp,
    #[serde(default = "epoch")]
    ctime: Timestamp,
    #[serde(default)]
    uid: u32,
    #[serde(default)]
    gid: u32,
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    user: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    group: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "is_zero_64")]
    inode: u64,
    #[serde(default, skip_serializing_if = "is_zero_64")]
    device_id: u64,
    #[serde(default, skip_serializing_if = "is_zero_64")]
    size: u64,
    #[serde(default, skip_serializing_if = "is_zero_64")]
    links: u64,
    #[serde(borrow, default, skip_serializing_if = "TargetText::is_empty")]
    linktarget: TargetText<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    linktarget_raw: Option<RawBytes>,
    #[serde(default, skip_serializing_if = "none_or_empty")]
    extended_attributes: Option<Cow<'a, [ExtendedAttribute]>>,
    #[serde(default, skip_serializing_if = "none_or_empty_map")]
    generic_attributes: Option<Cow<'a, BTreeMap<String, serde_json::Value>>>,
    #[serde(default, skip_serializing_if = "is_zero_64")]
    device: u64,
    #[serde(default)]
    content: Option<Cow<'a, [BlobId]>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subtree: Option<BlobId>,
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    error: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct RawBytes(#[serde(with = "super::base64_bytes")] Vec<u8>);

/// A link's target as JSON text; bytes that are not UTF-8 are lost here as they are in Go, and
/// stand in `linktarget_raw`.
#[derive(Default)]
struct TargetText<'a>(Cow<'a, [u8]>);

impl TargetText<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for TargetText<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        go_json::RawText(&self.0).serialize(to)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for TargetText<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|text| Self(Cow::Owned(text.into_bytes())))
    }
}

impl<'a> NodeJson<'a> {
    fn from_node(node: &'a Node) -> Self {
        let utf8_target = std::str::from_utf8(&node.link_target).is_ok();
        Self {
            name: go_quote::quote(&node.name),
            kind: node.kind,
            mode: node.mode,
            mtime: node.mtime,
            atime: node.atime,
            ctime: node.ctime,
            uid: node.uid,
            gid: node.gid,
            user: Cow::Borrowed(&node.user),
            group: Cow::Borrowed(&node.group),
            inode: node.inode,
            device_id: node.device_id,
            size: node.size,
            links: node.links,
            linktarget: TargetText(Cow::Borrowed(&node.link_target)),
            linktarget_raw: (!utf8_target).then(|| RawBytes(node.link_target.clone())),
            extended_attributes: Some(Cow::Borrowed(&node.extended_attributes)),
            generic_attributes: Some(Cow::Borrowed(&node.generic_attributes)),
            device: node.device,
            content: node.content.as_deref().map(Cow::Borrowed),
            subtree: node.subtree,
            error: Cow::Borrowed(&node.error),
        }
    }

    fn into_node(self) -> Result<Node, FormatError> {
        let name = go_quote::unquote(&self.name)
            .map_err(|_| FormatError::invalid(format!("'{}' is badly quoted", self.name)))?
            .into_owned();
        let link_target = match self.linktarget_raw {
            Some(RawBytes(raw)) => raw,
            None => self.linktarget.0.into_owned(),
        };
        let node = Node {
            name,
            kind: self.kind,
            mode: self.mode,
            mtime: self.mtime,
            atime: self.atime,
            ctime: self.ctime,
            uid: self.uid,
            gid: self.gid,
            user: self.user.into_owned(),
            group: self.group.into_owned(),
            inode: self.inode,
            device_id: self.device_id,
            size: self.size,
            links: self.links,
            link_target,
            extended_attributes: self.extended_attributes.map(Cow::into_owned).unwrap_or_default(),
            generic_attributes: self.generic_attributes.map(Cow::into_owned).unwrap_or_default(),
            device: self.device,
            content: self.content.map(Cow::into_owned),
            subtree: self.subtree,
            error: self.error.into_owned(),
        };
        node.validate()?;
        Ok(node)
    }
}

fn epoch() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero_64(number: &u64) -> bool {
    *number == 0
}

fn is_empty(text: &str) -> bool {
    text.is_empty()
}

fn none_or_empty<T: Clone>(list: &Option<Cow<'_, [T]>>) -> bool {
    list.as_ref().is_none_or(|list| list.is_empty())
}

fn none_or_empty_map<V: Clone>(map: &Option<Cow<'_, BTreeMap<String, V>>>) -> bool {
    map.as_ref().is_none_or(|map| map.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &[u8]) -> Node {
        Node { content: Some(vec![]), ..Node::new(name.to_vec(), NodeKind::File) }
    }

    fn write(nodes: &[Node]) -> Result<Vec<u8>, FormatError> {
        let mut writer = TreeWriter::new();
        nodes.iter().try_for_each(|node| writer.push(node))?;
        Ok(writer.finish())
    }

    #[test]
    fn the_encoding_is_that_of_go() {
        assert_eq!(write(&[]).unwrap(), b"{\"nodes\":[]}\n");
        let mut link = Node::new(b"a<b>\xff\"".to_vec(), NodeKind::Symlink);
        link.link_target = b"to\xff\xfe&".to_vec();
        link.mtime = Timestamp::new(0, 120_000_000, 60);
        let json = String::from_utf8(write(&[link]).unwrap()).unwrap();
        let times = r#""mtime":"1970-01-01T01:00:00.12+01:00","atime":"1970-01-01T00:00:00Z","ctime":"1970-01-01T00:00:00Z""#;
        let expected = format!(
            concat!(
                r#"{{"nodes":[{{"name":"a\u003cb\u003e\\xff\\\"","type":"symlink","#,
                r#""mode":134217728,{},"uid":0,"gid":0,"linktarget":"to"#,
                r#"\ufffd\ufffd\u0026","linktarget_raw":"dG///iY=","content":null}}]}}"#,
                "\n"
            ),
            times
        );
        assert_eq!(json, expected);
    }

    #[test]
    fn nodes_survive() {
        let mut dir = Node::new(b"\xf0\x9f\x92\xa9 \n".to_vec(), NodeKind::Dir);
        dir.subtree = Some(BlobId::of(b"t"));
        dir.extended_attributes =
            vec![ExtendedAttribute { name: "user.x".to_owned(), value: vec![0, 255] }];
        dir.generic_attributes.insert("windows.x".to_owned(), serde_json::json!({"b": [1]}));
        let mut data = file(b"\xff");
        data.content = Some(vec![BlobId::of(b"1"), BlobId::of(b"2")]);
        data.size = 7;
        data.error = "half".to_owned();
        let nodes = vec![dir, data];
        assert_eq!(Tree::parse(&write(&nodes).unwrap()).unwrap().nodes, nodes);
    }

    #[test]
    fn order_and_names_are_enforced_both_ways() {
        assert!(write(&[file(b"b"), file(b"a")]).is_err());
        assert!(write(&[file(b"a"), file(b"a")]).is_err());
        for name in ["", ".", "..", "a/b", "../x", "a\0"] {
            assert!(write(&[file(name.as_bytes())]).is_err(), "{name}");
        }
        let node = |name: &str| format!(r#"{{"name":"{name}","type":"file","content":[]}}"#);
        let tree = |nodes: &[&str]| {
            let nodes: Vec<_> = nodes.iter().map(|name| node(name)).collect();
            Tree::parse(format!("{{\"nodes\":[{}]}}", nodes.join(",")).as_bytes())
        };
        assert!(tree(&["a", "b"]).is_ok());
        for bad in [
            &["b", "a"][..],
            &["a", "a"],
            &["../x"],
            &["..\\\\x2f"],
            &["x\\\\x00"],
            &["\\\\x2e\\\\x2e"],
        ] {
            assert!(tree(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn references_must_fit_the_kind() {
        assert!(Tree::parse(br#"{"nodes":[{"name":"f","type":"file","content":null}]}"#).is_err());
        assert!(Tree::parse(br#"{"nodes":[{"name":"d","type":"dir"}]}"#).is_err());
        assert!(Tree::parse(br#"{"nodes":[{"name":"d","type":"door","content":[]}]}"#).is_err());
        assert!(Tree::parse(br#"{"nodes":null}"#).is_ok());
    }
}
