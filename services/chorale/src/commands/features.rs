//! `chorale features`: the mel chunks of a file, as the network gets them.

use std::{fs::File, io::BufWriter, ops::ControlFlow, path::Path};

use anyhow::Context;
use chorale_feature::{DbChunk, Event, Limits, analyze_file};
use chorale_model::contract::{CHUNK_CELLS, CHUNK_FRAMES, MEL_BANDS};
use npyz::WriterBuilder;

use crate::{
    cli::features::{CellType, FeaturesArguments},
    exit::Exit,
};

pub(crate) fn run(arguments: &FeaturesArguments) -> anyhow::Result<Exit> {
    let (file, out) = (arguments.file.as_path(), arguments.out.as_path());
    match arguments.dtype {
        CellType::U8 => write(file, out, |chunk, cells: &mut Vec<u8>| cells.extend_from_slice(&chunk.quantize().cells)),
        CellType::F32 => write(file, out, |chunk, cells: &mut Vec<f32>| cells.extend_from_slice(chunk.cells)),
    }
}

fn write<T: npyz::AutoSerialize>(
    file: &Path,
    out: &Path,
    mut append: impl FnMut(&DbChunk<'_>, &mut Vec<T>),
) -> anyhow::Result<Exit> {
    let mut cells = Vec::new();
    let summary = analyze_file(file, &Limits::default(), &mut |event| {
        if let Event::Chunk(chunk) = event {
            append(&chunk, &mut cells);
        }
        ControlFlow::Continue(())
    })
    .with_context(|| file.display().to_string())?;
    for warning in &summary.warnings {
        anstream::eprintln!("{}: {}", file.display(), warning.message);
    }

    let shape = [(cells.len() / CHUNK_CELLS) as u64, MEL_BANDS as u64, CHUNK_FRAMES as u64];
    let write_array = || -> std::io::Result<()> {
        let mut writer = npyz::WriteOptions::new()
            .default_dtype()
            .shape(&shape)
            .writer(BufWriter::new(File::create(out)?))
            .begin_nd()?;
        writer.extend(cells)?;
        writer.finish()
    };
    write_array().with_context(|| format!("cannot write {}", out.display()))?;
    let [chunks, bands, frames] = shape;
    anstream::println!("{}: [{chunks}, {bands}, {frames}]", out.display());
    Ok(Exit::Done)
}
