//! `chorale plot` draws what there is to see of a track, as SVG and as PNG, from this machine or with a server's verdict.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{self, File},
    io::BufReader,
    path::Path,
};

use chorale_tests::{
    Server, chorale,
    command::{Finished, run, run_with},
    fixtures, sound,
};
use roxmltree::Document;

/// Draws `track` to `out`.
fn plot(track: &Path, out: &Path, flags: &[&str]) -> Finished {
    let mut arguments: Vec<&OsStr> = vec!["plot".as_ref(), track.as_ref(), "-o".as_ref(), out.as_ref()];
    arguments.extend(flags.iter().map(OsStr::new));
    run(arguments)
}

/// The names of the groups of an SVG document.
fn parts(svg: &str) -> HashSet<String> {
    let document = Document::parse(svg).unwrap();
    let groups = document.descendants().filter(|node| node.has_tag_name("g"));
    groups.filter_map(|node| node.attribute("class")).map(str::to_owned).collect()
}

/// The words of an SVG document.
fn words(svg: &str) -> Vec<String> {
    let document = Document::parse(svg).unwrap();
    let texts = document.descendants().filter(|node| node.has_tag_name("text"));
    texts.filter_map(|node| node.text()).map(str::to_owned).collect()
}

/// Width, height and pixels of a PNG file, as red, green and blue.
fn pixels(path: &Path) -> (u32, u32, Vec<[u8; 3]>) {
    let mut reader = png::Decoder::new(BufReader::new(File::open(path).unwrap())).read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut bytes).unwrap();
    assert_eq!(info.color_type, png::ColorType::Rgb);
    (info.width, info.height, bytes.as_chunks().0.to_vec())
}

fn fixture(name: &str) -> std::path::PathBuf {
    fixtures::genres().into_iter().find(|path| path.ends_with(name)).unwrap()
}

#[test]
fn a_track_becomes_a_document_with_its_parts_and_what_was_heard() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("jazz.svg");
    let finished = plot(&fixture("jazz.mp3"), &out, &[]).expect_code(0);
    assert!(finished.stdout.starts_with(out.to_str().unwrap()), "{}", finished.stdout);
    let svg = fs::read_to_string(&out).unwrap();
    let all = ["waveform", "spectrogram", "segments", "timeline", "vote", "time"].map(str::to_owned);
    assert_eq!(parts(&svg), HashSet::from(all));
    let heard = run(["classify", "--json", fixture("jazz.mp3").to_str().unwrap()]).expect_code(0).answers().remove(0);
    let said = format!("{}, {:.0} % sure", heard.genre, heard.confidence * 100.0);
    let words = words(&svg);
    for expected in ["jazz.mp3", &said, "100", "1k", "10k", "0 dB", "0:00"] {
        assert!(words.iter().any(|word| word == expected), "{expected} is not in {words:?}");
    }
    for (genre, probability) in &heard.probabilities {
        let percent = format!("{:.1}", probability * 100.0);
        assert!(words.contains(genre) && words.contains(&percent), "{genre} {percent} {words:?}");
    }
    let document = Document::parse(&svg).unwrap();
    for tag in ["title", "desc"] {
        assert!(document.root_element().children().any(|node| node.has_tag_name(tag)), "{tag}");
    }
    let elsewhere = document.descendants().filter_map(|node| node.attribute("href"));
    assert!(
        elsewhere.clone().count() == 2 && elsewhere.clone().all(|place| place.starts_with("data:image/png;base64,"))
    );
}

#[test]
fn parts_are_chosen_and_those_of_sound_ask_nobody() {
    let jazz = fixture("jazz.mp3");
    let of = |what: &str, flags: &[&str]| {
        let flags = [&["plot", jazz.to_str().unwrap(), "-o", "-", "--what", what], flags].concat();
        run(flags).expect_code(0).stdout
    };
    assert_eq!(parts(&of("vote", &[])), HashSet::from(["vote".to_owned()]));
    // Nobody listens at port 1: only what asks nobody succeeds.
    let alone = of("spectrogram,waveform", &["--endpoint", "http://127.0.0.1:1", "--from", "0:02", "--to", "4"]);
    assert_eq!(parts(&alone), HashSet::from(["waveform", "spectrogram", "time"].map(str::to_owned)));
    assert!(words(&alone).contains(&"0:03.0".to_owned()) && !words(&alone).contains(&"0:01.8".to_owned()));
    let refused = run(["plot", jazz.to_str().unwrap(), "-o", "-", "--endpoint", "http://127.0.0.1:1"]).expect_code(1);
    assert!(refused.stderr.contains("no server answers at http://127.0.0.1:1"), "{}", refused.stderr);
    assert_eq!(refused.stdout, "");
}

