//! What was heard where: segments, and the probabilities of genres chunk by chunk.

use chorale_model::labels::UNKNOWN;
use chorale_proto::v1::Segment;

use crate::{
    figure::{Figure, TEXT, plan},
    scene::{Anchor, Area, Scene, Words},
    theme::ink_on,
    track::Answer,
    words::{clock, shorten, width_of},
};

/// Cells of a row at most: more than fit are averaged.
const MOST_CELLS: usize = 360;
/// Less than this is as good as nothing.
const LEAST_PROBABILITY: f64 = 0.01;
/// The height of the line under the winner of a cell.
const WINNER: f64 = 3.0;
/// The height of the strip of segments.
const STRIP: f64 = 20.0;
/// Letters of a segment.
const LETTERS: usize = 16;

/// One chunk, or several.
#[derive(Debug, Clone, PartialEq)]
struct Cell {
    from: f64,
    to: f64,
    /// The mean probability of each label over chunks that vote; none if all are silent.
    probabilities: Vec<f64>,
}

impl Cell {
    fn winner(&self) -> Option<usize> {
        let indexed = self.probabilities.iter().copied().enumerate();
        indexed.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(label, _)| label)
    }
}

/// The chunks of an answer, each lasting until the next one begins as in the verdict's segments, `end` being the end of the
/// track.
fn cells(answer: &Answer, end: f64) -> Vec<Cell> {
    let together = answer.chunks.len().div_ceil(MOST_CELLS).max(1);
    let mut cells: Vec<Cell> = Vec::new();
    for group in answer.chunks.chunks(together) {
        let voting: Vec<&[f32]> =
            group.iter().filter(|chunk| !chunk.silent).map(|chunk| chunk.probabilities.as_slice()).collect();
        let mean = |label: usize| {
            let sum: f64 = voting.iter().filter_map(|chunk| chunk.get(label)).map(|&share| f64::from(share)).sum();
            sum / voting.len() as f64
        };
        let probabilities = if voting.is_empty() { Vec::new() } else { (0..answer.labels.len()).map(mean).collect() };
        let from = group.first().map_or(0.0, |chunk| chunk.start_seconds);
        if let Some(last) = cells.last_mut() {
            last.to = from;
        }
        cells.push(Cell { from, to: end.max(from), probabilities });
    }
    cells
}

pub(super) fn paint(figure: &Figure<'_>, area: Area, scene: &mut Scene) {
    let Some(answer) = &figure.track.answer else { return };
    let rows = &figure.rows.timeline;
    let more = match figure.rows.left_out {
        0 => String::new(),
        others => format!("; {others} more won a chunk"),
    };
    figure.caption(
        &format!("What was heard where: the more probable, the stronger; the winner underlined{more}"),
        area,
        scene,
    );
    let strip = Area { height: STRIP.min(area.height), ..area };
    scene.group("segments", "", |scene| {
        for segment in &answer.verdict.segments {
            paint_segment(figure, answer, segment, strip, scene);
        }
    });
    let below = Area { top: area.top + plan::SEGMENTS, height: (area.height - plan::SEGMENTS).max(0.0), ..area };
    let row_height = below.height / rows.len().max(1) as f64;
    let row_area =
        |row: usize| Area { top: below.top + row as f64 * row_height, height: (row_height - 2.0).max(1.0), ..below };
    scene.group("timeline", "", |scene| {
        for (index, row) in rows.iter().enumerate() {
            let place = row_area(index);
            scene.rectangle(place, figure.palette.panel);
            figure.row_name(&row.name, place, place.middle(), scene);
        }
        for cell in cells(answer, figure.track.duration_seconds()) {
            let Some((left, width)) = figure.time.span(cell.from, cell.to) else { continue };
            scene.group("", &in_words(&cell, answer), |scene| {
                for (index, row) in rows.iter().enumerate() {
                    let probability = row.label.and_then(|label| cell.probabilities.get(label)).copied().unwrap_or(0.0);
                    let place = Area { left, width, ..row_area(index) };
                    let colour = figure.palette.genre(row.label);
                    if probability >= LEAST_PROBABILITY {
                        scene.shade(place, colour, probability.min(1.0));
                    }
                    if row.label.is_some() && row.label == cell.winner() {
                        scene.rectangle(Area { top: place.bottom() - WINNER, height: WINNER, ..place }, colour);
                    }
                }
            });
        }
    });
}

