//! Keys and values of keyed state as text: bytes in, text out, and nothing lost between.

use std::fmt::Write;

use darner_engine::{Error, Result};

/// The bytes that a word of the command line stands for: its own, or those whose hexadecimal digits it has.
pub(crate) fn parse(text: &str, is_hex: bool) -> Result<Vec<u8>> {
    if !is_hex {
        return Ok(text.as_bytes().to_vec());
    }
    let wrong = || {
        Error::invalid(format!(
            "not bytes in hexadecimal: got=`{text}`; two digits each, such as 0aff"
        ))
    };
    let digits: Vec<u32> = text
        .chars()
        .map(|c| c.to_digit(16))
        .collect::<Option<_>>()
        .ok_or_else(wrong)?;
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err(wrong());
    }
    pairs
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).map_err(|_| wrong()))
        .collect()
}

/// Two digits for each byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Text on one line that stands for exactly these bytes: what is no printable text is written as `\n`, `\r`, `\t` or
/// `\xNN`, and a backslash as `\\`.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                c if c.is_control() => {
                    push_escaped(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                c => text.push(c),
            }
        }
        push_escaped(&mut text, chunk.invalid());
    }
    text
}

fn push_escaped(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "\\x{byte:02x}");
    }
}

/// The text that bytes are, if they are text that a terminal shows as it is, lines and tabs included.
pub(crate) fn as_plain_text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.chars()
        .all(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .then_some(text)
}

/// Adds bytes to an object of JSON: as text if they are text, else as `NAME_hex`.
pub(crate) fn put_json(
    object: &mut serde_json::Map<String, serde_json::Value>,
    name: &str,
    bytes: &[u8],
    is_hex: bool,
) {
    match std::str::from_utf8(bytes) {
        Ok(text) if !is_hex => object.insert(name.to_owned(), text.into()),
        _ => object.insert(format!("{name}_hex"), hex(bytes).into()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_escaped_without_loss() {
        for (bytes, text) in [
            (&b"user/7"[..], "user/7"),
            ("größe 日本".as_bytes(), "größe 日本"),
            (b"a\\b", "a\\\\b"),
            (b"a\tb\nc\r", "a\\tb\\nc\\r"),
            (b"\x00\x1b[31m\x7f", "\\x00\\x1b[31m\\x7f"),
            (b"\xff\xc3", "\\xff\\xc3"),
            ("\u{85}".as_bytes(), "\\xc2\\x85"),
            (b"", ""),
        ] {
            assert_eq!(escape(bytes), text);
            assert_eq!(parse(&hex(bytes), true).unwrap(), bytes);
        }
    }

    #[test]
    fn wrong_hexadecimal_digits_are_refused() {
        for text in ["0", "0g", "0x00", "é", "0a f"] {
            assert!(parse(text, true).is_err(), "{text}");
        }
        assert_eq!(parse("0aFF", true).unwrap(), [0x0a, 0xff]);
    }
}
