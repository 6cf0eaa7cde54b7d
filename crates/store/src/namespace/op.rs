//! One change of keyed state, and its form in the log.

use crate::{
    codec::{Decoder, Encoder},
    error::{Error, ErrorKind, Result},
    namespace::{KEY_BYTES_MAX, VALUE_BYTES_MAX, entry::Entry, key::Key},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StateOp {
    Put(Entry),
    Delete(Key),
    Clear,
}

impl StateOp {
    /// Checks sizes and copies.
    pub(crate) fn put(key: &[u8], value: &[u8], expires_us: i64) -> Result<Self> {
        check_bytes("key", key, KEY_BYTES_MAX)?;
        check_bytes("value", value, VALUE_BYTES_MAX)?;
        Ok(Self::Put(Entry::new(key, value, expires_us)))
    }

    /// Checks sizes and copies.
    pub(crate) fn delete(key: &[u8]) -> Result<Self> {
        check_bytes("key", key, KEY_BYTES_MAX)?;
        Ok(Self::Delete(key.into()))
    }

    /// About the bytes that it takes in the log.
    pub(crate) fn num_bytes(&self) -> usize {
        32 + match self {
            Self::Put(entry) => entry.num_bytes(),
            Self::Delete(key) => key.len(),
            Self::Clear => 0,
        }
    }

    pub(crate) fn encode(&self, out: &mut Encoder) {
        match self {
            Self::Put(entry) => {
                out.put_u8(1);
                out.put_i64(entry.expires_us());
                out.put_bytes(entry.key());
                out.put_bytes(entry.value());
            }
            Self::Delete(key) => {
                out.put_u8(2);
                out.put_bytes(key);
            }
            Self::Clear => out.put_u8(3),
        }
    }

    pub(crate) fn decode(input: &mut Decoder<'_>) -> Result<Self> {
        Ok(match input.get_u8()? {
            1 => {
                let expires_us = input.get_i64()?;
                let (key, value) = (input.get_bytes()?, input.get_bytes()?);
                Self::Put(Entry::new(key, value, expires_us))
            }
            2 => Self::Delete(input.get_bytes()?.into()),
            3 => Self::Clear,
            op => {
                return Err(Error::data(format!(
                    "log holds an unknown state change=`{op}`"
                )));
            }
        })
    }
}

fn check_bytes(what: &str, bytes: &[u8], bytes_max: usize) -> Result<()> {
    if bytes.len() > bytes_max {
        return Err(Error::new(
            ErrorKind::Resource,
            format!(
                "{what} is too long: num_bytes=`{}` bytes_max=`{bytes_max}`",
                bytes.len()
            ),
        ));
    }
    Ok(())
}
