//! Where pictures go.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::{
    cli::plot::{PictureFormat, PlotArguments},
    exit::UsageError,
    paths::Track,
};

/// Where pictures go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    Stdout,
    File(PathBuf),
    Folder(PathBuf, PictureFormat),
}

impl Destination {
    /// What `arguments` say. `several` files need a folder.
    pub(super) fn of(arguments: &PlotArguments, several: bool) -> Result<Self, UsageError> {
        let folder_format = arguments.format.unwrap_or(PictureFormat::Png);
        let Some(out) = &arguments.out else {
            return if several {
                Err(UsageError("several pictures need a folder: add -o FOLDER".to_owned()))
            } else {
                Self::beside_nothing(arguments, folder_format)
            };
        };
        if out.as_os_str() == "-" {
            let png = arguments.format == Some(PictureFormat::Png);
            return if several {
                Err(UsageError("several pictures do not fit into standard output: use -o FOLDER".to_owned()))
            } else if png && io::stdout().is_terminal() {
                Err(UsageError("a terminal cannot show PNG: name a file with -o, or redirect the output".to_owned()))
            } else {
                Ok(Self::Stdout)
            };
        }
        let said_to_be_folder = out.as_os_str().to_string_lossy().ends_with(std::path::is_separator);
        if several || out.is_dir() || said_to_be_folder {
            return Ok(Self::Folder(out.clone(), folder_format));
        }
        Self::format_of(arguments, Some(out))?;
        Ok(Self::File(out.clone()))
    }

    /// Without a name for it, a picture gets that of its track, and never takes the place of a file.
    fn beside_nothing(arguments: &PlotArguments, format: PictureFormat) -> Result<Self, UsageError> {
        let stem = arguments.paths.first().and_then(|path| path.file_stem());
        let picture = named(stem.unwrap_or("picture".as_ref()).to_owned(), format);
        if picture.exists() {
            let why = format!(
                "{} is there already: say with -o {0} that it is to be replaced, or name another file",
                picture.display()
            );
            return Err(UsageError(why));
        }
        Ok(Self::File(picture))
    }

    /// What `picture` is to be; standard output if it is `None`.
    pub(super) fn format_of(arguments: &PlotArguments, picture: Option<&Path>) -> Result<PictureFormat, UsageError> {
        if let Some(format) = arguments.format {
            return Ok(format);
        }
        let Some(picture) = picture else { return Ok(PictureFormat::Svg) };
        let extension = picture.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        match extension.as_str() {
            "png" => Ok(PictureFormat::Png),
            "svg" => Ok(PictureFormat::Svg),
            _ => Err(UsageError(format!(
                "expected a name that ends in .png or .svg, or --format, found {}",
                picture.display()
            ))),
        }
    }

    /// Makes the folder.
    pub(super) fn prepare(&self) -> anyhow::Result<()> {
        if let Self::Folder(folder, _) = self {
            fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        Ok(())
    }

    /// The picture of each track; `None` for standard output. In a folder, tracks of one name get different ones.
    pub(super) fn names(&self, tracks: &[Track]) -> Vec<Option<PathBuf>> {
        let (folder, format) = match self {
            Self::Stdout => return vec![None; tracks.len()],
            Self::File(file) => return vec![Some(file.clone()); tracks.len()],
            Self::Folder(folder, format) => (folder, format),
        };
        let mut taken = HashSet::new();
        let name = |track: &Track| {
            let name = match track {
                Track::File(path) | Track::Missing(path, _) => path.file_stem().unwrap_or("picture".as_ref()),
                Track::Stdin => "picture".as_ref(),
            };
            let numbered = (1_u64..).map(|number| {
                let mut name = name.to_owned();
                if number > 1 {
                    name.push(format!(" ({number})"));
                }
                folder.join(named(name, *format))
            });
            // Some file systems take upper and lower case for the same.
            let mut free = numbered.skip_while(|path| !taken.insert(path.to_string_lossy().to_lowercase()));
            free.next()
        };
        tracks.iter().map(name).collect()
    }
}

fn named(mut stem: OsString, format: PictureFormat) -> PathBuf {
    stem.push(".");
    stem.push(format.extension());
    stem.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracks_of_one_name_have_pictures_of_their_own() {
        let tracks = ["a/01.mp3", "b/01.MP3", "b/01.flac", "b/02.x.mp3"].map(|path| Track::File(path.into()));
        let names = Destination::Folder("out".into(), PictureFormat::Png).names(&tracks);
        let names: Vec<PathBuf> = names.into_iter().flatten().collect();
        assert_eq!(names, ["out/01.png", "out/01 (2).png", "out/01 (3).png", "out/02.x.png"].map(PathBuf::from));
    }
}
