//! How verdicts look: a card with a timeline for people, a JSON line for programs.

use std::{fmt::Write, path::Path, time::Duration};

use anstyle::{AnsiColor, Color, Style};
use chorale_model::{Manifest, labels::UNKNOWN};
use chorale_picture::words::clock;
use chorale_proto::v1::{Segment, Verdict};
use serde::Serialize;

use crate::{
    client::TrackError,
    commands::doctor::{Finding, Step},
};

pub(crate) const BOLD: Style = Style::new().bold();
pub(crate) const DIM: Style = Style::new().dimmed();
/// Errors.
pub(crate) const RED: Style = Style::new().bold().fg_color(Some(Color::Ansi(AnsiColor::Red)));
pub(crate) const YELLOW: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Yellow)));
pub(crate) const GREEN: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Green)));
const BAR_CELLS: usize = 28;
const TIMELINE_CELLS: usize = 56;
pub(crate) const LABEL_WIDTH: usize = 10;

/// `text` in `style`; what writes it strips the colours where there is no terminal.
pub(crate) fn styled(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// The name of a file, without what a terminal would obey.
pub(crate) fn shown(path: &Path) -> String {
    path.to_string_lossy().replace(char::is_control, "\u{fffd}")
}

/// The verdict on one track, several lines: the `top` genres with their votes, and where in the track they were heard.
pub(crate) fn card(name: &str, verdict: &Verdict, elapsed: Duration, top: usize) -> String {
    let mut text = String::new();
    let how = match (verdict.cached, verdict.early) {
        (true, _) => ", cached",
        (false, true) => ", sure enough to stop here",
        (false, false) => "",
    };
    let facts = format!(
        "{}, {} chunks, {:.2} s{how}",
        clock(verdict.duration_seconds),
        verdict.chunk_count,
        elapsed.as_secs_f64(),
    );
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}  {}", styled(BOLD, name), styled(DIM, facts));
    let headline = headline(verdict);
    let _ = writeln!(text, "  {}\n", styled(BOLD, headline));
    for score in verdict.scores.iter().take(top) {
        let _ = writeln!(
            text,
            "  {:<LABEL_WIDTH$} {:>5.1} %  {}  {}",
            score.genre,
            score.probability * 100.0,
            styled(colour_of(&score.genre), bar(score.probability, BAR_CELLS)),
            styled(DIM, plural(score.votes, "vote")),
        );
    }
    let _ = writeln!(text);
    text.push_str(&timeline(&verdict.segments));
    for warning in &verdict.warnings {
        let _ = writeln!(text, "  {} {}", styled(YELLOW, "warning:"), warning.message);
    }
    text
}

/// One line of `chorale doctor`, and a second one with what to do.
pub(crate) fn step(step: &Step) -> String {
    let (style, mark) = match step.finding {
        Finding::Well => (GREEN, "well"),
        Finding::Odd => (YELLOW, "odd"),
        Finding::Ill => (RED, "ill"),
    };
    let mut text = format!(
        "{} {} {}",
        styled(style, format_args!("{mark:<5}")),
        styled(BOLD, format_args!("{:<11}", step.step)),
        step.what
    );
    if !step.advice.is_empty() {
        let _ = write!(text, "\n      {}", styled(DIM, &step.advice));
    }
    text
}

/// The last line of `chorale doctor`.
pub(crate) fn diagnosis(steps: &[Step]) -> String {
    let count = |finding| steps.iter().filter(|step| step.finding == finding).count();
    match (count(Finding::Ill), count(Finding::Odd)) {
        (0, 0) => "\nAll is well.".to_owned(),
        (ill, odd) => format!("\n{ill} ill, {odd} odd, {} well.", count(Finding::Well)),
    }
}

