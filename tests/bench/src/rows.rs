//! What is measured: a row has contenders, and ratios that we want.

use std::{ffi::OsString, path::PathBuf};

use anyhow::Context;
use chorale_feature::{Event, Limits, analyze_file};
use chorale_model::contract::CHUNK_CELLS;

/// Where everything is.
pub(crate) struct Setting {
    pub(crate) audio: PathBuf,
    pub(crate) model: PathBuf,
    pub(crate) python: PathBuf,
    pub(crate) rivals: PathBuf,
    pub(crate) scratch: PathBuf,
}

/// Chunks in the file of [`Setting::chunks`].
pub(crate) const CHUNKS: usize = 32;

impl Setting {
    /// [`CHUNKS`] chunks of the track, as bytes.
    pub(crate) fn chunks(&self) -> PathBuf {
        self.scratch.join("chunks.u8")
    }

    /// The track as 32-bit floats at the contract's rate.
    pub(crate) fn samples(&self) -> PathBuf {
        self.scratch.join("samples.f32")
    }
}

/// One line of the table.
pub(crate) struct Row {
    pub(crate) name: String,
    /// Cores that contenders may use.
    pub(crate) cores: usize,
    /// What one round works through, and how much of it.
    pub(crate) unit: (&'static str, f64),
    pub(crate) ours: Start,
    pub(crate) rivals: Vec<Rival>,
}

/// Somebody to compare with.
pub(crate) struct Rival {
    pub(crate) name: &'static str,
    pub(crate) start: Start,
    /// How many times as long as ours it should take.
    pub(crate) goal: f64,
    /// How far its answer may be from ours, at most: on average over the values. Not compared without it.
    pub(crate) tolerance: Option<f64>,
    /// Whether the row goes on without it if it does not start.
    pub(crate) may_be_away: bool,
}

impl Rival {
    /// Whether it is this program too.
    pub(crate) fn is_own(&self) -> bool {
        self.start.arguments.first().is_some_and(|word| word == CONTENDER)
    }
}

/// The command by which this program is a contender.
pub(crate) const CONTENDER: &str = "contender";

/// How a contender is started.
pub(crate) struct Start {
    pub(crate) program: OsString,
    pub(crate) arguments: Vec<OsString>,
}

/// Writes what contenders read.
pub(crate) fn prepare(setting: &Setting) -> anyhow::Result<()> {
    let mut chunks = Vec::new();
    analyze_file(&setting.audio, &Limits::default(), &mut |event| {
        if let Event::Chunk(chunk) = event {
            chunks.push(chunk.quantize().cells);
        }
        std::ops::ControlFlow::Continue(())
    })
    .with_context(|| setting.audio.display().to_string())?;
    let cells: Vec<u8> = chunks.iter().flatten().copied().cycle().take(CHUNKS * CHUNK_CELLS).collect();
    std::fs::write(setting.chunks(), cells)?;
    let samples = crate::ours::samples_of(&setting.audio)?;
    std::fs::write(setting.samples(), samples.iter().flat_map(|sample| sample.to_le_bytes()).collect::<Vec<u8>>())?;
    Ok(())
}
