//! `chorale playlist`: what players read, in the order that was asked for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use chorale_tests::{
    fixtures,
    music::{Music, lines},
};
use lofty::{
    config::WriteOptions,
    tag::{Accessor, Tag, TagExt, TagType},
};
use serde_json::Value;

/// Three artists in turn play ten tracks, one of which has a difficult title.
fn music() -> &'static Music {
    static MUSIC: OnceLock<Music> = OnceLock::new();
    MUSIC.get_or_init(|| {
        let music = Music::scanned([]);
        for (place, fixture) in fixtures::genres().into_iter().enumerate() {
            let path = music.music.join(fixture.file_name().unwrap());
            fs::copy(&fixture, &path).unwrap();
            let mut tag = Tag::new(TagType::Id3v2);
            tag.set_artist(format!("Artist {}", place % 3));
            tag.set_title(if place == 0 { "Tom & <Jerry>".to_owned() } else { format!("Title {place}") });
            tag.save_to_path(&path, WriteOptions::new()).unwrap();
        }
        music.scan();
        music
    })
}

fn tracks(words: &[&str]) -> Vec<Value> {
    let made = music().run(&[&["playlist", "--json"], words].concat(), &[]).expect_code(0);
    lines(&made)[0]["tracks"].as_array().unwrap().clone()
}

fn text<'a>(track: &'a Value, key: &str) -> &'a str {
    track[key].as_str().unwrap()
}

#[test]
fn m3u8_names_every_track_with_its_length_artist_and_title() {
    let file = music().music.join("all.m3u8");
    let made = music().run(&["playlist", "-o", file.to_str().unwrap()], &[]).expect_code(0);
    assert!(made.stderr.starts_with("10 tracks, "), "{}", made.stderr);
    let list = fs::read_to_string(&file).unwrap();
    fs::remove_file(&file).unwrap();
    assert!(list.starts_with("#EXTM3U\n#PLAYLIST:all\n#EXTINF:"), "{list}");
    assert!(list.contains("#EXTINF:26,Artist 0 - Tom & <Jerry>\nblues.mp3\n"), "{list}");
    assert_eq!(list.lines().filter(|line| !line.starts_with('#')).count(), 10);

    let piped = music().run(&["playlist", "--tracks", "2"], &[]).expect_code(0).stdout;
    let paths: Vec<_> = piped.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(paths.len(), 2);
    assert!(paths.iter().all(|path| Path::new(path).is_file()), "absolute on standard output: {paths:?}");
}

#[test]
fn xspf_can_be_read_by_others() {
    let file = music().beside("out.xspf");
    music().run(&["playlist", "-o", file.to_str().unwrap(), "--file-paths", "absolute"], &[]).expect_code(0);
    let list = fs::read_to_string(&file).unwrap();
    let document = roxmltree::Document::parse(&list).unwrap();
    let texts = |name: &str| -> Vec<&str> {
        document.descendants().filter(|node| node.has_tag_name(name)).filter_map(|node| node.text()).collect()
    };
    assert_eq!(texts("location").len(), 10);
    assert!(texts("location").iter().all(|location| location.starts_with("file:///")), "{list}");
    assert!(texts("title").contains(&"Tom & <Jerry>"), "{list}");
    assert!(texts("duration").iter().all(|milliseconds| milliseconds.parse::<u64>().unwrap() > 10_000), "{list}");
}

#[test]
fn no_artist_comes_twice_in_a_row_and_a_seed_repeats_itself() {
    let of = |seed: &str| -> Vec<String> {
        let tracks = tracks(&["--shuffle", "--seed", seed]);
        assert!(tracks.windows(2).all(|pair| text(&pair[0], "artist") != text(&pair[1], "artist")), "{tracks:?}");
        tracks.iter().map(|track| text(track, "path").to_owned()).collect()
    };
    assert_eq!(of("1"), of("1"));
    assert_ne!(of("1"), of("2"));
    let said = music().run(&["playlist", "--shuffle"], &[]).expect_code(0).stderr;
    assert!(said.contains("(--seed "), "{said}");
}

