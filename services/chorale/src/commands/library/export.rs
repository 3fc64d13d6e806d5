//! `chorale library export`: the library as a table for other programs.

use std::io::{self, BufWriter, IsTerminal};

use chorale_library::{Format, Index, export, export_to_file};

use super::{index_path, stats::tracks, unless_closed, usage};
use crate::{
    cli::library::ExportArguments,
    exit::{Exit, UsageError},
};

pub(crate) fn run(arguments: &ExportArguments) -> anyhow::Result<Exit> {
    let out = &arguments.out;
    let to_stdout = out.as_os_str() == "-";
    let format = arguments.format.map(Format::from).or_else(|| Format::of_name(out)).ok_or_else(|| {
        let name = out.display();
        UsageError(format!("{name} does not end in .csv, .jsonl or .parquet; say with --format which one it is to be"))
    })?;
    if to_stdout && format == Format::Parquet && io::stdout().is_terminal() {
        let text = "a Parquet file is nothing for a terminal; name a file with -o FILE";
        return Err(UsageError(text.to_owned()).into());
    }
    let index = Index::open(&index_path(&arguments.index)?)?;
    let filter = arguments.filter.filter();
    if to_stdout {
        let name = "standard output".as_ref();
        let written = export(&index, &filter, format, BufWriter::new(io::stdout()), name);
        unless_closed(written.map(drop)).map_err(usage)?;
    } else {
        let count = export_to_file(&index, &filter, format, out).map_err(usage)?;
        anstream::eprintln!("{} written to {}", tracks(count), out.display());
    }
    Ok(Exit::Done)
}
