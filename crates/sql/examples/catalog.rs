//! A store in the SQL of a program that has DataFusion: `cargo run -p darner-sql --example catalog -- STORE 'QUERY'`.

use std::{env, error::Error, sync::Arc};

use darner_store::Store;
use datafusion::prelude::{SessionConfig, SessionContext};

fn main() -> Result<(), Box<dyn Error>> {
    let (Some(dir), Some(query)) = (env::args().nth(1), env::args().nth(2)) else {
        return Err("usage: catalog STORE QUERY".into());
    };
    // `Store::open` for one that statements may change.
    let store = Arc::new(Store::open_read_only(dir)?);
    let config = SessionConfig::new().with_default_catalog_and_schema("darner", darner_sql::SCHEMA);
    let context = SessionContext::new_with_config(config);
    darner_sql::register(&context, store, "darner");
    let show = async { context.sql(&query).await?.show().await };
    Ok(tokio::runtime::Runtime::new()?.block_on(show)?)
}
