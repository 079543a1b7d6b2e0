//! Where a repository is, as people write it: restic's forms of folders and remote stores.
//!
//! Parsed here, once, for flags, variables and plans alike. Only text: nothing is looked up, no
//! connection is made. A password in a URL is taken out at once; neither `Debug` nor `Display`
//! shows it.

use std::{fmt, path::PathBuf};

use thiserror::Error;

/// Schemes of restic and rustic that Muster has no store for.
const UNSUPPORTED: [&str; 4] = ["b2", "swift", "rclone", "opendal"];

/// The host that stands for Amazon's own service.
const AMAZON: &str = "amazonaws.com";

/// A place that can hold a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A folder of this machine.
    Folder(PathBuf),
    /// A bucket of Amazon S3 or a service that speaks its protocol.
    S3 {
        /// Scheme, host and port, for example `https://s3.amazonaws.com`.
        endpoint: String,
        /// The bucket.
        bucket: String,
        /// The folder in it, without slashes at its ends; may be empty.
        prefix: String,
    },
    /// A container of Azure Blob Storage.
    Azure {
        /// The container.
        container: String,
        /// The folder in it; may be empty.
        prefix: String,
    },
    /// A bucket of Google Cloud Storage.
    Gcs {
        /// The bucket.
        bucket: String,
        /// The folder in it; may be empty.
        prefix: String,
    },
    /// A folder behind SSH.
    Sftp(Sftp),
    /// A server that speaks restic's REST protocol.
    Rest(Rest),
}

/// A folder behind SSH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sftp {
    /// Who logs in; SSH's configuration decides when it is not said.
    pub user: Option<String>,
    /// The host, or its name in SSH's configuration.
    pub host: String,
    /// The port, when it is not SSH's own choice.
    pub port: Option<u16>,
    /// The folder; relative to the user's home unless it begins with `/`.
    pub path: String,
}

/// A server that speaks restic's REST protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest {
    /// The URL without user and password; ends with `/`.
    pub url: String,
    /// Who logs in.
    pub user: Option<String>,
    /// The password, when it stands in the URL.
    pub password: Option<UrlPassword>,
}

/// A password that stood in a URL. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct UrlPassword(String);

impl UrlPassword {
    /// The password itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for UrlPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UrlPassword(***)")
    }
}

/// A text that names no place. Its message never repeats what may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LocationError {
    /// A scheme without a store behind it.
    #[error("open a store of kind '{scheme}': Muster has none")]
    Unsupported {
        /// The scheme.
        scheme: String,
    },
    /// A known scheme, and something is wrong with the rest.
    #[error("read the {scheme} location: {why}")]
    Malformed {
        /// The scheme.
        scheme: &'static str,
        /// What is wrong.
        why: &'static str,
    },
}

impl LocationError {
    /// What to write instead.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Unsupported { .. } => "name a folder, or write s3:…, azure:…, gs:…, sftp:… or \
                                         rest:…"
                .to_owned(),
            Self::Malformed { scheme, .. } => format!("write {}", example(scheme)),
        }
    }
}

fn example(scheme: &str) -> &'static str {
    match scheme {
        "s3" => "s3:https://HOST/BUCKET/FOLDER, s3:HOST/BUCKET/FOLDER or s3://BUCKET/FOLDER",
        "azure" => "azure:CONTAINER:/FOLDER",
        "gs" => "gs:BUCKET:/FOLDER",
        "sftp" => "sftp:USER@HOST:/FOLDER or sftp://USER@HOST:PORT//FOLDER",
        _ => "rest:https://HOST:PORT/FOLDER/",
    }
}