/// A model, several lines. `source` says where it is from, `cost` how many multiply-accumulates a chunk takes, and
/// `embedding` how many numbers an embedding has.
pub(crate) fn model(source: &str, manifest: &Manifest, cost: u64, embedding: usize) -> String {
    let mut text = format!("{} {}  {}\n", styled(BOLD, &manifest.name), manifest.version, styled(DIM, source));
    let _ = writeln!(text, "  architecture  {}", manifest.architecture);
    let _ = writeln!(text, "  labels        {}", manifest.labels.join(", "));
    let _ = writeln!(text, "  feature id    {}", manifest.feature_id);
    let _ = writeln!(text, "  cost          {:.1} M multiply-accumulates a chunk", cost as f64 / 1e6);
    let _ = writeln!(text, "  embedding     {embedding} numbers");
    if manifest.unknown_below > 0.0 {
        let _ = writeln!(text, "  unknown       below {:.1} % for the first genre", manifest.unknown_below * 100.0);
    }
    for (split, metrics) in &manifest.metrics {
        let [low, high] = metrics.track_accuracy_interval.map(|share| share * 100.0);
        let _ = writeln!(
            text,
            "  {split:<13} {:.1} % of {} tracks (95 % interval {low:.1}–{high:.1}), {:.1} % of {} chunks",
            metrics.track_accuracy * 100.0,
            metrics.tracks,
            metrics.chunk_accuracy * 100.0,
            metrics.chunks,
        );
    }
    text
}

/// The verdict on one of many tracks, one line.
pub(crate) fn line(name: &str, verdict: &Verdict) -> String {
    let warning = if verdict.warnings.is_empty() { String::new() } else { styled(YELLOW, "  (damaged)") };
    let nearest = match verdict.scores.first().filter(|_| verdict.genre == UNKNOWN) {
        Some(nearest) => styled(DIM, format_args!("  (nearest is {})", nearest.genre)),
        None => String::new(),
    };
    format!(
        "{} {:>3.0} %  {name}{nearest}{warning}",
        styled(colour_of(&verdict.genre), format!("{:<LABEL_WIDTH$}", verdict.genre)),
        verdict.confidence * 100.0,
    )
}

fn headline(verdict: &Verdict) -> String {
    let sure = verdict.confidence * 100.0;
    match verdict.scores.first() {
        None => "unknown: nothing but silence".to_owned(),
        Some(nearest) if verdict.genre == UNKNOWN => {
            let nearest = &nearest.genre;
            format!("unknown: not like any music that the model knows; nearest is {nearest}, {sure:.0} %")
        }
        Some(_) => format!("{}, {sure:.0} % sure", verdict.genre),
    }
}

/// One row for each genre that won a part of the track, from the first to be heard to the last.
fn timeline(segments: &[Segment]) -> String {
    let Some(end) = segments.last().map(|segment| segment.end_seconds).filter(|&end| end > 0.0) else {
        return String::new();
    };
    let mut text = format!("  {:<LABEL_WIDTH$} {}\n", "", styled(DIM, axis(end)));
    let mut rows: Vec<&str> = Vec::new();
    for segment in segments {
        if !rows.contains(&segment.genre.as_str()) {
            rows.push(&segment.genre);
        }
    }
    for genre in rows {
        let cells: String = (0..TIMELINE_CELLS)
            .map(|cell| {
                let middle = (cell as f64 + 0.5) / TIMELINE_CELLS as f64 * end;
                let heard = segments.iter().find(|segment| middle < segment.end_seconds);
                if heard.is_some_and(|segment| segment.genre == genre) { '█' } else { '·' }
            })
            .collect();
        let _ = writeln!(text, "  {genre:<LABEL_WIDTH$} {}", styled(colour_of(genre), cells));
    }
    text
}

/// The start, the middle and the end of the track, each where it belongs on the timeline.
fn axis(end: f64) -> String {
    let (middle, end) = (clock(end / 2.0), clock(end));
    let half = TIMELINE_CELLS / 2;
    let left = half.saturating_sub(middle.len() / 2);
    let right = TIMELINE_CELLS.saturating_sub(left + middle.len());
    format!("{:<left$}{middle}{end:>right$}", "0:00")
}

