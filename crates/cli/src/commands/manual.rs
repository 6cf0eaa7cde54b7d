//! `darner completions` and `darner man`.

use clap::CommandFactory;
use darner_engine::Error;

use crate::{
    args::{Args, Completions, Man},
    error::Result,
    print,
};

pub(crate) fn completions(args: &Completions) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "darner", &mut script);
    print::bytes(&script)
}

pub(crate) fn man(args: &Man) -> Result<()> {
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Args::command())
            .render(&mut page)
            .map_err(|error| Error::io("cannot write the manual page", error))?;
        return print::bytes(&page);
    };
    let written =
        std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Args::command(), dir));
    written.map_err(|error| {
        let what = format!("cannot write manual pages into `{}`", dir.display());
        Error::io(what, error).into()
    })
}
