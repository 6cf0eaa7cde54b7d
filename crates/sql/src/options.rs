//! What a session can set: `SET darner.NAME = VALUE`.

use datafusion::{
    common::extensions_options,
    config::{ConfigExtension, ConfigOptions},
    prelude::SessionContext,
};

use crate::cache::CACHE_BYTES;

extensions_options! {
    /// What a session can set about the tables of stores: `SET darner.NAME = VALUE`.
    pub struct DarnerOptions {
        /// Whether joins with a whole table of a store on its key look rows up in a dimension that is shared and kept, rather
        /// than build a hash table of their own.
        pub lookup_join: bool, default = true
        /// Bytes of dimensions that are kept for later queries, of each store. Sessions that share a store share what is kept.
        pub dimension_cache_bytes: usize, default = CACHE_BYTES
    }
}

impl ConfigExtension for DarnerOptions {
    const PREFIX: &'static str = "darner";
}

impl DarnerOptions {
    /// The options of a session; the defaults, if none were ever added to it.
    pub(crate) fn of(config: &ConfigOptions) -> Self {
        let options = config.extensions.get::<Self>();
        options.cloned().unwrap_or_default()
    }

    /// Makes the options known to a session. Those that it has stay as they are.
    pub(crate) fn add_to(context: &SessionContext) {
        let state = context.state_ref();
        let mut state = state.write();
        let config = state.config_mut().options_mut();
        if config.extensions.get::<Self>().is_none() {
            config.extensions.insert(Self::default());
        }
    }
}