/// A bar of `share` of `cells`, to an eighth of a cell, padded with blanks.
pub(crate) fn bar(share: f64, cells: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * cells as f64 * 8.0).round() as usize;
    let partial = EIGHTHS.get(eighths % 8).copied().unwrap_or_default();
    let blanks = cells - eighths / 8 - usize::from(!partial.is_empty());
    format!("{}{partial}{}", "█".repeat(eighths / 8), " ".repeat(blanks))
}

fn plural(count: u32, noun: &str) -> String {
    format!("{count:>3} {noun}{}", if count == 1 { "" } else { "s" })
}

pub(crate) fn colour_of(genre: &str) -> Style {
    let colour = match genre {
        "blues" => AnsiColor::Blue,
        "classical" => AnsiColor::White,
        "country" => AnsiColor::Yellow,
        "disco" => AnsiColor::BrightMagenta,
        "hiphop" => AnsiColor::BrightYellow,
        "jazz" => AnsiColor::BrightBlue,
        "metal" => AnsiColor::BrightBlack,
        "pop" => AnsiColor::Magenta,
        "reggae" => AnsiColor::Green,
        "rock" => AnsiColor::Red,
        _ => AnsiColor::Cyan,
    };
    Style::new().fg_color(Some(Color::Ansi(colour)))
}

/// Pairs that become a JSON object in their own order.
#[derive(Debug, Clone)]
struct Object<'a, T>(Vec<(&'a str, T)>);

impl<T: Serialize> Serialize for Object<'_, T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

#[derive(Serialize)]
struct VerdictLine<'a> {
    path: &'a str,
    genre: &'a str,
    /// Only where the genre is unknown and not for silence: what is most probable all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    nearest: Option<&'a str>,
    confidence: f64,
    probabilities: Object<'a, f64>,
    votes: Object<'a, u32>,
    chunks: u32,
    duration_seconds: f64,
    model: &'a str,
    cached: bool,
    early: bool,
    warnings: Vec<&'a str>,
    segments: Vec<SegmentObject<'a>>,
    /// Only where it was asked for; empty where nothing but silence was heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding: Option<&'a [f32]>,
}

#[derive(Serialize)]
struct SegmentObject<'a> {
    start_seconds: f64,
    end_seconds: f64,
    genre: &'a str,
    confidence: f64,
}

#[derive(Serialize)]
struct ErrorLine<'a> {
    path: &'a str,
    error: ErrorObject<'a>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    code: &'a str,
    message: String,
}

/// The verdict on one track as one line of JSON, with the `top` genres, and its embedding if that is wanted.
pub(crate) fn json_line(name: &str, verdict: &Verdict, top: usize, want_embedding: bool) -> serde_json::Result<String> {
    let scores = || verdict.scores.iter().take(top);
    serde_json::to_string(&VerdictLine {
        path: name,
        genre: &verdict.genre,
        nearest: scores().next().filter(|_| verdict.genre == UNKNOWN).map(|score| score.genre.as_str()),
        confidence: verdict.confidence,
        probabilities: Object(scores().map(|score| (score.genre.as_str(), score.probability)).collect()),
        votes: Object(scores().map(|score| (score.genre.as_str(), score.votes)).collect()),
        chunks: verdict.chunk_count,
        duration_seconds: verdict.duration_seconds,
        model: &verdict.model_version,
        cached: verdict.cached,
        early: verdict.early,
        warnings: verdict.warnings.iter().map(|warning| warning.message.as_str()).collect(),
        segments: verdict
            .segments
            .iter()
            .map(|segment| SegmentObject {
                start_seconds: segment.start_seconds,
                end_seconds: segment.end_seconds,
                genre: &segment.genre,
                confidence: segment.confidence,
            })
            .collect(),
        embedding: want_embedding.then_some(&verdict.embedding),
    })
}

/// A failed track as one line of JSON.
pub(crate) fn json_error_line(name: &str, error: &TrackError) -> serde_json::Result<String> {
    serde_json::to_string(&ErrorLine {
        path: name,
        error: ErrorObject { code: error.code(), message: error.to_string() },
    })
}

#[cfg(test)]
mod tests {
    use chorale_proto::v1::GenreScore;