impl Location {
    /// Reads a location. What has no scheme is a folder.
    ///
    /// # Errors
    /// Fails when the scheme has no store, or the rest is not what it needs.
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        let Some((scheme, rest)) = text.split_once(':') else {
            return Ok(Self::Folder(text.into()));
        };
        match scheme {
            "local" => Ok(Self::Folder(rest.into())),
            "file" => Ok(Self::Folder(rest.strip_prefix("//").unwrap_or(rest).into())),
            "s3" => s3(rest),
            "azure" => container("azure", rest)
                .map(|(container, prefix)| Self::Azure { container, prefix }),
            "gs" => container("gs", rest).map(|(bucket, prefix)| Self::Gcs { bucket, prefix }),
            "sftp" => sftp(rest).map(Self::Sftp),
            "rest" => self::rest(rest).map(Self::Rest),
            _ if rest.starts_with("//") || UNSUPPORTED.contains(&scheme) => {
                Err(LocationError::Unsupported { scheme: scheme.to_owned() })
            }
            _ => Ok(Self::Folder(text.into())),
        }
    }

    /// Whether this is a store that another machine may hold.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        !matches!(self, Self::Folder(_))
    }

    /// The machine or service that holds the store, as the location names it; `None` for a folder
    /// and for what is reached through this machine itself.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        let host = match self {
            Self::Folder(_) => return None,
            Self::S3 { endpoint: url, .. } | Self::Rest(Rest { url, .. }) => {
                let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
                let place = rest.split('/').next().unwrap_or_default();
                split_port(place).map_or(place, |(host, _)| host)
            }
            Self::Azure { .. } => "azure",
            Self::Gcs { .. } => "google",
            Self::Sftp(sftp) => &sftp.host,
        };
        let own =
            host == "localhost" || host == "[::1]" || host == "::1" || host.starts_with("127.");
        (!own).then_some(host)
    }

    /// Whether the text held a password, which belongs elsewhere in a file that is shared.
    #[must_use]
    pub fn has_password(&self) -> bool {
        matches!(self, Self::Rest(rest) if rest.password.is_some())
    }

    /// The scheme; `None` for a folder.
    #[must_use]
    pub fn scheme(&self) -> Option<&'static str> {
        Some(match self {
            Self::Folder(_) => return None,
            Self::S3 { .. } => "s3",
            Self::Azure { .. } => "azure",
            Self::Gcs { .. } => "gs",
            Self::Sftp(_) => "sftp",
            Self::Rest(_) => "rest",
        })
    }
}

/// Writes the location as it can be typed again, without a password.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::S3 { endpoint, bucket, prefix } if prefix.is_empty() => {
                write!(f, "s3:{endpoint}/{bucket}")
            }
            Self::S3 { endpoint, bucket, prefix } => write!(f, "s3:{endpoint}/{bucket}/{prefix}"),
            Self::Azure { container, prefix } => write!(f, "azure:{container}:/{prefix}"),
            Self::Gcs { bucket, prefix } => write!(f, "gs:{bucket}:/{prefix}"),
            Self::Sftp(sftp) => sftp.fmt(f),
            Self::Rest(rest) => rest.fmt(f),
        }
    }
}

impl fmt::Display for Sftp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        match self.port {
            None => write!(f, "sftp:{user}{}:{}", self.host, self.path),
            Some(port) => write!(f, "sftp://{user}{}:{port}/{}", self.host, self.path),
        }
    }
}

impl fmt::Display for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.url.split_once("://").unwrap_or(("http", &self.url));
        match &self.user {
            Some(user) => write!(f, "rest:{scheme}://{user}@{rest}"),
            None => write!(f, "rest:{}", self.url),
        }
    }
}

/// restic takes the first part for the host, also after `s3://`; Amazon's own tools write
/// `s3://BUCKET/…`. A host has a dot or a port, or is `localhost`.
fn s3(rest: &str) -> Result<Location, LocationError> {
    let malformed = |why| LocationError::Malformed { scheme: "s3", why };
    let (scheme, rest, named_bucket) = if let Some(rest) = rest.strip_prefix("https://") {
        ("https", rest, false)
    } else if let Some(rest) = rest.strip_prefix("http://") {
        ("http", rest, false)
    } else if let Some(rest) = rest.strip_prefix("//") {
        let first = rest.split('/').next().unwrap_or_default();
        ("https", rest, !first.contains(['.', ':']) && first != "localhost")
    } else {
        ("https", rest, false)
    };
    let (host, path) = match named_bucket {
        true => ("s3.amazonaws.com", rest),
        false => rest.split_once('/').unwrap_or((rest, "")),
    };
    if host.contains('@') {
        return Err(malformed("a user or password does not belong there"));
    }
    let (bucket, prefix) = path.trim_matches('/').split_once('/').unwrap_or((path, ""));
    let bucket = bucket.trim_matches('/');
    if host.is_empty() || bucket.is_empty() {
        return Err(malformed("it needs a host and a bucket"));
    }
    Ok(Location::S3 {
        endpoint: format!("{scheme}://{host}"),
        bucket: bucket.to_owned(),
        prefix: prefix.trim_matches('/').to_owned(),
    })
}

