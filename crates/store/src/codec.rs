//! Little-endian encoding of the small structures on disk: frames, manifests, catalogs.
//!
//! Every length that is read is checked against the bytes that are left, so that damaged bytes end in an error and
//! never in a huge allocation.

use crate::error::{Error, Result};

/// Appends values to a byte vector.
#[derive(Default)]
pub(crate) struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// With room for so many bytes.
    pub(crate) fn with_capacity(num_bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(num_bytes),
        }
    }

    pub(crate) fn put_u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(crate) fn put_u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn put_u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn put_i64(&mut self, value: i64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Appends a length (u64) and the bytes.
    pub(crate) fn put_bytes(&mut self, value: &[u8]) {
        self.put_u64(value.len() as u64);
        self.bytes.extend_from_slice(value);
    }

    pub(crate) fn put_str(&mut self, value: &str) {
        self.put_bytes(value.as_bytes());
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Takes values off the front of a byte slice.
pub(crate) struct Decoder<'a> {
    bytes: &'a [u8],
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        match self.bytes.split_at_checked(len) {
            Some((taken, rest)) => {
                self.bytes = rest;
                Ok(taken)
            }
            None => Err(Error::data(format!(
                "record ends early: wanted_bytes=`{len}` left_bytes=`{}`",
                self.bytes.len()
            ))),
        }
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn get_u8(&mut self) -> Result<u8> {
        Ok(self.take_array::<1>()?[0])
    }

    pub(crate) fn get_u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take_array()?))
    }

    pub(crate) fn get_u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.take_array()?))
    }

    pub(crate) fn get_i64(&mut self) -> Result<i64> {
        Ok(i64::from_le_bytes(self.take_array()?))
    }

    pub(crate) fn get_bytes(&mut self) -> Result<&'a [u8]> {
        let len = self.get_u64()?;
        self.take(usize::try_from(len).unwrap_or(usize::MAX))
    }

    pub(crate) fn get_str(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.get_bytes()?)
            .map_err(|error| Error::data("text in a record is not UTF-8").with_source(error))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Fails unless every byte was taken.
    pub(crate) fn expect_end(&self) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        Err(Error::data(format!(
            "record is too long: extra_bytes=`{}`",
            self.bytes.len()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_and_every_cut_is_an_error() {
        let mut encoder = Encoder::new();
        encoder.put_u8(7);
        encoder.put_u32(70_000);
        encoder.put_u64(u64::MAX);
        encoder.put_i64(-3);
        encoder.put_str("darner");
        let bytes = encoder.finish();
        let decode = |bytes: &[u8]| -> Result<(u8, u32, u64, i64, String)> {
            let mut decoder = Decoder::new(bytes);
            let values = (
                decoder.get_u8()?,
                decoder.get_u32()?,
                decoder.get_u64()?,
                decoder.get_i64()?,
                decoder.get_str()?.to_owned(),
            );
            decoder.expect_end()?;
            Ok(values)
        };
        assert_eq!(
            decode(&bytes).unwrap(),
            (7, 70_000, u64::MAX, -3, "darner".to_owned())
        );
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}
