//! What stands above and below the parts, and what a screen reader says of all.

use chorale_model::labels::UNKNOWN;
use chorale_proto::v1::Verdict;

use crate::{
    figure::{Figure, SMALL, TEXT, plan::MARGIN},
    look::Part,
    scene::{Anchor, Area, Scene, Words},
    track::Answer,
    words::{clock, shorten, width_of},
};

const TITLE: f64 = 20.0;
const VERDICT: f64 = 14.0;
/// The side of the square with the colour of the genre.
const MARK: f64 = 12.0;
/// Segments that are read out at most.
const MOST_SEGMENTS: usize = 12;

pub(super) fn paint(figure: &Figure<'_>, scene: &mut Scene) {
    let palette = &figure.palette;
    let (width, height) = (f64::from(figure.plan.size.0), f64::from(figure.plan.size.1));
    let letters = ((width - 2.0 * MARGIN) / (TITLE * 0.58)) as usize;
    let (title, verdict) = (MARGIN + TITLE / 2.0, MARGIN + TITLE + 20.0);
    let bold = Words::new(TITLE, palette.ink, Anchor::Start).bold();
    scene.text(&shorten(&figure.title(), letters), (MARGIN, title), bold);
    let facts = facts(figure);
    let mut facts_place = ((MARGIN, verdict), Anchor::Start);
    if let Some(answer) = &figure.track.answer {
        let label = answer.labels.iter().position(|label| *label == answer.verdict.genre);
        let mark = Area { left: MARGIN, top: verdict - MARK / 2.0, width: MARK, height: MARK };
        scene.rectangle(mark, palette.genre(label));
        let words = Words::new(VERDICT, palette.ink, Anchor::Start).bold();
        let said = said(&answer.verdict);
        scene.text(&said, (MARGIN + MARK + 8.0, verdict), words);
        facts_place = ((width - MARGIN, verdict), Anchor::End);
        let needed = MARK + 8.0 + f64::from(width_of(&said, VERDICT * 1.1) + width_of(&facts, TEXT)) + 16.0;
        if needed > width - 2.0 * MARGIN {
            // There is no room for both in one line.
            facts_place = ((width - MARGIN, title), Anchor::End);
        }
    }
    let (place, anchor) = facts_place;
    if place.1 > title || f64::from(width_of(&figure.title(), TITLE) + width_of(&facts, TEXT)) + 64.0 < width {
        scene.text(&facts, place, Words::new(TEXT, palette.soft_ink, anchor));
    }
    let foot = height - MARGIN + 2.0;
    let small = |anchor| Words::new(SMALL, palette.soft_ink, anchor);
    if let Some(answer) = &figure.track.answer {
        scene.text(&model(answer), (MARGIN, foot), small(Anchor::Start));
    }
    let tool = concat!("Chorale ", env!("CARGO_PKG_VERSION"));
    scene.text(tool, (width - MARGIN, foot), small(Anchor::End));
}

fn model(answer: &Answer) -> String {
    format!("{} {}", shorten(&answer.model, 40), shorten(&answer.verdict.model_version, 16)).trim().to_owned()
}

/// The verdict in words.
fn said(verdict: &Verdict) -> String {
    let sure = verdict.confidence * 100.0;
    match verdict.scores.first() {
        None => "unknown: nothing but silence".to_owned(),
        Some(nearest) if verdict.genre == UNKNOWN => {
            format!("unknown; nearest is {}, {sure:.0} %", shorten(&nearest.genre, 24))
        }
        Some(_) => format!("{}, {sure:.0} % sure", shorten(&verdict.genre, 24)),
    }
}

/// Length, chunks and format, as far as they are known.
fn facts(figure: &Figure<'_>) -> String {
    let track = figure.track;
    let mut facts = Vec::new();
    let whole = track.duration_seconds();
    let shown = (figure.time.from, figure.time.to);
    if figure.plan.time_axis.is_some() && (shown.0 > 0.0 || shown.1 + 0.05 < whole) {
        facts.push(format!("{} to {}", clock(shown.0), clock(shown.1)));
    }
    let verdict = track.answer.as_ref().map(|answer| &answer.verdict);
    let summary = track.sound.as_ref().and_then(|sound| sound.summary());
    if verdict.is_some() || summary.is_some() {
        facts.push(clock(whole));
    }
    if let Some(verdict) = verdict {
        let plural = if verdict.chunk_count == 1 { "chunk" } else { "chunks" };
        facts.push(format!("{} {plural}", verdict.chunk_count));
    }
    let format = summary.map(|summary| (summary.codec.as_str(), summary.sample_rate, summary.channels));
    let served = verdict.and_then(|verdict| verdict.audio_format.as_ref());
    let served = served.map(|format| (format.codec.as_str(), format.sample_rate, format.channels));
    if let Some((codec, sample_rate, channels)) = format.or(served) {
        let channels = match channels {
            1 => "mono".to_owned(),
            2 => "stereo".to_owned(),
            more => format!("{more} channels"),
        };
        facts.push(format!("{}, {} kHz, {channels}", shorten(codec, 16), f64::from(sample_rate) / 1e3));
    }
    let damaged = verdict.is_some_and(|verdict| !verdict.warnings.is_empty())
        || summary.is_some_and(|summary| !summary.warnings.is_empty());
    if damaged {
        facts.push("damaged".to_owned());
    }
    facts.join("  ·  ")
}

/// What the figure shows, in words.
pub(super) fn description(figure: &Figure<'_>) -> String {
    let has = |wanted: Part| figure.plan.panels.iter().any(|(part, _)| *part == wanted);
    let mut text = format!("{}.", facts(figure).replace("  ·  ", ", "));
    if let Some(answer) = &figure.track.answer {
        text = format!("{}. {text}", said(&answer.verdict));
    }
    for (part, words) in [
        (Part::Waveform, " The waveform as an area over time."),
        (Part::Spectrogram, " The mel spectrogram over time, from 0 Hz at the bottom to 11,025 Hz at the top."),
    ] {
        text.push_str(if has(part) { words } else { "" });
    }
    let Some(answer) = &figure.track.answer else { return text };
    if has(Part::Timeline) {
        let segments = answer.verdict.segments.iter().take(MOST_SEGMENTS);
        let heard: Vec<String> =
            segments.map(|segment| format!("{} from {}", segment.genre, clock(segment.start_seconds))).collect();
        let more = if answer.verdict.segments.len() > MOST_SEGMENTS { " and so on" } else { "" };
        text.push_str(&format!(" What was heard where: {}{more}.", heard.join(", ")));
    }
    if has(Part::Vote) {
        let rows = figure.rows.vote.iter();
        let votes: Vec<String> =
            rows.map(|row| format!("{} {:.1} %", row.name, row.score.probability * 100.0)).collect();
        text.push_str(&format!(" The vote: {}.", votes.join(", ")));
    }
    text
}
