//! The studio page in a real browser: what a visitor does, and what comes of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::path::Path;

use chorale_proto::v1::ClassifyOptions;
use chorale_tests::{Browser, Server, command, fixtures, sound, until, workspace};
use fantoccini::{Locator, key::Key};
use serde_json::{Value, json};

/// The state of the newest track, once it has one that lasts.
const OUTCOME: &str = "const state = document.querySelector('.entry')?.dataset.state;
    return ['done', 'failed', 'cancelled'].includes(state) && state";

/// Where the cursor is.
const SECONDS: &str = "return Number(document.getElementById('cursor').dataset.seconds)";

/// Pixels by which the page is wider than its window.
const EXCESS_WIDTH: &str = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";

/// What a visitor can do something with, or hears of, that has no name.
const NAMELESS: &str = "return [...document.querySelectorAll('button, a, input, dialog, [role=img], [role=slider], [role=meter], progress')]
        .filter((element) => element.checkVisibility() || element.tagName === 'DIALOG')
        .filter((element) => ![
            element.getAttribute('aria-label'),
            element.textContent.trim(),
            element.labels?.[0]?.textContent.trim(),
            document.getElementById(element.getAttribute('aria-labelledby'))?.textContent.trim(),
        ].some(Boolean))
        .map((element) => element.outerHTML.slice(0, 80))";

/// A server and a browser that shows its page. `None`, with a message, if there is no browser.
async fn visit(width: u32) -> Option<(Server, Browser)> {
    let browser = Browser::start(width, 900).await?;
    Some((open_in(&browser, &[]).await, browser))
}

/// A server, started with `arguments`, whose page the browser shows.
async fn open_in(browser: &Browser, arguments: &[&str]) -> Server {
    let server = Server::start("up", arguments).await;
    server.ready().await;
    browser.client.goto(server.http()).await.unwrap();
    browser.until("the page knows the model", "return document.getElementById('model').textContent").await;
    server
}

async fn choose(browser: &Browser, paths: &[&Path]) {
    let paths: Vec<&str> = paths.iter().map(|path| path.to_str().unwrap()).collect();
    let files = browser.client.find(Locator::Id("files")).await.unwrap();
    files.send_keys(&paths.join("\n")).await.unwrap();
}

async fn outcome_of(browser: &Browser, path: &Path) -> String {
    choose(browser, &[path]).await;
    browser.until("the track is listed", "return document.querySelector('.entry')").await;
    browser.until("the track ends", OUTCOME).await.as_str().unwrap().to_owned()
}

async fn text(browser: &Browser, id: &str) -> String {
    let script = format!("return document.getElementById('{id}').textContent");
    browser.run(&script).await.as_str().unwrap().to_owned()
}

async fn assert_nothing_on_the_console(browser: &Browser) {
    assert_eq!(browser.console().await, [""; 0]);
}

