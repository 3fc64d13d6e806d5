use chorale_feature::MelFrame;
use chorale_proto::v1::{ChunkVote, GenreScore, Segment, Verdict};
use roxmltree::Document;

use super::*;
use crate::{Answer, PictureError, Sound, Stretch, Theme};

/// A file of `seconds` of 16-bit samples, mono, 22,050 Hz, in Sun's format.
fn sound(seconds: f64, sample: impl Fn(f64) -> f64) -> Sound {
    let mut bytes = b".snd".to_vec();
    for field in [24, u32::MAX, 3, 22_050, 1] {
        bytes.extend_from_slice(&u32::to_be_bytes(field));
    }
    for index in 0..(seconds * 22_050.0) as u32 {
        bytes.extend_from_slice(&((sample(f64::from(index) / 22_050.0) * 32_767.0) as i16).to_be_bytes());
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    Sound::read(file.path(), Stretch::default()).unwrap()
}

fn hum(time: f64) -> f64 {
    0.4 * (time * 440.0 * std::f64::consts::TAU).sin()
}

fn answer(seconds: f64, labels: &[&str]) -> Answer {
    let chunks = ((seconds / 2.0) as usize).max(1);
    let winner = |index: usize| index / 3 % labels.len();
    let chunk = |index: usize| ChunkVote {
        index: index as u32,
        start_seconds: 2.0 * index as f64,
        end_seconds: 2.0 * index as f64 + 4.0,
        silent: false,
        genre: labels[winner(index)].to_owned(),
        probabilities: (0..labels.len()).map(|label| if label == winner(index) { 0.8 } else { 0.02 }).collect(),
        ..ChunkVote::default()
    };
    let score = |(index, label): (usize, &&str)| GenreScore {
        genre: label.to_string(),
        probability: 0.5 / (index + 1) as f64,
        dispersion: 0.1,
        votes: 1,
    };
    let segment = |index: usize| Segment {
        start_seconds: 6.0 * index as f64,
        end_seconds: (6.0 * (index + 1) as f64).min(seconds),
        genre: labels[index % labels.len()].to_owned(),
        confidence: 0.8,
        chunk_count: 3,
    };
    let verdict = Verdict {
        genre: labels[0].to_owned(),
        confidence: 0.5,
        scores: labels.iter().enumerate().map(score).collect(),
        segments: (0..(seconds / 6.0).ceil() as usize).map(segment).collect(),
        chunk_count: chunks as u32,
        duration_seconds: seconds,
        model_version: "0123456789ab".to_owned(),
        ..Verdict::default()
    };
    let labels = labels.iter().map(ToString::to_string).collect();
    Answer { verdict, chunks: (0..chunks).map(chunk).collect(), labels, model: "test".to_owned() }
}

fn track(seconds: f64) -> Track {
    let answer = Some(answer(seconds, &["blues", "jazz", "rock"]));
    Track { name: "song.mp3".to_owned(), sound: Some(sound(seconds, hum)), answer }
}

fn classes(document: &Document<'_>) -> Vec<String> {
    let groups = document.descendants().filter(|node| node.has_tag_name("g"));
    groups.filter_map(|node| node.attribute("class")).map(str::to_owned).collect()
}

fn says(document: &Document<'_>, words: &str) -> bool {
    let texts = document.descendants().filter(|node| node.has_tag_name("text"));
    texts.filter_map(|node| node.text()).any(|text| text.contains(words))
}

/// Every place and size that a document names.
fn numbers(document: &Document<'_>) -> Vec<f64> {
    let attributes = document.descendants().flat_map(|node| node.attributes());
    let places = attributes.filter(|attribute| ["x", "y", "width", "height"].contains(&attribute.name()));
    places.map(|attribute| attribute.value().parse().unwrap()).collect()
}

#[test]
fn all_parts_are_drawn_with_what_they_say() {
    let svg = svg(&track(14.0), &Look::default()).unwrap();
    let document = Document::parse(&svg).unwrap();
    assert_eq!(classes(&document), ["waveform", "spectrogram", "segments", "timeline", "vote", "time"]);
    for words in
        ["song.mp3", "blues, 50 % sure", "0:14", "7 chunks", "test 0123456789ab", "10k", "0 dB", "−80", "0:12", "50.0"]
    {
        assert!(says(&document, words), "{words}");
    }
    let described = document.descendants().find(|node| node.has_tag_name("desc")).unwrap().text().unwrap();
    assert!(described.contains("blues from 0:00, jazz from 0:06") && described.contains("blues 50.0 %"), "{described}");
}

#[test]
fn parts_are_chosen_and_what_has_no_data_is_left_out() {
    let only = |parts: &[Part]| Look { parts: parts.to_vec(), ..Look::default() };
    let drawn = |track: &Track, parts: &[Part]| classes(&Document::parse(&svg(track, &only(parts)).unwrap()).unwrap());
    let whole = track(14.0);
    assert_eq!(drawn(&whole, &[Part::Vote, Part::Waveform]), ["waveform", "vote", "time"]);
    assert_eq!(drawn(&whole, &[Part::Vote]), ["vote"]);
    assert_eq!(drawn(&Track { sound: None, ..whole.clone() }, &Part::ALL), ["segments", "timeline", "vote", "time"]);
    assert_eq!(drawn(&Track { answer: None, ..whole }, &Part::ALL), ["waveform", "spectrogram", "time"]);
    assert!(drawn(&Track::default(), &Part::ALL).is_empty());
}

#[test]
fn time_is_the_same_in_all_parts() {
    let svg = svg(&track(12.0), &Look::default()).unwrap();
    let document = Document::parse(&svg).unwrap();
    let part = |name: &str| document.descendants().find(|node| node.attribute("class") == Some(name)).unwrap();
    let place = |name: &str, tag: &str| {
        let node = part(name).descendants().find(|node| node.has_tag_name(tag)).unwrap();
        ["x", "width"].map(|key| node.attribute(key).unwrap().parse::<f64>().unwrap())
    };
    let [left, width] = place("waveform", "rect");
    assert_eq!(place("spectrogram", "svg"), [left, width]);
    assert_eq!(place("timeline", "rect"), [left, width]);
    // Two segments of six seconds, the first with a gap of one pixel.
    assert_eq!(place("segments", "rect"), [left, width / 2.0 - 1.0]);
    // Frame 0 is centred on the start: half of it is left of the panel. The last of 288 is there twice.
    let [image, image_width] = place("spectrogram", "image");
    let frame = width / 288.0;
    assert!((image - (left - frame / 2.0)).abs() < 0.02 && (image_width - 289.0 * frame).abs() < 0.02);
}

#[test]
fn the_size_is_what_was_asked_for_or_an_error_says_what_it_takes() {
    let track = track(14.0);
    let of = |width, height| svg(&track, &Look { width, height, ..Look::default() });
    for (width, height) in [(1_000, Some(900)), (480, Some(2_000)), (4_000, Some(700))] {
        let svg = of(width, height).unwrap();
        let document = Document::parse(&svg).unwrap();
        assert_eq!(document.root_element().attribute("width").unwrap(), width.to_string());
        assert_eq!(document.root_element().attribute("height").unwrap(), height.unwrap().to_string());
        assert!(numbers(&document).iter().all(|number| *number <= f64::from(width.max(height.unwrap()))));
    }
    let Err(PictureError::TooLow { least, height: 200 }) = of(1_000, Some(200)) else { panic!("200 is too low") };
    of(1_000, Some(least)).unwrap();
    assert!(of(1_000, Some(least - 1)).is_err());
}

#[test]
fn names_and_labels_may_be_anything() {
    let hostile = "</text><script>alert(1)</script>\u{0}\u{202e}&".repeat(20);
    let names: Vec<String> = (0..60).map(|index| format!("{index}{hostile}")).collect();
    let labels: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut answer = answer(600.0, &labels);
    answer.model = hostile.clone();
    answer.verdict.model_version = hostile.clone();
    let track = Track { name: hostile.clone(), sound: Some(sound(2.0, hum)), answer: Some(answer) };
    let look = Look { title: Some(hostile), width: 480, ..Look::default() };
    let svg = svg(&track, &look).unwrap();
    let document = Document::parse(&svg).unwrap();
    assert!(!document.descendants().any(|node| node.has_tag_name("script")));
    assert!(numbers(&document).iter().all(|number| number.is_finite()));
    assert!(says(&document, "; 50 more won a chunk"));
}

#[test]
fn an_answer_that_makes_no_sense_is_drawn_all_the_same() {
    let mut answer = answer(14.0, &["blues", "jazz"]);
    for (chunk, value) in answer.chunks.iter_mut().zip([f32::NAN, f32::INFINITY, -1.0, 9.0]) {
        chunk.probabilities = vec![value; 7];
        chunk.start_seconds = value.into();
    }
    answer.verdict.duration_seconds = f64::NAN;
    answer.verdict.scores[0].probability = f64::NAN;
    answer.verdict.scores[1].dispersion = f64::INFINITY;
    answer.verdict.segments[0].end_seconds = f64::NEG_INFINITY;
    let track = Track { sound: None, answer: Some(answer), ..Track::default() };
    let svg = svg(&track, &Look::default()).unwrap();
    assert!(numbers(&Document::parse(&svg).unwrap()).iter().all(|number| number.is_finite()));
}

#[test]
fn silence_and_a_moment_have_a_picture() {
    let silent = Verdict { genre: "unknown".to_owned(), duration_seconds: 5.0, ..Verdict::default() };
    let answer = Some(Answer { verdict: silent, ..Answer::default() });
    let quiet = svg(&Track { sound: Some(sound(5.0, |_| 0.0)), answer, ..Track::default() }, &Look::default()).unwrap();
    let document = Document::parse(&quiet).unwrap();
    assert!(says(&document, "nothing but silence") && says(&document, "nobody voted"));
    for seconds in [1.0, 0.01, 1.0 / 22_000.0] {
        let moment = Track { sound: Some(sound(seconds, hum)), ..Track::default() };
        let svg = svg(&moment, &Look::default()).unwrap();
        assert!(numbers(&Document::parse(&svg).unwrap()).iter().all(|number| number.is_finite()));
    }
}

#[test]
fn a_stretch_is_cut_out_and_has_to_be_inside() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut bytes = b".snd".to_vec();
    for field in [24, u32::MAX, 3, 22_050, 1] {
        bytes.extend_from_slice(&u32::to_be_bytes(field));
    }
    // Loud in the third second only.
    for index in 0..10 * 22_050 {
        let sample: i16 = if index / 22_050 == 2 { 16_384 } else { 0 };
        bytes.extend_from_slice(&sample.to_be_bytes());
    }
    std::fs::write(file.path(), bytes).unwrap();
    let read = |from_seconds, to_seconds| Sound::read(file.path(), Stretch { from_seconds, to_seconds });
    let peak = |from, to| read(from, Some(to)).unwrap().waveform.peak();
    assert_eq!([peak(0.0, 2.0), peak(2.0, 3.0), peak(3.0, 9.0)], [0.0, 0.5, 0.0]);
    let stretch = read(2.0, Some(4.0)).unwrap();
    assert_eq!((stretch.end_seconds(), stretch.first_frame), (4.0, 48));
    assert_eq!(stretch.spectrogram.width(), 50, "two seconds, and a frame on either side of the end");
    assert!(stretch.summary().is_none(), "the rest was not read");
    assert_eq!(read(9.0, Some(60.0)).unwrap().end_seconds(), 10.0);
    let error = read(10.0, None).unwrap_err().to_string();
    assert_eq!(error, "nothing to draw from 10 s on: the track ends after 10.0 s");
}

