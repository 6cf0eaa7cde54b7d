use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_row::{RowConverter, SortField};
use arrow_schema::{DataType, FieldRef};

use super::family::{check_comparable, check_key_field, plain_type};
use super::int::{Factor, IntConversion, tick_ns};
use super::packed::Packing;
use super::plan::{Conversion, Form, KeyPlan, KeyScratch, PartPlan, plain_column, row_type};
use super::text::null_union;
use crate::{Error, Result};

/// The values among which the keys of one column are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Domain {
    Int64,
    /// `u64` with its bits taken as `i64`.
    UInt64,
    /// `i256` at the scale of the key's type.
    Wide,
    Bytes,
}

/// The key of one dimension: its columns, and the domain of each, chosen from the data.
#[derive(Debug)]
pub(crate) struct KeyForm {
    table: String,
    fields: Vec<FieldRef>,
    domains: Vec<Domain>,
    /// How several columns become one number, if they do.
    packing: Option<Arc<Packing>>,
}

impl KeyForm {
    /// The form of a key whose data is not known yet: decimals are taken to fit in `i64`.
    pub(crate) fn new(table: &str, fields: Vec<FieldRef>) -> Result<Self> {
        if fields.is_empty() {
            return Err(Error::invalid(format!(
                "a key needs a column: dimension=`{table}`"
            )));
        }
        for field in &fields {
            check_key_field(field)
                .map_err(|error| error.context(format_args!("dimension `{table}`")))?;
        }
        let domains = fields
            .iter()
            .map(|field| match plain_type(field.data_type()) {
                DataType::UInt64 => Domain::UInt64,
                t if t.is_string() || t.is_binary() => Domain::Bytes,
                DataType::FixedSizeBinary(_) => Domain::Bytes,
                _ => Domain::Int64,
            })
            .collect();
        Ok(Self {
            table: table.to_owned(),
            fields,
            domains,
            packing: None,
        })
    }

    /// Widens the domains of decimals for values that `i64` does not hold.
    pub(crate) fn widen(&mut self, columns: &[ArrayRef], scratch: &mut KeyScratch) -> Result<()> {
        for (idx, column) in columns.iter().enumerate() {
            let decides = matches!(
                plain_type(column.data_type()),
                DataType::Decimal128(..) | DataType::Decimal256(..)
            );
            if !decides || self.domains[idx] != Domain::Int64 {
                continue;
            }
            let column = [plain_column(column)?];
            let field = Arc::clone(&self.fields[idx]);
            let one = Self {
                table: String::new(),
                fields: vec![field],
                domains: vec![Domain::Int64],
                packing: None,
            };
            let plan = one.bind(&one.fields)?;
            let encoded = plan.encode(&column, scratch)?;
            let nulls = null_union(&column);
            let is_null = |row: u32| nulls.as_ref().is_some_and(|n| n.is_null(row as usize));
            if encoded.misses.iter().any(|&row| !is_null(row)) {
                self.domains[idx] = Domain::Wide;
            }
        }
        Ok(())
    }

    /// Makes one number of the columns of a key, if their values leave room for that. Comes after the domains were widened,
    /// and holds for these keys alone.
    ///
    /// # Shapes
    /// `pages`: of each the plain key columns, without nulls, of the key's types; strings may have wider offsets.
    pub(crate) fn pack(&mut self, pages: &[&[ArrayRef]]) {
        if self.fields.len() < 2 {
            return;
        }
        let columns: Vec<Vec<_>> = (0..self.fields.len())
            .map(|idx| {
                let key = plain_type(self.fields[idx].data_type());
                let of = |column: &ArrayRef| conversion(key, column.data_type(), self.domains[idx]);
                pages
                    .iter()
                    .map(|page| (&page[idx], of(&page[idx])))
                    .collect()
            })
            .collect();
        self.packing = Packing::choose(&self.domains, &columns).map(Arc::new);
    }

    /// Bytes of what it keeps of the keys.
    pub(crate) fn num_bytes(&self) -> usize {
        self.packing
            .as_ref()
            .map_or(0, |packing| packing.num_bytes())
    }

