//! URLs of remote files.

use std::path::{Path, PathBuf};

use darner_engine::{Error, Result};
use object_store::path::Path as Key;
use url::Url;

/// Schemes, and what kind of place they name.
const SCHEMES: [(&str, Kind); 9] = [
    ("s3", Kind::S3),
    ("s3a", Kind::S3),
    ("gs", Kind::Gcs),
    ("az", Kind::Azure),
    ("azure", Kind::Azure),
    ("abfs", Kind::Azure),
    ("abfss", Kind::Azure),
    ("http", Kind::Http),
    ("https", Kind::Http),
];

/// Characters that make a name a pattern.
pub(crate) const GLOB: [char; 3] = ['*', '?', '['];

/// Where a URL leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    S3,
    Gcs,
    Azure,
    Http,
}

/// A place and a name in it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) kind: Kind,
    /// `s3://bucket`; of a web server the whole address, as it was typed.
    pub(crate) place: String,
    /// The name in an object store, as it was typed, without a slash before it. Empty for a web server.
    pub(crate) key: String,
    /// The name for people, and for formats by extension: the key, or the last part of an address.
    pub(crate) name: String,
}

/// Whether a path is the URL of a remote file.
pub fn is_url(path: &Path) -> bool {
    path.to_str().is_some_and(|text| kind(text).is_some())
}

/// A URL in the form that all have which name the same file; other paths as they are.
pub fn normal(path: &Path) -> PathBuf {
    match Location::parse(path) {
        Ok(location) if location.kind != Kind::Http => {
            PathBuf::from(location.with_key(&location.key))
        }
        _ => path.to_path_buf(),
    }
}

/// What a file is called, for formats that names tell: a web address without what is not a part of its name.
pub fn name_of(path: &Path) -> PathBuf {
    Location::parse(path).map_or_else(|_| path.to_path_buf(), |location| location.name.into())
}

/// Whether SQL can read remote files in place: those of object stores.
pub fn can_query(path: &Path) -> bool {
    path.to_str()
        .and_then(kind)
        .is_some_and(|(kind, _)| kind != Kind::Http)
}

/// A path as it may be told to others: the query of a web address, which may be a signature, and a password are left out.
pub fn shown(path: &Path) -> String {
    let text = path.display().to_string();
    if kind(&text).is_none_or(|(kind, _)| kind != Kind::Http) {
        return text;
    }
    let Ok(mut url) = Url::parse(&text) else {
        // Not an address; it may hold secrets all the same.
        let text = text.split(['?', '#']).next().unwrap_or_default();
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let rest = rest.rsplit('@').next().unwrap_or_default();
        return format!("{scheme}://{rest}");
    };
    url.set_query(None);
    url.set_fragment(None);
    // A web address has a host, so that these can be set.
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.into()
}

/// The kind of a URL and what follows `://`.
fn kind(text: &str) -> Option<(Kind, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let known = SCHEMES
        .iter()
        .find(|(known, _)| scheme.eq_ignore_ascii_case(known))?;
    Some((known.1, rest))
}

impl Location {
    /// Takes a URL apart.
    ///
    /// # Errors
    /// `Invalid`, naming the URL.
    pub(crate) fn parse(path: &Path) -> Result<Self> {
        let invalid = |what: &str| Error::invalid(format!("{what}: url=`{}`", shown(path)));
        let text = path.to_str().ok_or_else(|| invalid("not UTF-8"))?;
        let (kind, rest) = kind(text).ok_or_else(|| invalid("not the URL of a remote file"))?;
        if kind == Kind::Http {
            let url = Url::parse(text)
                .map_err(|error| invalid("malformed web address").with_source(error))?;
            if !url.username().is_empty() || url.password().is_some() {
                return Err(invalid("users and passwords in addresses are not sent"));
            }
            let path = Key::from_url_path(url.path());
            let name = path.as_ref().ok().and_then(Key::filename);
            return Ok(Self {
                kind,
                place: text.to_owned(),
                key: String::new(),
                name: name.unwrap_or_default().to_owned(),
            });
        }
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(invalid("the URL names no bucket"));
        }
        if bucket.contains(GLOB) {
            return Err(invalid("a bucket is named, not a pattern"));
        }
        if key.starts_with('/') || key.contains("//") {
            return Err(invalid("a name with an empty part (//) cannot be reached"));
        }
        let scheme = text[..text.len() - rest.len()].to_ascii_lowercase();
        let scheme = if scheme == "s3a://" { "s3://" } else { &scheme };
        Ok(Self {
            kind,
            place: format!("{scheme}{bucket}"),
            key: key.to_owned(),
            name: key.to_owned(),
        })
    }

    /// The name as the library has it.
    ///
    /// # Errors
    /// `Invalid` for names that no object can have, or that the library does not reach (`a//b`).
    pub(crate) fn key(&self) -> Result<Key> {
        Key::parse(&self.key).map_err(|error| {
            Error::invalid(format!(
                "not a name that an object can have: url=`{}`",
                self.shown()
            ))
            .with_source(error)
        })
    }

    /// The URL of another name in the same object store.
    pub(crate) fn with_key(&self, key: &str) -> String {
        format!("{}/{key}", self.place)
    }

    /// The URL, as it may be told to others.
    pub(crate) fn shown(&self) -> String {
        match self.kind {
            Kind::Http => shown(Path::new(&self.place)),
            _ => self.with_key(&self.key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Location {
        Location::parse(Path::new(text)).unwrap()
    }

    #[test]
    fn urls_are_places_and_names() {
        for (text, place, key) in [
            ("s3://b/a/b c%20.csv", "s3://b", "a/b c%20.csv"),
            ("S3://b", "s3://b", ""),
            ("gs://b/x?[1]*.csv", "gs://b", "x?[1]*.csv"),
            (
                "abfss://c@acc.dfs.core.windows.net/x/y.parquet",
                "abfss://c@acc.dfs.core.windows.net",
                "x/y.parquet",
            ),
            ("S3A://b/x", "s3://b", "x"),
        ] {
            let location = parse(text);
            assert_eq!(
                (location.place.as_str(), location.key.as_str()),
                (place, key)
            );
        }
        assert!(is_url(Path::new("s3://b/x")) && is_url(Path::new("HTTPS://h")));
        for text in ["x/s3:/b", "file:///x", "c:\\x", "ftp://x/y", "s3:x"] {
            assert!(!is_url(Path::new(text)), "{text}");
        }
        for text in [
            "s3:///x",
            "s3://*/x",
            "s3://b//x",
            "http://",
            "https://[/x",
            "https://u:p@h/x",
        ] {
            assert!(Location::parse(Path::new(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn signatures_and_passwords_are_not_shown() {
        assert_eq!(
            shown(Path::new("https://u:p@h/c.csv?sig=1#x")),
            "https://h/c.csv"
        );
        assert_eq!(shown(Path::new("s3://b/a?b")), "s3://b/a?b");
        for text in [
            "https://u:SECRET@/?sig=SECRET",
            "https://u:SECRET@h:99999/x.csv?sig=SECRET",
        ] {
            let error = Location::parse(Path::new(text)).err().unwrap();
            assert!(!format!("{error:?}").contains("SECRET"), "{error:?}");
        }
    }
}
