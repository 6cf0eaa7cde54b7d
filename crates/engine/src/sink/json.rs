//! Newline-delimited JSON. Nulls are written, so that every line has the same members.

use super::{Compression, Encoder, Output, encode_error, text::TextOutput};
use crate::{Error, Result, source::Format};
use arrow_array::{RecordBatch, new_empty_array};
use arrow_json::{
    EncoderOptions, WriterBuilder,
    writer::{LineDelimited, Writer, make_encoder},
};
use arrow_schema::SchemaRef;
use std::sync::Arc;

pub(super) struct JsonEncoder {
    writer: Writer<TextOutput, LineDelimited>,
}

impl JsonEncoder {
    pub(super) fn new(
        open: impl FnOnce() -> Result<Output>,
        schema: &SchemaRef,
        compression: Option<Compression>,
    ) -> Result<Self> {
        // The writer finds out with the first batch what it can't write; a trial on an empty array
        // finds out now.
        for field in schema.fields() {
            let empty = new_empty_array(field.data_type());
            let options = EncoderOptions::default();
            make_encoder(&Arc::clone(field), &empty, &options).map_err(|error| {
                Error::invalid(format!(
                    "JSON cannot hold the column: column=`{}`, type=`{}`",
                    field.name(),
                    field.data_type()
                ))
                .with_source(error)
            })?;
        }
        let output = TextOutput::new(open, Format::NdJson, compression)?;
        let writer = WriterBuilder::new().with_explicit_nulls(true).build(output);
        Ok(Self { writer })
    }
}

impl Encoder for JsonEncoder {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(batch).map_err(encode_error)
    }

    fn finish(mut self: Box<Self>) -> Result<Output> {
        self.writer.finish().map_err(encode_error)?;
        self.writer.into_inner().finish()
    }
}