    pub(crate) fn table(&self) -> &str {
        &self.table
    }

    pub(crate) fn fields(&self) -> &[FieldRef] {
        &self.fields
    }

    /// Whether keys are compared as `i64`.
    pub(crate) fn is_int(&self) -> bool {
        self.packing.is_some() || matches!(self.domains[..], [Domain::Int64 | Domain::UInt64])
    }

    /// Whether keys are numbers of up to 64 bits by their type. Wider decimals may be compared as `i64` until others come
    /// that are not.
    #[inline]
    pub(crate) fn is_number(&self) -> bool {
        let is_wide = |data_type: &DataType| {
            matches!(
                data_type,
                DataType::Decimal128(..) | DataType::Decimal256(..)
            )
        };
        let is_one = self.fields.len() == 1;
        is_one && self.is_int() && !is_wide(plain_type(self.fields[0].data_type()))
    }

    /// A number as it is compared, if the domain of an integer key holds it.
    pub(crate) fn int(&self, value: i128) -> Option<i64> {
        match self.domains[..] {
            [Domain::UInt64] => u64::try_from(value).ok().map(u64::cast_signed),
            _ => i64::try_from(value).ok(),
        }
    }

    /// Whether keys are compared as the bytes of one column.
    pub(crate) fn is_bytes(&self) -> bool {
        matches!(self.domains[..], [Domain::Bytes])
    }

    /// Prepares the comparison with fact columns of these types, in the order of the key.
    pub(crate) fn bind(&self, fact: &[FieldRef]) -> Result<KeyPlan> {
        if fact.len() != self.fields.len() {
            return Err(Error::invalid(format!(
                "the number of columns is not that of the key: got=`{}` expected=`{}` dimension=`{}`",
                fact.len(),
                self.fields.len(),
                self.table
            )));
        }
        let mut parts = Vec::with_capacity(fact.len());
        for ((key, fact), &domain) in self.fields.iter().zip(fact).zip(&self.domains) {
            check_comparable(&self.table, key, fact)?;
            let source = plain_type(fact.data_type()).clone();
            let conversion = conversion(plain_type(key.data_type()), &source, domain);
            parts.push(PartPlan { source, conversion });
        }
        let form = if parts
            .iter()
            .any(|part| part.conversion == Conversion::AlwaysNull)
        {
            Form::AlwaysNull
        } else if let Some(packing) = &self.packing {
            Form::Packed(Arc::clone(packing))
        } else if self.is_int() {
            Form::Ints
        } else if self.is_bytes() {
            Form::Bytes
        } else {
            let fields = parts
                .iter()
                .map(|part| SortField::new(row_type(part)))
                .collect();
            let converter = RowConverter::new(fields).map_err(|error| {
                Error::internal("cannot encode keys as rows").with_source(error)
            })?;
            Form::Rows(Box::new(converter))
        };
        Ok(KeyPlan { parts, form })
    }
}

/// How values of type `fact` come into the domain of a key of type `key`. The two are of one
/// family.
fn conversion(key: &DataType, fact: &DataType, domain: Domain) -> Conversion {
    if fact.is_null() {
        return Conversion::AlwaysNull;
    }
    let factor = match (tick_ns(fact), tick_ns(key)) {
        (Some(from_ns), Some(to_ns)) => Factor::ticks(from_ns, to_ns),
        _ => Factor::power_of_ten(scale(key) - scale(fact)),
    };
    match domain {
        Domain::Int64 => Conversion::Ints(IntConversion {
            factor,
            unsigned: false,
        }),
        Domain::UInt64 => Conversion::Ints(IntConversion {
            factor,
            unsigned: true,
        }),
        Domain::Wide => Conversion::Wide(factor),
        Domain::Bytes => Conversion::Bytes,
    }
}

fn scale(data_type: &DataType) -> i32 {
    match data_type {
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => i32::from(*scale),
        _ => 0,
    }
}
