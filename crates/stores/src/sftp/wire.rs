//! SFTP version 3 as bytes: requests written, replies read. No I/O.
//!
//! The authority is draft-ietf-secsh-filexfer-02, and OpenSSH's PROTOCOL for the extensions.

use std::io;

/// A reply holds a listing's page or 256 KiB of data at most; what is longer is not SFTP. (A
/// login script that prints something looks like a huge packet.)
pub(crate) const PACKET_BYTES_MAX: u32 = 1 << 20;

const INIT: u8 = 1;
const VERSION: u8 = 2;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;
const EXTENDED: u8 = 200;
const EXTENDED_REPLY: u8 = 201;

const HAS_SIZE: u32 = 1;
const HAS_OWNER: u32 = 2;
const HAS_MODE: u32 = 4;
const HAS_TIMES: u32 = 8;
const HAS_EXTENSIONS: u32 = 0x8000_0000;

/// `SSH_FXF_WRITE | SSH_FXF_CREAT | SSH_FXF_EXCL`.
const NEW_FILE: u32 = 0x02 | 0x08 | 0x20;
const TO_READ: u32 = 0x01;

/// The first packet of a session, whole.
pub(crate) fn init() -> Vec<u8> {
    let mut packet = Packet::default();
    packet.bytes.push(INIT);
    packet.u32(3);
    packet.framed()
}

/// What can be asked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Request<'a> {
    OpenToRead {
        path: &'a str,
    },
    OpenNew {
        path: &'a str,
        mode: u32,
    },
    Close {
        handle: &'a [u8],
    },
    Read {
        handle: &'a [u8],
        offset: u64,
        bytes: u32,
    },
    Write {
        handle: &'a [u8],
        offset: u64,
        data: &'a [u8],
    },
    Stat {
        path: &'a str,
    },
    OpenFolder {
        path: &'a str,
    },
    ReadFolder {
        handle: &'a [u8],
    },
    Remove {
        path: &'a str,
    },
    MakeFolder {
        path: &'a str,
        mode: u32,
    },
    /// Fails when there is a file named `to`.
    Rename {
        from: &'a str,
        to: &'a str,
    },
    /// Replaces a file named `to`.
    PosixRename {
        from: &'a str,
        to: &'a str,
    },
    Sync {
        handle: &'a [u8],
    },
    Space {
        path: &'a str,
    },
}

impl Request<'_> {
    /// The packet of this request, whole.
    pub(crate) fn packet(self, id: u32) -> Vec<u8> {
        let mut packet = Packet::default();
        packet.bytes.push(self.kind());
        packet.u32(id);
        match self {
            Self::OpenToRead { path } => packet.text(path).u32(TO_READ).u32(0),
            Self::OpenNew { path, mode } => packet.text(path).u32(NEW_FILE).u32(HAS_MODE).u32(mode),
            Self::Close { handle } | Self::ReadFolder { handle } => packet.string(handle),
            Self::Read { handle, offset, bytes } => packet.string(handle).u64(offset).u32(bytes),
            Self::Write { handle, offset, data } => packet.string(handle).u64(offset).string(data),
            Self::Stat { path } | Self::OpenFolder { path } | Self::Remove { path } => {
                packet.text(path)
            }
            Self::MakeFolder { path, mode } => packet.text(path).u32(HAS_MODE).u32(mode),
            Self::Rename { from, to } => packet.text(from).text(to),
            Self::PosixRename { from, to } => {
                packet.text("posix-rename@openssh.com").text(from).text(to)
            }
            Self::Sync { handle } => packet.text("fsync@openssh.com").string(handle),
            Self::Space { path } => packet.text("statvfs@openssh.com").text(path),
        };
        packet.framed()
    }

    fn kind(self) -> u8 {
        match self {
            Self::OpenToRead { .. } | Self::OpenNew { .. } => 3,
            Self::Close { .. } => 4,
            Self::Read { .. } => 5,
            Self::Write { .. } => 6,
            Self::OpenFolder { .. } => 11,
            Self::ReadFolder { .. } => 12,
            Self::Remove { .. } => 13,
            Self::MakeFolder { .. } => 14,
            Self::Stat { .. } => 17,
            Self::Rename { .. } => 18,
            Self::PosixRename { .. } | Self::Sync { .. } | Self::Space { .. } => EXTENDED,
        }
    }
}

#[derive(Default)]
struct Packet {
    bytes: Vec<u8>,
}

impl Packet {
    fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes.extend(value.to_be_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes.extend(value.to_be_bytes());
        self
    }

    fn string(&mut self, value: &[u8]) -> &mut Self {
        self.u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.bytes.extend(value);
        self
    }

    fn text(&mut self, value: &str) -> &mut Self {
        self.string(value.as_bytes())
    }

    fn framed(self) -> Vec<u8> {
        let mut framed = Self::default();
        framed.string(&self.bytes);
        framed.bytes
    }
}

/// What is known of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) bytes: Option<u64>,
    pub(crate) mode: Option<u32>,
    pub(crate) changed_s: Option<u32>,
}

impl Attributes {
    /// `S_IFDIR` of `stat(2)`.
    pub(crate) fn is_folder(self) -> bool {
        self.mode.is_some_and(|mode| mode & 0o170_000 == 0o040_000)
    }
}