    use super::*;

    fn verdict() -> Verdict {
        let score = |genre: &str, probability, votes| GenreScore {
            genre: genre.to_owned(),
            probability,
            dispersion: 0.1,
            votes,
        };
        let segment = |genre: &str, start_seconds, end_seconds| Segment {
            start_seconds,
            end_seconds,
            genre: genre.to_owned(),
            confidence: 0.7,
            chunk_count: 1,
        };
        Verdict {
            genre: "jazz".to_owned(),
            confidence: 0.75,
            scores: vec![score("jazz", 0.75, 3), score("blues", 0.25, 1)],
            segments: vec![segment("jazz", 0.0, 6.0), segment("blues", 6.0, 8.0)],
            chunk_count: 4,
            duration_seconds: 8.0,
            model_version: "abc".to_owned(),
            ..Verdict::default()
        }
    }

    #[test]
    fn a_card_shows_genre_votes_and_when_it_was_heard() {
        let card =
            anstream::adapter::strip_str(&card("song.mp3", &verdict(), Duration::from_millis(420), 3)).to_string();
        let expected = "\
song.mp3  0:08, 4 chunks, 0.42 s
  jazz, 75 % sure

  jazz        75.0 %  █████████████████████           3 votes
  blues       25.0 %  ███████                         1 vote

             0:00                      0:04                      0:08
  jazz       ██████████████████████████████████████████··············
  blues      ··········································██████████████
";
        assert_eq!(card, expected);
    }

    #[test]
    fn what_is_like_no_genre_is_said_in_words_with_what_is_nearest() {
        let unlike = Verdict { genre: UNKNOWN.to_owned(), confidence: 0.18, ..verdict() };
        assert_eq!(headline(&unlike), "unknown: not like any music that the model knows; nearest is jazz, 18 %");
        assert_eq!(headline(&Verdict { scores: Vec::new(), ..unlike.clone() }), "unknown: nothing but silence");
        let plain = |text: String| anstream::adapter::strip_str(&text).to_string();
        assert_eq!(plain(line("a.wav", &unlike)), "unknown     18 %  a.wav  (nearest is jazz)");
        let json = json_line("a.wav", &unlike, 10, false).unwrap();
        assert!(json.starts_with(r#"{"path":"a.wav","genre":"unknown","nearest":"jazz","confidence":0.18,"#), "{json}");
        assert!(!json_line("a.wav", &verdict(), 10, false).unwrap().contains("nearest"));
    }

    #[test]
    fn json_keeps_the_order_of_probability_and_the_promised_keys() {
        let line = json_line("song.mp3", &verdict(), 1, false).unwrap();
        assert!(
            line.starts_with(r#"{"path":"song.mp3","genre":"jazz","confidence":0.75,"probabilities":{"jazz":0.75},"#)
        );
        assert!(line.contains(
            r#""votes":{"jazz":3},"chunks":4,"duration_seconds":8.0,"model":"abc","cached":false,"early":false,"warnings":[]"#
        ));
        let heard = Verdict { embedding: vec![0.6, -0.8], ..verdict() };
        assert!(!json_line("a", &heard, 1, false).unwrap().contains("embedding"));
        for (heard, expected) in [(heard, "[0.6,-0.8]"), (verdict(), "[]")] {
            let line = json_line("a", &heard, 1, true).unwrap();
            assert!(line.ends_with(&format!(r#"],"embedding":{expected}}}"#)), "{line}");
        }
        let error = json_error_line("a", &TrackError::Missing("gone".to_owned())).unwrap();
        assert_eq!(error, r#"{"path":"a","error":{"code":"NOT_FOUND","message":"gone"}}"#);
    }

    #[test]
    fn bars_fill_to_an_eighth_of_a_cell() {
        assert_eq!(bar(0.0, 2), "  ");
        assert_eq!(bar(1.0, 2), "██");
        assert_eq!(bar(0.5 + 1.0 / 16.0, 2), "█▏");
        assert_eq!(bar(f64::NAN, 2), "  ");
    }
}
