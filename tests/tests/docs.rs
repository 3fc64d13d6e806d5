//! What the pages say is so: their commands run, and their links lead somewhere.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{collections::BTreeMap, path::PathBuf, process::Command};

use chorale_tests::{
    examples::Example,
    grpcurl::Grpcurl,
    markdown::{Block, Page},
    skip_without_tool,
    walkthrough::Walkthrough,
    workspace,
};

/// Pages whose every command is run, unless a comment before it says why not.
const WALKED: [&str; 3] = ["README.md", "deploy/TUTORIAL.md", "deploy/SERVING.md"];
/// What a block of code on such a page may be; only the first is run.
const LANGUAGES: [&str; 7] = ["sh", "text", "toml", "json", "python", "rust", "js"];

fn walk(name: &str) {
    // The commands of a page call these, too.
    if Grpcurl::find().is_none() || Example::all().len() < 3 {
        return;
    }
    if Command::new("curl").arg("--version").output().is_err() {
        return skip_without_tool("curl", "apt-get install curl");
    }
    let page = Page::read(name);
    let blocks: Vec<Block> = page.blocks().into_iter().filter(|block| block.language == "sh").collect();
    let mut walkthrough = Walkthrough::new();
    let mut followed = 0;
    for block in blocks.iter().filter(|block| block.not_run.is_none()) {
        walkthrough.follow(name.as_ref(), block);
        followed += 1;
    }
    assert!(followed * 2 >= blocks.len(), "{name}: {followed} of {} blocks are run; most should be", blocks.len());
}

#[test]
fn the_commands_of_the_readme_run() {
    walk(WALKED[0]);
}

#[test]
fn the_commands_of_the_tutorial_run() {
    walk(WALKED[1]);
}

#[test]
fn the_commands_about_serving_run() {
    walk(WALKED[2]);
}

#[test]
fn every_block_on_a_page_that_is_walked_says_what_it_is() {
    for name in WALKED {
        for block in Page::read(name).blocks() {
            assert!(LANGUAGES.contains(&block.language.as_str()), "{name}:{}: {:?}", block.line, block.language);
        }
    }
}

#[test]
fn every_link_within_the_repository_leads_somewhere() {
    let pages = Page::all();
    assert!(pages.iter().any(|page| page.path == workspace().join("README.md")));
    let anchors: BTreeMap<PathBuf, _> =
        pages.iter().map(|page| (page.path.canonicalize().unwrap(), page.anchors())).collect();
    let mut broken = Vec::new();
    for page in &pages {
        for (line, target) in page.links() {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { page.path.clone() } else { page.path.with_file_name(file) };
            let found = path.canonicalize().ok().filter(|path| path.starts_with(workspace()));
            let anchored = found
                .is_some_and(|path| anchor.is_empty() || anchors.get(&path).is_some_and(|all| all.contains(anchor)));
            if !anchored {
                broken.push(format!("{}:{line}: {target}", page.path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