/// Whether an endpoint of S3 is Amazon's own.
#[must_use]
pub fn is_amazon(endpoint: &str) -> bool {
    let host = endpoint.split_once("://").map_or(endpoint, |(_, host)| host);
    host.ends_with(AMAZON) || host.ends_with("amazonaws.com.cn")
}

fn container(scheme: &'static str, rest: &str) -> Result<(String, String), LocationError> {
    let (name, path) = rest.split_once(':').unwrap_or((rest, ""));
    if name.is_empty() || name.contains('/') {
        return Err(LocationError::Malformed { scheme, why: "it needs a name and `:/`" });
    }
    Ok((name.to_owned(), path.trim_matches('/').to_owned()))
}

fn sftp(rest: &str) -> Result<Sftp, LocationError> {
    let malformed = |why| LocationError::Malformed { scheme: "sftp", why };
    let (user, host, port, path) = match rest.strip_prefix("//") {
        Some(url) => {
            let (authority, path) =
                url.split_once('/').ok_or_else(|| malformed("it needs a folder"))?;
            let (user, place) = split_user(authority);
            let (host, port) = split_port(place).ok_or_else(|| malformed("the port is none"))?;
            (user, host, port, path)
        }
        None => {
            let (user, place) = match rest.rsplit_once('@') {
                Some((user, place)) => (Some(user), place),
                None => (None, rest),
            };
            let end = place.find(']').unwrap_or(0);
            let colon =
                place[end..].find(':').ok_or_else(|| malformed("it needs a host and a folder"))?;
            (user, &place[..end + colon], None, &place[end + colon + 1..])
        }
    };
    if user.is_some_and(|user| user.contains(':')) {
        return Err(malformed("SSH takes no password there; use a key"));
    }
    // A host that begins with a dash would be an option of ssh.
    if host.is_empty() || host.starts_with('-') || user.is_some_and(|user| user.starts_with('-')) {
        return Err(malformed("it needs a host"));
    }
    if path.is_empty() {
        return Err(malformed("it needs a folder"));
    }
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(Sftp { user: user.map(str::to_owned), host, port, path: path.to_owned() })
}

fn split_user(authority: &str) -> (Option<&str>, &str) {
    match authority.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, authority),
    }
}

/// Host and port of `HOST`, `HOST:PORT`, `[IPV6]`, `[IPV6]:PORT`.
fn split_port(place: &str) -> Option<(&str, Option<u16>)> {
    let end = place.find(']').map_or(0, |end| end + 1);
    match place[end..].rsplit_once(':') {
        None => Some((place, None)),
        Some((before, port)) => Some((&place[..end + before.len()], Some(port.parse().ok()?))),
    }
}

fn rest(rest: &str) -> Result<Rest, LocationError> {
    let malformed = |why| LocationError::Malformed { scheme: "rest", why };
    let (scheme, rest) = rest.split_once("://").ok_or_else(|| malformed("it needs a URL"))?;
    if !["http", "https"].contains(&scheme) {
        return Err(malformed("its URL is http or https"));
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, place) = split_user(authority);
    let host = split_port(place).ok_or_else(|| malformed("the port is none"))?.0;
    if host.is_empty() || path.contains(['?', '#']) {
        return Err(malformed("it needs a host and a path"));
    }
    let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
        None => (None, None),
        Some((user, "")) => (Some(decoded(user)), None),
        Some((user, password)) => (Some(decoded(user)), Some(UrlPassword(decoded(password)))),
    };
    let path = path.trim_matches('/');
    let slash = if path.is_empty() { "" } else { "/" };
    Ok(Rest { url: format!("{scheme}://{place}/{path}{slash}"), user, password })
}

