//! Keys: what may be a key, how two key types compare, and the forms in which they are compared.
//!
//! Every key is first brought into the domain of the dimension's key. One column that fits is
//! compared as `i64` (integers, booleans, all times, decimals of up to 18 digits) or as bytes
//! (strings, binary). Several columns become one number where their values leave room for that; else
//! they, and decimals too wide for `i64`, are compared as the bytes of their row encoding.

mod family;
mod form;
pub(crate) mod hash;
mod int;
mod packed;
mod plan;
mod text;
mod wide;

pub(crate) use family::check_comparable;
pub use family::check_key_field;
pub(crate) use form::KeyForm;
pub use plan::KeyPlan;
pub(crate) use plan::{KeyScratch, KeyValues, plain_column, plain_columns};
pub(crate) use text::{KeyText, null_union};
