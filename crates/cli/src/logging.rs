//! What the program and its libraries tell of their work, for `--log`.

use std::{io, sync::Arc};

use darner_engine::{Error, ErrorKind, Result};
use tracing_subscriber::{
    Layer, Registry, filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt,
};

use crate::{args::LogFormat, metrics::Metrics};

/// From here on events are taken: metrics, and those that the filter lets through to standard error.
pub(crate) fn install(
    filter: Option<&Targets>,
    format: LogFormat,
    metrics: &Arc<Metrics>,
) -> Result<()> {
    let log = filter.map(|filter| {
        let layer = fmt::layer().with_writer(io::stderr);
        let layer: Box<dyn Layer<Registry> + Send + Sync> = match format {
            LogFormat::Json => layer.json().boxed(),
            LogFormat::Text => layer.with_ansi(false).boxed(),
        };
        layer.with_filter(filter.clone())
    });
    Registry::default()
        .with(log)
        .with(metrics.layer())
        .try_init()
        .map_err(|error| {
            Error::new(ErrorKind::Internal, "a second log was begun").with_source(error)
        })
}