/// Takes percent encoding back; what is no encoding stays as it is.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a location is read as, written down again.
    fn check(text: &str, expected: &str) {
        let location = Location::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(location.to_string(), expected, "{text}");
        assert_eq!(Location::parse(expected).unwrap().to_string(), expected, "again");
    }

    #[test]
    fn folders() {
        for (text, path) in [
            ("/backup", "/backup"),
            ("../b:c", "../b:c"),
            ("local:/backup", "/backup"),
            ("local:s3:x", "s3:x"),
            ("file:///backup", "/backup"),
        ] {
            assert_eq!(Location::parse(text), Ok(Location::Folder(path.into())), "{text}");
        }
    }

    #[test]
    fn the_forms_of_restic() {
        check("s3:s3.amazonaws.com/bucket", "s3:https://s3.amazonaws.com/bucket");
        check("s3:https://host:9000/bucket/a/b/", "s3:https://host:9000/bucket/a/b");
        check("s3:http://127.0.0.1:9000/bucket", "s3:http://127.0.0.1:9000/bucket");
        check("s3://s3.eu-west-1.amazonaws.com/b/p", "s3:https://s3.eu-west-1.amazonaws.com/b/p");
        check("s3://bucket/prefix", "s3:https://s3.amazonaws.com/bucket/prefix");
        check("azure:container:/", "azure:container:/");
        check("azure:container:/a/b", "azure:container:/a/b");
        check("gs:bucket:/a", "gs:bucket:/a");
        check("sftp:user@host:/srv/repo", "sftp:user@host:/srv/repo");
        check("sftp:host:repo", "sftp:host:repo");
        check("sftp://user@host:2222//srv/repo", "sftp://user@host:2222//srv/repo");
        check("sftp://host/repo", "sftp:host:repo");
        check("rest:http://host:8000", "rest:http://host:8000/");
        check("rest:https://user:secret@host/a", "rest:https://user@host/a/");
    }

    #[test]
    fn a_store_stands_on_its_host() {
        let check = |text: &str, host: Option<&str>| {
            assert_eq!(Location::parse(text).unwrap().host(), host, "{text}");
        };
        check("/backup", None);
        check("s3:https://minio.example.org:9000/b", Some("minio.example.org"));
        check("rest:http://127.0.0.1:8000/", None);
        check("rest:http://me:x@store/", Some("store"));
        check("sftp:me@far:/x", Some("far"));
    }

    #[test]
    fn passwords_are_taken_out_and_never_shown() {
        let location = Location::parse("rest:https://me:s%40crt@host/").unwrap();
        assert!(location.has_password());
        let Location::Rest(rest) = &location else { panic!("{location:?}") };
        assert_eq!(rest.password.as_ref().unwrap().reveal(), "s@crt");
        assert!(!format!("{location:?} {location}").contains("crt"));
        let error = Location::parse("s3:https://key:hush@host/bucket").unwrap_err();
        assert!(!format!("{error} {error:?} {}", error.help()).contains("hush"));
        assert!(Location::parse("sftp:me:hush@host:/x").is_err());
    }

    #[test]
    fn what_names_no_place_is_refused() {
        for text in [
            "https://host/repo",
            "b2:bucket:x",
            "rclone:x:y",
            "s3:host",
            "s3:https:///b",
            "azure:",
            "gs:/x",
            "sftp:host",
            "sftp:-oProxyCommand=x:/y",
            "sftp://host:none/x",
            "rest:host",
            "rest:ftp://host",
            "rest:http://",
            "sftp:host:",
        ] {
            let error = Location::parse(text).expect_err(text);
            assert!(!error.help().is_empty());
        }
    }
}