#[test]
fn a_stretch_of_an_answer_needs_no_sound() {
    let track = Track { sound: None, ..track(14.0) };
    let of = |from_seconds, to_seconds| {
        svg(&track, &Look { stretch: Stretch { from_seconds, to_seconds }, ..Look::default() })
    };
    let svg = of(7.0, Some(99.0)).unwrap();
    let document = Document::parse(&svg).unwrap();
    assert!(says(&document, "0:07 to 0:14") && says(&document, "jazz") && says(&document, "0:13"));
    assert!(matches!(of(14.0, None), Err(PictureError::Stretch { .. })));
}

#[test]
fn an_hour_is_no_larger_than_a_few_minutes() {
    let mut hour = sound(1.0, hum);
    let frame: MelFrame = std::array::from_fn(|band| -(band as f32));
    for second in 1..3_600 {
        hour.waveform.push(&[0.1, -0.1].repeat(11_025));
        (0..24).for_each(|_| hour.spectrogram.push(&frame));
        hour.end_sample = (second + 1) * 22_050;
    }
    let answer = Some(answer(3_600.0, &["blues", "jazz", "rock", "pop", "metal"]));
    let svg = svg(&Track { name: "hour".to_owned(), sound: Some(hour), answer }, &Look::default()).unwrap();
    assert!(svg.len() < 1_000_000, "{} bytes", svg.len());
    assert!(says(&Document::parse(&svg).unwrap(), "1:00:00"));
}

#[test]
fn dark_is_another_picture_on_another_paper() {
    let track = track(4.0);
    let of = |theme| svg(&track, &Look { theme, ..Look::default() }).unwrap();
    let (light, dark) = (of(Theme::Light), of(Theme::Dark));
    assert!(light.contains("fill=\"#ffffff\"") && !dark.contains("fill=\"#ffffff\"") && dark.contains("#12161b"));
}
