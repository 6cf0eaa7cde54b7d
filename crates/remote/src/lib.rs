//! Files in object stores and on web servers: `s3://`, `gs://`, `az://`, `abfss://`, `http://`, `https://`.
//!
//! A remote file is named by its URL, kept in a [`Path`] as it was typed: it is never joined, made absolute or cleaned of
//! its double slash. What is read is fetched whole into an unnamed file of the directory for temporary files, so that all
//! formats are read from a mapping or a file, as local ones are; what is written is collected in such a file, uploaded
//! when it is complete, and becomes visible in one step. Unnamed files go with the process, however it ends.
//!
//! Calls wait for the network, and stop when the client's flag for it is set. They may be made from any thread, also
//! from one of an asynchronous runtime.

mod client;
mod error;
mod expand;
mod fetch;
mod sink;
mod url;

pub use self::{
    client::{Client, Stat},
    url::{can_query, is_url, name_of, normal, shown},
};