#[test]
fn pixels_are_as_many_as_were_asked_for_and_none_of_them_depends_on_the_machine() {
    let folder = tempfile::tempdir().unwrap();
    let png = |name: &str, flags: &[&str]| {
        let out = folder.path().join(name);
        plot(&fixture("rock.mp3"), &out, flags).expect_code(0);
        pixels(&out)
    };
    let (width, height, light) = png("light.png", &["--size", "800x700", "--scale", "1.5"]);
    assert_eq!((width, height), (1_200, 1_050));
    let colours: HashSet<[u8; 3]> = light.iter().copied().collect();
    assert!(colours.len() > 1_000, "{} colours", colours.len());
    assert_eq!(light[0], [255; 3], "paper");
    let (_, _, dark) = png("dark.png", &["--size", "800x700", "--scale", "1.5", "--theme", "dark"]);
    assert!(dark[0].iter().all(|channel| *channel < 64));
    let brightness = |pixels: &[[u8; 3]]| pixels.iter().flatten().map(|channel| u64::from(*channel)).sum::<u64>();
    assert!(brightness(&dark) * 2 < brightness(&light));
    assert_eq!(png("again.png", &["--size", "800x700", "--scale", "1.5"]).2, light);
    // Words are there without any font of the machine, and take the colour of ink.
    let dark_pixels = light[..1_200 * 60].iter().filter(|pixel| pixel.iter().all(|channel| *channel < 80)).count();
    assert!(dark_pixels > 300, "{dark_pixels} pixels of the title");
}

#[test]
fn low_tones_are_below_and_loud_ones_are_strong() {
    let folder = tempfile::tempdir().unwrap();
    let (tone, out) = (folder.path().join("tone.wav"), folder.path().join("tone.png"));
    // A tone of 300 Hz in the second half, and silence before.
    let sample = |index: u32| {
        let seconds = f64::from(index) / 22_050.0;
        if seconds < 4.0 { 0 } else { (12_000.0 * (300.0 * std::f64::consts::TAU * seconds).sin()) as i16 }
    };
    fs::write(&tone, sound::wav(&(0..8 * 22_050).map(sample).collect::<Vec<_>>())).unwrap();
    plot(&tone, &out, &["--what", "spectrogram", "--size", "800x400", "--scale", "1"]).expect_code(0);
    let (width, height, pixels) = pixels(&out);
    // On paper, what is loud is dark.
    let darkness = |left: u32, top: u32| {
        let places = (top..top + height / 5).flat_map(|row| (left..left + width / 5).map(move |column| (row, column)));
        let dark =
            |(row, column)| pixels[(row * width + column) as usize].iter().map(|channel| 255 - u64::from(*channel));
        places.flat_map(dark).sum::<u64>()
    };
    let (before, during) = (width / 4, width * 3 / 5);
    let (above, below) = (height * 3 / 10, height * 6 / 10);
    let loud = darkness(during, below);
    for (what, quiet) in [("above it", darkness(during, above)), ("before it", darkness(before, below))] {
        assert!(loud > 2 * quiet, "{what}: {quiet} of {loud}");
    }
}

#[tokio::test]
async fn a_server_gives_the_same_verdict_also_when_it_knows_it_already() {
    let server = Server::start("up", &[]).await;
    server.ready().await;
    let track = fixture("disco.mp3");
    let drawn = |flags: &[&str]| {
        let flags = [&["plot", track.to_str().unwrap(), "-o", "-"], flags].concat();
        let svg = run(flags).expect_code(0).stdout;
        assert!(parts(&svg).contains("timeline"));
        svg
    };
    let endpoint = ["--endpoint", server.endpoint()];
    run(["classify", "--endpoint", server.endpoint(), track.to_str().unwrap()]).expect_code(0);
    assert_eq!(drawn(&[]), drawn(&endpoint));
}