fn paint_segment(figure: &Figure<'_>, answer: &Answer, segment: &Segment, strip: Area, scene: &mut Scene) {
    let Some((left, width)) = figure.time.span(segment.start_seconds, segment.end_seconds) else { return };
    let silent = segment.genre == UNKNOWN;
    let name = if silent { "silence".to_owned() } else { shorten(&segment.genre, LETTERS) };
    let label = answer.labels.iter().position(|label| *label == segment.genre);
    let colour = figure.palette.genre(label);
    let from_to = format!("{} to {}", clock(segment.start_seconds), clock(segment.end_seconds));
    let sure = if silent { String::new() } else { format!(", {:.0} %", segment.confidence * 100.0) };
    scene.group("", &format!("{from_to}: {name}{sure}"), |scene| {
        // A thin gap, where there is room for one, parts neighbours of similar colours.
        let gap = if width > 6.0 { 1.0 } else { 0.0 };
        scene.rectangle(Area { left, width: width - gap, ..strip }, colour);
        if f64::from(width_of(&name, TEXT)) + 10.0 <= width {
            let words = Words::new(TEXT, ink_on(colour), Anchor::Start).bold();
            scene.text(&name, (left + 6.0, strip.middle()), words);
        }
    });
}

/// A cell as people read it who point at it.
fn in_words(cell: &Cell, answer: &Answer) -> String {
    let mut shares: Vec<(usize, f64)> = cell.probabilities.iter().copied().enumerate().collect();
    shares.sort_by(|left, right| right.1.total_cmp(&left.1));
    let named = shares.iter().take(3).filter_map(|(label, share)| Some((answer.labels.get(*label)?, share)));
    let named: Vec<String> =
        named.map(|(label, share)| format!("{} {:.0} %", shorten(label, LETTERS), share * 100.0)).collect();
    let what = if named.is_empty() { "silence".to_owned() } else { named.join(", ") };
    format!("{} to {}: {what}", clock(cell.from), clock(cell.to))
}

#[cfg(test)]
mod tests {
    use chorale_proto::v1::ChunkVote;

    use super::*;

    fn answer(chunks: usize) -> Answer {
        let chunk = |index: usize| ChunkVote {
            start_seconds: 2.0 * index as f64,
            end_seconds: 2.0 * index as f64 + 4.0,
            silent: index % 10 == 9,
            probabilities: if index % 10 == 9 { Vec::new() } else { vec![0.25, 0.75] },
            ..ChunkVote::default()
        };
        let labels = ["jazz", "rock"].map(str::to_owned).to_vec();
        Answer { chunks: (0..chunks).map(chunk).collect(), labels, ..Answer::default() }
    }

    #[test]
    fn cells_follow_each_other_to_the_end_without_gaps() {
        let cells = cells(&answer(11), 22.5);
        assert_eq!(cells.len(), 11);
        assert!(cells.windows(2).all(|pair| pair[0].to == pair[1].from));
        assert_eq!((cells[0].from, cells[10].to), (0.0, 22.5));
        assert_eq!((cells[0].winner(), cells[9].winner()), (Some(1), None));
        assert_eq!(in_words(&cells[0], &answer(1)), "0:00 to 0:02: rock 75 %, jazz 25 %");
        assert_eq!(in_words(&cells[9], &answer(1)), "0:18 to 0:20: silence");
    }

    #[test]
    fn an_hour_has_no_more_cells_than_fit_and_silence_has_no_say() {
        let cells = cells(&answer(1_800), 3_602.0);
        assert!(cells.len() <= MOST_CELLS && cells.len() > MOST_CELLS / 2);
        assert!(cells.iter().all(|cell| cell.probabilities == [0.25, 0.75]));
        assert_eq!(cells.last().unwrap().to, 3_602.0);
    }
}