fn track(genre: &str) -> std::path::PathBuf {
    fixtures::genres().into_iter().find(|path| path.file_stem().is_some_and(|stem| stem == genre)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chosen_file_is_classified_before_the_visitors_eyes() {
    let Some((server, browser)) = visit(1280).await else { return };
    let path = track("reggae");
    assert_eq!(outcome_of(&browser, &path).await, "done");
    let verdict = server.client().await.classify(fixtures::read(&path)).await.unwrap();

    assert_eq!(text(&browser, "genre").await, verdict.genre);
    assert_eq!(text(&browser, "confidence").await, format!("{:.0}\u{202f}% sure", 100.0 * verdict.confidence));
    let cells = "return document.querySelectorAll('#cells rect').length";
    browser.until("a cell for each chunk", &format!("{cells} === {}", verdict.chunk_count)).await;
    let said = command::run([Path::new("classify"), &path]).expect_code(0).stdout;
    let length = format!("  {}, {} chunks,", text(&browser, "length").await, verdict.chunk_count);
    assert!(said.contains(&length), "the command line says so as well: {length:?} {said}");

    // Before pixels are read: the browser remarks on who reads them.
    assert_nothing_on_the_console(&browser).await;
    // How many different colours a picture has says whether anything is painted on it.
    for (canvas, colours) in [("waveform", 2), ("spectrogram", 40), ("voices", 3)] {
        let script = format!(
            "const canvas = document.getElementById('{canvas}');
            const {{ data }} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            return new Set(new Uint32Array(data.buffer)).size >= {colours}"
        );
        browser.until(&format!("{canvas} is painted"), &script).await;
    }
    let painted = "const canvas = document.getElementById('spectrogram');
        const { data } = canvas.getContext('2d').getImageData(canvas.width - 2, 0, 1, canvas.height);
        return data.every((value, index) => index % 4 !== 3 || value === 255)";
    assert_eq!(browser.run(painted).await, true, "the spectrogram reaches the end of the track");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keyboard_moves_the_cursor_and_plays() {
    let Some((_server, browser)) = visit(1280).await else { return };
    assert_eq!(outcome_of(&browser, &track("jazz")).await, "done");
    browser.until("the track can be played", "return !document.getElementById('play').disabled").await;
    let reach = browser.client.find(Locator::Id("reach")).await.unwrap();
    let value = "return Number(document.getElementById('reach').getAttribute('aria-valuenow'))";

    for (key, expected) in [(Key::Right, 2.0), (Key::Right, 4.0), (Key::Left, 2.0), (Key::Home, 0.0)] {
        reach.send_keys(&String::from(char::from(key))).await.unwrap();
        browser.until(&format!("the cursor is at {expected} s"), &format!("{SECONDS} === {expected}")).await;
        assert_eq!(browser.run(value).await.as_f64(), Some(expected));
    }
    reach.send_keys(&String::from(char::from(Key::Right))).await.unwrap();
    let spoken = "return document.getElementById('reach').getAttribute('aria-valuetext')";
    let spoken = browser.until("the chunk under the cursor is told", spoken).await;
    assert!(spoken.as_str().unwrap().contains(", chunk 2 of "), "{spoken}");
    let shown = text(&browser, "readout").await;
    assert!(shown.starts_with("Chunk 2") && shown.contains('%'), "its probabilities are shown: {shown}");

    reach.send_keys(" ").await.unwrap();
    browser.until("playback moves the cursor", &format!("{SECONDS} > 2.2")).await;
    reach.send_keys(" ").await.unwrap();
    browser.until("it stops", "return document.getElementById('audio').paused").await;
    reach.send_keys("?").await.unwrap();
    browser.until("the shortcuts are listed", "return document.getElementById('help').open").await;
    assert_nothing_on_the_console(&browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verdict_can_be_downloaded_and_outlives_the_page() {
    let Some((server, browser)) = visit(1280).await else { return };
    let path = track("metal");
    assert_eq!(outcome_of(&browser, &path).await, "done");
    let verdict = server.client().await.classify(fixtures::read(&path)).await.unwrap();

    browser.client.find(Locator::Id("download")).await.unwrap().click().await.unwrap();
    let file = browser.downloads().join("metal.mp3.chorale.json");
    let report = until("the download", std::time::Duration::from_secs(30), async || {
        let text = std::fs::read_to_string(&file).ok()?;
        serde_json::from_str::<Value>(&text).ok()
    })
    .await;
    assert_eq!((&report["name"], &report["verdict"]["genre"]), (&json!("metal.mp3"), &json!(verdict.genre)));
    assert_eq!(report["chunks"].as_array().unwrap().len(), verdict.chunk_count as usize);
    assert_eq!(report["chunks"][1]["start_seconds"], 2.0);
    assert!(report["chunks"][1]["probabilities"]["metal"].is_number(), "{report}");

    browser.client.refresh().await.unwrap();
    browser.until("the track is listed again", "return document.querySelector('.entry')").await;
    assert_eq!(text(&browser, "genre").await, verdict.genre);
    let cells = browser.run("return document.querySelectorAll('.entry-name')[0].textContent").await;
    assert_eq!(cells, "metal.mp3");
    browser.client.find(Locator::Css(".entry-remove")).await.unwrap().click().await.unwrap();
    assert_eq!(browser.run("return document.querySelectorAll('.entry').length").await, 0);
    browser.client.refresh().await.unwrap();
    browser.until("the page knows the model", "return document.getElementById('model').textContent").await;
    assert_eq!(browser.run("return document.querySelectorAll('.entry').length").await, 0, "removed for good");
    assert_nothing_on_the_console(&browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_files_wait_in_line_and_a_broken_one_stops_none() {
    let Some((server, browser)) = visit(1280).await else { return };
    let text_file = fixtures::broken("text.mp3");
    choose(&browser, &[&track("disco"), &text_file, &track("pop")]).await;
    let states = "const states = [...document.querySelectorAll('.entry')].map((entry) => entry.dataset.state);
        return states.length === 3 && !states.some((state) => ['waiting', 'listening'].includes(state)) && states.join()";
    // The newest is first.
    assert_eq!(browser.until("all three end", states).await, "done,failed,done");
    // Votes of a POST could not be shown during the upload.
    let live = "chorale_gateway_calls_total{rpc=\"HttpLive\",code=\"OK\"} 2";
    assert!(server.metrics().contains(live), "over WebSockets: {}", server.metrics());
    browser.client.find(Locator::Css(".entry[data-state=failed] button")).await.unwrap().click().await.unwrap();
    assert_eq!(text(&browser, "problem-title").await, "This is no audio that Chorale can read");
    assert!(text(&browser, "problem-detail").await.starts_with("The server says: "));
    let shown = browser.client.find(Locator::Id("problem")).await.unwrap().is_displayed().await.unwrap();
    assert!(shown, "in view");
    assert_nothing_on_the_console(&browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_track_can_be_cancelled_and_heard_again() {
    let Some((server, browser)) = visit(1280).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.wav");
    std::fs::write(&path, sound::wav(&sound::chord(900.0, 4))).unwrap();
    choose(&browser, &[&path]).await;
    browser.until("a vote", "return document.querySelectorAll('#cells rect').length").await;
    browser.client.find(Locator::Id("cancel")).await.unwrap().click().await.unwrap();
    assert_eq!(browser.until("the track ends", OUTCOME).await, "cancelled");
    until("the server hears of it", std::time::Duration::from_secs(30), async || {
        (server.metric("chorale_gateway_open_streams") == Some(0.0)).then_some(())
    })
    .await;
    assert!(server.metrics().contains("code=\"CANCELLED\"} 1"), "{}", server.metrics());
    browser.client.find(Locator::Id("again")).await.unwrap().click().await.unwrap();
    let again = "const state = document.querySelector('.entry').dataset.state;
        return ['done', 'failed'].includes(state) && state";
    assert_eq!(browser.until("the track ends this time", again).await, "done");
    assert_nothing_on_the_console(&browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overloaded_server_is_asked_again_after_a_while() {
    let Some(browser) = Browser::start(1280, 900).await else { return };
    let server = open_in(&browser, &["--set", "gateway.limits.max_streams_per_caller=1"]).await;
    let mut other = server.client().await.upload(ClassifyOptions::default()).await.unwrap();
    other.accepted().await.unwrap();
    choose(&browser, &[&track("blues")]).await;
    let counts = "return document.getElementById('problem-retry').textContent.startsWith('Trying again in')";
    browser.until("the page says when it will try again", counts).await;
    assert_eq!(text(&browser, "problem-title").await, "The server has too much to do");
    drop(other);
    assert_eq!(browser.until("the track ends", OUTCOME).await, "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_files_are_words_and_no_markup() {
    let Some((_server, browser)) = visit(1280).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let name = "<img src=x alt=\"&amp; 夜曲.mp3";
    let path = folder.path().join(name);
    std::fs::copy(track("pop"), &path).unwrap();
    assert_eq!(outcome_of(&browser, &path).await, "done");
    for place in ["#track-name", ".entry-name"] {
        let shown = format!("return document.querySelector('{place}').textContent");
        assert_eq!(browser.run(&shown).await, name, "{place}");
    }
    assert_eq!(browser.run("return document.querySelectorAll('main img').length").await, 0);
    assert_nothing_on_the_console(&browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_microphone_is_heard_while_it_records() {
    let Some((_server, browser)) = visit(1280).await else { return };
    browser.client.find(Locator::Id("record")).await.unwrap().click().await.unwrap();
    // Votes before the recording ends: that is what live means.
    browser.until("two votes", "return document.querySelectorAll('#cells rect').length >= 2").await;
    assert_eq!(browser.run("return document.getElementById('recording').hidden").await, false);
    browser.client.find(Locator::Id("stop")).await.unwrap().click().await.unwrap();
    assert_eq!(browser.until("the recording ends", OUTCOME).await, "done");
    assert!(!text(&browser, "genre").await.is_empty());
    assert!(text(&browser, "facts").await.contains("mono"), "{}", text(&browser, "facts").await);
    browser.until("it can be played", "return !document.getElementById('play').disabled").await;
    assert_nothing_on_the_console(&browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_who_calls_gets_a_token() {
    let Some(browser) = Browser::start(1280, 900).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let callers = folder.path().join("callers.toml");
    let digest = blake3::hash(b"open-sesame");
    std::fs::write(&callers, format!("[visitor]\ntoken_blake3 = '{digest}'\n")).unwrap();
    let setting = format!("gateway.auth.callers_file={}", callers.to_str().unwrap());
    let server = Server::start("up", &["--set", &setting]).await;
    server.ready().await;
    browser.client.goto(server.http()).await.unwrap();
    browser.until("the page asks", "return !document.getElementById('token-form').hidden").await;
    let field = browser.client.find(Locator::Id("token")).await.unwrap();
    field.send_keys("guessed\n").await.unwrap();
    let note = "return document.getElementById('token-note').textContent.includes('not accepted')";
    browser.until("the page says that it was wrong", note).await;
    field.send_keys("open-sesame\n").await.unwrap();
    browser.until("the page is let in", "return document.getElementById('model').textContent").await;
    assert_eq!(outcome_of(&browser, &track("disco")).await, "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_phone_nothing_is_too_wide_and_everything_has_a_name() {
    let Some((_server, browser)) = visit(360).await else { return };
    assert_eq!(browser.run("return innerWidth").await, 360);
    assert_eq!(browser.run(NAMELESS).await, json!([]));
    assert_eq!(browser.run(EXCESS_WIDTH).await, 0);
    assert_eq!(outcome_of(&browser, &track("country")).await, "done");
    assert_eq!(browser.run(NAMELESS).await, json!([]));
    assert_eq!(browser.run(EXCESS_WIDTH).await, 0);
    choose(&browser, &[&fixtures::broken("no-audio.mp4")]).await;
    browser.until("its problem is shown", "return !document.getElementById('problem').hidden").await;
    assert_eq!(browser.run(EXCESS_WIDTH).await, 0);
    assert_nothing_on_the_console(&browser).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes deploy/studio.webp, the picture in the README"]
async fn picture_of_the_readme() {
    let browser = Browser::start(1180, 1010).await.expect("a browser");
    let _server = open_in(&browser, &[]).await;
    assert_eq!(outcome_of(&browser, &track("reggae")).await, "done");
    browser.until("the track can be played", "return !document.getElementById('play').disabled").await;
    let reach = browser.client.find(Locator::Id("reach")).await.unwrap();
    for _ in 0..3 {
        reach.send_keys(&String::from(char::from(Key::Right))).await.unwrap();
    }
    browser.run("document.activeElement.blur()").await;
    std::fs::write(workspace().join("deploy/studio.webp"), browser.picture().await).unwrap();
}