#[test]
fn a_mix_has_its_shares_and_says_what_is_short() {
    let mut genres: BTreeMap<String, usize> = BTreeMap::new();
    for track in tracks(&[]) {
        *genres.entry(text(&track, "genre").to_owned()).or_default() += 1;
    }
    genres.remove("unknown");
    let mut known = genres.into_iter();
    let ((one, has_one), (other, has_other)) = (known.next().unwrap(), known.next().unwrap());
    let mix = format!("50 % {one}, 50 % {other}");
    let made = music().run(&["playlist", "--json", "--mix", &mix, "--tracks", "9"], &[]).expect_code(0);
    let made = &lines(&made)[0];
    let of_mix: Vec<_> = made["tracks"].as_array().unwrap().iter().map(|track| text(track, "genre")).collect();
    for length in 1..=of_mix.len() {
        let first = of_mix[..length].iter().filter(|genre| **genre == one).count() as f64;
        assert!((first - length as f64 / 2.0).abs() <= 0.5, "{of_mix:?}");
    }
    assert!(of_mix.len() >= 2 * has_one.min(has_other) && of_mix.len() < 9, "{of_mix:?}");
    assert!(made["notes"][0].as_str().unwrap().contains(" has only "), "{made}");
    let none = music().run(&["playlist", "--mix", "1 jazz, 1 polka"], &[]).expect_code(1);
    assert!(none.stderr.contains("no track of polka"), "{}", none.stderr);
}

#[test]
fn a_length_is_met_as_closely_as_can_be() {
    let made = music().run(&["playlist", "--json", "--length", "40s"], &[]).expect_code(0);
    let seconds = lines(&made)[0]["duration_seconds"].as_f64().unwrap();
    assert!((seconds - 40.0).abs() < 4.0, "{seconds}");
    let long = music().run(&["playlist", "--length", "2h"], &[]).expect_code(0);
    assert!(long.stderr.contains("there is no more that fits: the playlist ends after 2:"), "{}", long.stderr);
}

#[test]
fn tracks_like_another_begin_with_it() {
    let like = music().music.join("jazz.mp3");
    let made =
        music().run(&["playlist", "--json", "--tracks", "4", "--like", like.to_str().unwrap()], &[]).expect_code(0);
    let made = &lines(&made)[0];
    let tracks = made["tracks"].as_array().unwrap();
    assert_eq!(PathBuf::from(text(&tracks[0], "path")), like);
    let link = music().beside("linked.mp3");
    symlink(&like, &link).unwrap();
    let linked = music().run(&["playlist", "--json", "--tracks", "4", "--like", link.to_str().unwrap()], &[]);
    assert_eq!(lines(&linked.expect_code(0))[0], *made, "by whichever link leads there");
    let likeness: Vec<f64> = tracks.iter().map(|track| track["similarity"].as_f64().unwrap()).collect();
    assert!((likeness[0] - 1.0).abs() < 1e-3 && likeness.iter().all(|one| *one <= likeness[0]), "{likeness:?}");
    let stranger = fixtures::broken("text.mp3");
    let unknown = music().run(&["playlist", "--like", stranger.to_str().unwrap()], &[]).expect_code(1);
    assert!(unknown.stderr.contains("has no verdict in the library"), "{}", unknown.stderr);
}

#[test]
fn wrong_usage_says_what_is_right() {
    let wrong: [(&[&str], &str); 7] = [
        (&["playlist", "-o", "list.pls"], ".m3u8 or .xspf"),
        (&["playlist", "--mix", "70 % jazz, 40 % blues"], "add up to 100"),
        (&["playlist", "--mix", "jazz"], "as in `70 % jazz`"),
        (&["playlist", "--genre", "polka"], "known are blues"),
        (&["playlist", "--seed", "1"], "--shuffle"),
        (&["playlist", "--tracks", "0"], "0"),
        (&["playlist", "--genre", "jazz", "--mix", "1 jazz"], "cannot be used with"),
    ];
    for (words, expected) in wrong {
        let refused = music().run(words, &[]).expect_code(2);
        assert!(refused.stderr.contains(expected), "{words:?}: {}", refused.stderr);
    }
    let empty = music().run(&["playlist", "--artist", "nobody"], &[]).expect_code(1);
    assert!(empty.stderr.contains("no track fits"), "{}", empty.stderr);
}