/// What can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Version { extensions: Vec<String> },
    Status { code: u32, message: String },
    Handle(Vec<u8>),
    Data(Vec<u8>),
    Names(Vec<(Vec<u8>, Attributes)>),
    Attributes(Attributes),
    Extended(Vec<u8>),
}

/// Reads a reply (without its length); its request's number, and what it says.
///
/// # Errors
/// Fails when it is no reply of SFTP.
pub(crate) fn parse(packet: &[u8]) -> io::Result<(u32, Reply)> {
    let mut rest = Reader(packet);
    let kind = rest.u8()?;
    let id = rest.u32()?;
    let reply = match kind {
        // Its number is the version of the protocol.
        VERSION => {
            let mut extensions = Vec::new();
            while !rest.0.is_empty() {
                extensions.push(String::from_utf8_lossy(rest.string()?).into_owned());
                rest.string()?;
            }
            return Ok((0, Reply::Version { extensions }));
        }
        STATUS => {
            let code = rest.u32()?;
            let message = String::from_utf8_lossy(rest.string().unwrap_or_default()).into_owned();
            Reply::Status { code, message }
        }
        HANDLE => Reply::Handle(rest.string()?.to_vec()),
        DATA => Reply::Data(rest.string()?.to_vec()),
        NAME => {
            let count = rest.u32()?;
            let mut names = Vec::new();
            for _ in 0..count {
                let name = rest.string()?.to_vec();
                rest.string()?;
                names.push((name, rest.attributes()?));
            }
            Reply::Names(names)
        }
        ATTRS => Reply::Attributes(rest.attributes()?),
        EXTENDED_REPLY => Reply::Extended(rest.0.to_vec()),
        _ => return Err(no_sftp()),
    };
    Ok((id, reply))
}

/// Bytes free for an unprivileged writer, from a reply to [`Request::Space`].
pub(crate) fn free_bytes(reply: &[u8]) -> Option<u64> {
    let mut rest = Reader(reply);
    let (_block, fragment) = (rest.u64().ok()?, rest.u64().ok()?);
    let (_all, _free, available) = (rest.u64().ok()?, rest.u64().ok()?, rest.u64().ok()?);
    Some(fragment.saturating_mul(available))
}

pub(crate) fn no_sftp() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "what came is not SFTP; does a login script print something?",
    )
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or_else(no_sftp)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> io::Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn u32(&mut self) -> io::Result<u32> {
        Ok(u32::from_be_bytes(self.take(4)?.try_into().map_err(|_| no_sftp())?))
    }

    fn u64(&mut self) -> io::Result<u64> {
        Ok(u64::from_be_bytes(self.take(8)?.try_into().map_err(|_| no_sftp())?))
    }

    fn string(&mut self) -> io::Result<&'a [u8]> {
        let length = self.u32()?;
        self.take(usize::try_from(length).map_err(|_| no_sftp())?)
    }

    fn attributes(&mut self) -> io::Result<Attributes> {
        let flags = self.u32()?;
        let mut attributes = Attributes::default();
        if flags & HAS_SIZE != 0 {
            attributes.bytes = Some(self.u64()?);
        }
        if flags & HAS_OWNER != 0 {
            self.take(8)?;
        }
        if flags & HAS_MODE != 0 {
            attributes.mode = Some(self.u32()?);
        }
        if flags & HAS_TIMES != 0 {
            self.u32()?;
            attributes.changed_s = Some(self.u32()?);
        }
        if flags & HAS_EXTENSIONS != 0 {
            for _ in 0..self.u32()? {
                self.string()?;
                self.string()?;
            }
        }
        Ok(attributes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_framed() {
        let packet = Request::Remove { path: "ab" }.packet(7);
        assert_eq!(packet, [0, 0, 0, 11, 13, 0, 0, 0, 7, 0, 0, 0, 2, b'a', b'b']);
        assert_eq!(init(), [0, 0, 0, 5, 1, 0, 0, 0, 3]);
    }

    #[test]
    fn replies_are_read() {
        let status = [101, 0, 0, 0, 9, 0, 0, 0, 2, 0, 0, 0, 1, b'x', 0, 0, 0, 0];
        let expected = Reply::Status { code: 2, message: "x".to_owned() };
        assert_eq!(parse(&status).unwrap(), (9, expected));
        let mut attributes = vec![105, 0, 0, 0, 1, 0, 0, 0, 0b1101];
        attributes.extend(7_u64.to_be_bytes());
        attributes.extend(0o100_644_u32.to_be_bytes());
        attributes.extend([0, 0, 0, 1, 0, 0, 0, 2]);
        let (_, reply) = parse(&attributes).unwrap();
        let Reply::Attributes(found) = reply else { panic!("{reply:?}") };
        assert_eq!((found.bytes, found.changed_s, found.is_folder()), (Some(7), Some(2), false));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let whole = [104, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, b'n', 0, 0, 0, 0, 0, 0, 0, 0];
        for end in 0..whole.len() {
            assert!(parse(&whole[..end]).is_err(), "{end}");
        }
        assert!(parse(&[255; 64]).is_err());
        assert!(parse(&[102, 0, 0, 0, 1, 255, 255, 255, 255]).is_err());
    }
}
