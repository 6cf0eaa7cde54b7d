//! The library's errors -> ours, with what to do.

use darner_engine::{Error, ErrorKind};
use object_store::Error as StoreError;

use crate::url::Kind;

/// The error of a request for `name`.
pub(crate) fn failed(action: &str, name: &str, kind: Kind, error: &StoreError) -> Error {
    let text = scrubbed(&error.to_string());
    let lower = text.to_lowercase();
    let asks = |word: &&str| lower.contains(*word);
    let (error_kind, remedy) = match error {
        StoreError::NotFound { .. } => {
            return Error::not_found(format!("{action}: there is no such file: url=`{name}`"));
        }
        StoreError::Precondition { .. } | StoreError::NotModified { .. } => {
            return changed(name).with_source(text);
        }
        StoreError::InvalidPath { .. } => (ErrorKind::Invalid, None),
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
            (ErrorKind::Unavailable, credentials(kind))
        }
        // Where no credentials are given they are asked for from the cloud's own machines, whose answer never comes
        // elsewhere.
        StoreError::Generic { .. } if CREDENTIALS.iter().any(asks) => {
            (ErrorKind::Unavailable, credentials(kind))
        }
        _ => (ErrorKind::Unavailable, None),
    };
    let remedy = remedy.map_or_else(String::new, |remedy| format!("; {remedy}"));
    Error::new(error_kind, format!("{action}: url=`{name}`{remedy}")).with_source(text)
}

/// Words in errors that are about who asks.
const CREDENTIALS: [&str; 6] = ["169.254", "metadata", "token", "credential", "401 ", "403 "];

/// What a library says of an error, without signatures in addresses and without what a server repeats of the request.
fn scrubbed(text: &str) -> String {
    let (text, code) = match text.split_once("<Code>") {
        Some((text, rest)) => (text, rest.split('<').next()),
        None => (text, None),
    };
    let text = text.split(['<', '{']).next().unwrap_or_default();
    let words = text.split(' ').map(|word| match word.split_once('?') {
        Some((address, _)) if address.contains("://") => address,
        _ => word,
    });
    let text = words.collect::<Vec<_>>().join(" ");
    let code = code.map_or_else(String::new, |code| format!(" ({code})"));
    format!("{}{code}", text.trim_end_matches([' ', ':']))
}

/// The error for a file that is another now than when its reading began.
pub(crate) fn changed(name: &str) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!(
            "a file was changed while it was read; run again once it is complete: url=`{name}`"
        ),
    )
}

/// What has to be known of a place, and where it is looked for.
pub(crate) fn credentials(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::S3 => Some(
            "credentials are taken from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or from the machine's role; \
             AWS_REGION and AWS_ENDPOINT_URL say where, AWS_SKIP_SIGNATURE=true asks without credentials",
        ),
        Kind::Gcs => Some(
            "credentials are taken from GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT, or from the \
             machine's role; GOOGLE_SKIP_SIGNATURE=true asks without credentials",
        ),
        Kind::Azure => Some(
            "AZURE_STORAGE_ACCOUNT_NAME names the account; credentials are taken from AZURE_STORAGE_ACCOUNT_KEY, \
             AZURE_STORAGE_SAS_TOKEN or AZURE_CLIENT_ID and its kin; AZURE_SKIP_SIGNATURE=true asks without",
        ),
        Kind::Http => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_repeat_is_not_told() {
        for (text, expected) in [
            (
                "Error performing GET https://h/x.csv?sig=SECRET in 2ms - status code: 403 Forbidden: <?xml?><Error>\
                 <Code>SignatureDoesNotMatch</Code><X>SECRET</X>",
                "Error performing GET https://h/x.csv in 2ms - status code: 403 Forbidden (SignatureDoesNotMatch)",
            ),
            ("refused: {\"token\": \"SECRET\"}", "refused"),
            ("disk full", "disk full"),
        ] {
            assert_eq!(scrubbed(text), expected);
        }
    }
}
