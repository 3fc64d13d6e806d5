//! `CARD.md`: what a model is for, what it does and where it fails, for people.

use std::fmt::{self, Display, Formatter};

use chorale_model::Manifest;

use crate::Report;

/// How many kinds of mistake the card tells.
const CONFUSIONS: usize = 6;

const ORIGIN_HEADING: &str = "## What it was made from\n\n";
const RESULTS_HEADING: &str = "\n## What it does\n";

/// The page about a model that was validated with `valid`.
pub(crate) struct Card<'a> {
    pub(crate) manifest: &'a Manifest,
    /// Multiplications with an addition that a chunk takes.
    pub(crate) multiply_accumulates: u64,
    pub(crate) valid: &'a Report,
}

/// The card of the model `measured`, for the one of `manifest` that has its numbers but was made otherwise.
pub(crate) fn inherit(card: &str, measured: &Manifest, manifest: &Manifest) -> String {
    let version = |manifest: &Manifest| format!("| version | `{}`", manifest.version);
    let card = card.replace(&version(measured), &version(manifest));
    match (card.split_once(ORIGIN_HEADING), card.split_once(RESULTS_HEADING)) {
        (Some((before, _)), Some((_, after))) => {
            let note = format!(
                "\nThese are the numbers of version `{}`, which had not learnt from `valid`. This version has; nothing is left \
                 to measure it on.\n",
                measured.version
            );
            format!("{before}{ORIGIN_HEADING}{}{RESULTS_HEADING}{note}{after}", origins(manifest))
        }
        _ => card,
    }
}

/// A line for every part.
fn origins(manifest: &Manifest) -> String {
    manifest.provenance.iter().map(|(part, origin)| format!("- **{part}**: {origin}.\n")).collect()
}

impl Display for Card<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (manifest, valid) = (self.manifest, self.valid);
        writeln!(f, "# {}\n", manifest.name)?;
        writeln!(
            f,
            "Tells which of {} genres a piece of music is: {}. It hears four seconds at a time; the answer for a track is \
             the geometric mean of the probabilities of its chunks.\n",
            manifest.labels.len(),
            manifest.labels.join(", ")
        )?;
        writeln!(f, "| | |\n|---|---|")?;
        writeln!(f, "| version | `{}`, from the hash of `model.safetensors` |", manifest.version)?;
        writeln!(f, "| architecture | `{}` |", manifest.architecture)?;
        writeln!(f, "| feature contract | `{}` |", manifest.feature_id)?;
        let millions = self.multiply_accumulates as f64 / 1e6;
        writeln!(f, "| cost | {millions:.1} M multiply-accumulates a chunk |")?;
        writeln!(f, "| temperature | {}, fitted on the `valid` split |", manifest.temperature)?;
        if manifest.unknown_below > 0.0 {
            writeln!(f, "| `unknown` below | {} |", manifest.unknown_below)?;
        }
        writeln!(f)?;

        writeln!(f, "{ORIGIN_HEADING}{}{RESULTS_HEADING}", origins(manifest))?;
        writeln!(f, "| split | tracks | track accuracy | 95 % interval | chunk accuracy |\n|---|---|---|---|---|")?;
        for (split, metrics) in &manifest.metrics {
            let [low, high] = metrics.track_accuracy_interval.map(|share| share * 100.0);
            writeln!(
                f,
                "| {split} | {} | {:.1} % | {low:.1} to {high:.1} % | {:.1} % |",
                metrics.tracks,
                metrics.track_accuracy * 100.0,
                metrics.chunk_accuracy * 100.0
            )?;
        }
        writeln!(
            f,
            "\nThe numbers are those of `chorale evaluate --model MODEL --data DATA --split SPLIT`. The `valid` split chose \
             when to stop, the temperature, and whatever else was decided by looking at it, so its numbers flatter the \
             model: judge it on tracks that had no say.\n"
        )?;

        writeln!(
            f,
            "On `valid`, the log loss is {:.3} and the expected calibration error {:.1} % in 10 bins of confidence; a model \
             that is right exactly as often as it is sure would have {:.1} % by chance. Without bins, the smooth calibration \
             error is {:.1} %.\n",
            valid.log_loss,
            valid.expected_calibration_error * 100.0,
            valid.calibration_error_by_chance * 100.0,
            valid.smooth_calibration_error * 100.0
        )?;
        writeln!(f, "| genre | precision | recall | F1 | tracks |\n|---|---|---|---|---|")?;
        for genre in &valid.genres {
            let [precision, recall, f1] = [genre.precision, genre.recall, genre.f1]
                .map(|share| share.map_or("–".to_owned(), |share| format!("{:.0} %", share * 100.0)));
            writeln!(f, "| {} | {precision} | {recall} | {f1} | {} |", genre.genre, genre.support)?;
        }

        writeln!(f, "\n## Where it fails\n")?;
        for (genre, said, count, support) in confusions(valid) {
            writeln!(f, "- {count} of {support} {genre} tracks were taken for {said}.")?;
        }
        let others = if manifest.unknown_below > 0.0 {
            "It knows no other genre. What is like none of these should be `unknown`, but other music may pass for one of \
             them, and music may be taken for none."
        } else {
            "It knows no other genre, and answers one of these for everything: speech, noise, or music that none of them \
             fits. A low confidence is a hint of that, not a proof."
        };
        writeln!(
            f,
            "- {others}\n- Genres are habits of labelling. A track that two people would label differently has no right \
             answer here either."
        )?;

        if !manifest.licences.is_empty() {
            writeln!(f, "\n## Licences")?;
        }
        for licence in &manifest.licences {
            writeln!(f, "\n{} ({}):\n", licence.part, licence.spdx)?;
            for line in licence.notice.lines() {
                writeln!(f, "{}", format!("> {line}").trim_end())?;
            }
        }
        Ok(())
    }
}

/// The most frequent mistakes: genre, what it was taken for, how often, out of how many. The most frequent first.
fn confusions(report: &Report) -> Vec<(&str, &str, usize, usize)> {
    let mut confusions = Vec::new();
    for (genre, row) in report.genres.iter().zip(&report.confusion) {
        for (said, count) in report.genres.iter().zip(row) {
            if said.genre != genre.genre && *count > 1 {
                confusions.push((genre.genre.as_str(), said.genre.as_str(), *count, genre.support));
            }
        }
    }
    confusions.sort_by_key(|(.., count, _)| std::cmp::Reverse(*count));
    confusions.truncate(CONFUSIONS);
    confusions
}