#[test]
fn wrong_usage_and_broken_files_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let track = fixture("pop.mp3");
    let track = track.to_str().unwrap();
    let wrong: [&[&str]; 10] = [
        &["plot"],
        &["plot", track, "-o", &file("picture.jpg")],
        &["plot", track, "-o", &file("picture")],
        &["plot", track, "-o", &file("a.png"), "--what", "opera"],
        &["plot", track, "-o", &file("a.png"), "--size", "99"],
        &["plot", track, "-o", &file("a.png"), "--scale", "0"],
        &["plot", track, "-o", &file("a.png"), "--from", "9", "--to", "3"],
        &["plot", "-", "-o", &file("a.png")],
        &["plot", track, track],
        &["plot", track, track, "-o", "-"],
    ];
    for arguments in wrong {
        let finished = run(arguments).expect_code(2);
        assert!(finished.stdout.is_empty() && !finished.stderr.is_empty(), "{arguments:?}");
    }
    let (broken, missing) = (fixtures::broken("text.mp3"), folder.path().join("missing.mp3"));
    for (arguments, why) in [
        (["plot", broken.to_str().unwrap(), "-o", &file("a.png"), "--theme=dark"], "text.mp3"),
        (["plot", missing.to_str().unwrap(), "-o", &file("a.png"), "--theme=dark"], "no such file"),
        (["plot", track, "-o", &file("a.png"), "--from=3:00"], "the track ends after"),
        (["plot", track, "-o", &file("a.png"), "--size=1000x100"], "expected at least"),
        (["plot", track, "-o", &file("no/folder/a.png"), "--theme=dark"], "cannot write"),
        (["plot", track, "-o", &file("a.png"), "--size=20000x20000"], "too large"),
    ] {
        let finished = run(arguments).expect_code(1);
        assert!(finished.stderr.contains(why), "{}", finished.stderr);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "what failed leaves nothing");
}

#[test]
fn a_folder_has_a_picture_for_each_track_and_broken_ones_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (music, pictures) = (folder.path().join("music"), folder.path().join("pictures"));
    fs::create_dir_all(music.join("b")).unwrap();
    fs::write(music.join("1.wav"), sound::wav(&sound::chord(5.0, 1))).unwrap();
    fs::write(music.join("b/1.wav"), sound::wav(&sound::silence(1.0))).unwrap();
    fs::write(music.join("2.wav"), "no sound").unwrap();
    let finished = plot(&music, &pictures, &["--format", "svg"]).expect_code(1);
    assert!(finished.stderr.contains("2.wav:") && finished.stderr.contains("2 drawn, 1 failed"), "{}", finished.stderr);
    let mut names: Vec<_> = fs::read_dir(&pictures).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["1 (2).svg", "1.svg"]);
    let silent = fs::read_to_string(pictures.join("1 (2).svg")).unwrap();
    assert!(words(&silent).iter().any(|word| word.contains("nothing but silence")));
}

#[test]
fn without_a_name_the_picture_gets_that_of_the_track_and_replaces_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let track = fixture("blues.mp3");
    let plot = || {
        let mut command = std::process::Command::new(chorale());
        command.args(["plot", "--what", "waveform"]).arg(&track).current_dir(folder.path()).output().unwrap()
    };
    let first = plot();
    assert_eq!(first.status.code(), Some(0));
    assert!(String::from_utf8(first.stdout).unwrap().starts_with("blues.png  "));
    pixels(&folder.path().join("blues.png"));
    let second = plot();
    assert_eq!(second.status.code(), Some(2));
    assert!(String::from_utf8(second.stderr).unwrap().contains("blues.png is there already"));
}

#[test]
fn an_hour_is_drawn_as_a_minute_is_and_any_name_will_do() {
    let folder = tempfile::tempdir().unwrap();
    let hour = folder.path().join("<b>&\u{1} 夜曲.wav");
    let mut bytes = sound::wav_header(8_000, 1, 3_600 * 8_000).to_vec();
    let second: Vec<u8> = sound::chord(1.0, 5).iter().take(8_000).flat_map(|sample| sample.to_le_bytes()).collect();
    bytes.extend(second.repeat(3_600));
    fs::write(&hour, bytes).unwrap();
    let out = folder.path().join("hour.svg");
    plot(&hour, &out, &[]).expect_code(0);
    let svg = fs::read_to_string(&out).unwrap();
    assert!(svg.len() < 1_500_000, "{} bytes", svg.len());
    let words = words(&svg);
    assert!(words.contains(&"1:00:00".to_owned()), "{words:?}");
    assert!(words.iter().any(|word| word == "<b>&\u{fffd} 夜曲.wav"), "{words:?}");
    plot(&hour, &folder.path().join("hour.png"), &["--what", "vote"]).expect_code(0);
    run_with(["plot".as_ref(), hour.as_os_str(), "-o".as_ref(), "-".as_ref()], &[], b"").expect_code(0);
}
