//! `segno man`: the manual pages, for whoever packs the binary.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

#[derive(Args)]
pub(super) struct Man {
    /// Where to write a page for each command
    directory: PathBuf,
}

pub(super) fn run(args: &Man, command: clap::Command) -> anyhow::Result<()> {
    let into: &Path = &args.directory;
    std::fs::create_dir_all(into)
        .and_then(|()| clap_mangen::generate_to(command, into))
        .with_context(|| format!("cannot write to {}", into.display()))
}
