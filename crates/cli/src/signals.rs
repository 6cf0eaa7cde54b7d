//! Signals: a flag for those that ask us to stop, silence for those that are told to us as errors anyway.

use std::{
    io,
    sync::{Arc, atomic::AtomicBool},
};

use darner_engine::{Error, ErrorKind};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ},
    flag,
};

use crate::error::Result;

/// Makes SIGINT, SIGTERM and SIGHUP set the returned flag. A second one ends the process at once; nothing that was committed
/// is lost by that.
pub(crate) fn install() -> Result<Arc<AtomicBool>> {
    let cancel = Arc::new(AtomicBool::new(false));
    let install = || -> io::Result<()> {
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            flag::register_conditional_default(signal, Arc::clone(&cancel))?;
            flag::register(signal, Arc::clone(&cancel))?;
        }
        // A write past the file-size limit fails with an error of its own then.
        flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
        Ok(())
    };
    install().map_err(|error| {
        Error::new(ErrorKind::Unavailable, "cannot watch for signals").with_source(error)
    })?;
    Ok(cancel)
}
