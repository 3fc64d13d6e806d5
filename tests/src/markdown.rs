//! What the repository's pages hold beside prose: links, headings to link to, and blocks of code.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::workspace;

/// Folders with pages that are not ours.
const FOREIGN: [&str; 1] = ["node_modules"];

/// A page.
#[derive(Debug)]
pub struct Page {
    /// Where it is.
    pub path: PathBuf,
    text: String,
}

/// A block of code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Block {
    /// The line of the page that opens it, from 1.
    pub line: usize,
    /// The word behind the three backticks.
    pub language: String,
    /// What it holds.
    pub text: String,
    /// The reason of a comment `<!-- not run: REASON -->` before it.
    pub not_run: Option<String>,
}

impl Page {
    /// The page `name` of the repository.
    #[must_use]
    pub fn read(name: &str) -> Self {
        Self::at(workspace().join(name))
    }

    /// Every page of the repository.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut paths = Vec::new();
        find_pages(workspace(), &mut paths);
        paths.sort();
        paths.into_iter().map(Self::at).collect()
    }

    fn at(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path, text }
    }

    /// Its blocks of code, in order.
    #[must_use]
    pub fn blocks(&self) -> Vec<Block> {
        self.parts().1
    }

    /// What it links to or shows: the line, from 1, and the target as it is written.
    #[must_use]
    pub fn links(&self) -> Vec<(usize, &str)> {
        let lines = self.parts().0.into_iter();
        lines.flat_map(|(number, line)| targets(line).into_iter().map(move |target| (number, target))).collect()
    }

    /// The anchors of its headings, as GitHub names them.
    #[must_use]
    pub fn anchors(&self) -> BTreeSet<String> {
        let mut anchors = BTreeSet::new();
        for (_, line) in self.parts().0 {
            let words = line.trim_start_matches('#');
            if words.len() == line.len() || !words.starts_with(' ') {
                continue;
            }
            let anchor = slug(words.trim());
            let repeated = (1..).map(|count| format!("{anchor}-{count}"));
            let free = std::iter::once(anchor.clone()).chain(repeated).find(|anchor| !anchors.contains(anchor));
            anchors.extend(free);
        }
        anchors
    }

    /// The lines of prose with their numbers, and the blocks of code.
    fn parts(&self) -> (Vec<(usize, &str)>, Vec<Block>) {
        let (mut prose, mut blocks) = (Vec::new(), Vec::new());
        let mut open: Option<Block> = None;
        let mut not_run = None;
        for (number, line) in (1..).zip(self.text.lines()) {
            match (line.trim_start().strip_prefix("```"), &mut open) {
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(language), None) => {
                    let language = language.trim().to_owned();
                    open = Some(Block { line: number, language, not_run: not_run.take(), ..Block::default() });
                }
                (None, Some(block)) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (None, None) => {
                    prose.push((number, line));
                    if !line.trim().is_empty() {
                        let comment = line.trim().strip_prefix("<!-- not run: ");
                        not_run = comment.and_then(|rest| rest.strip_suffix(" -->")).map(str::to_owned);
                    }
                }
            }
        }
        assert!(open.is_none(), "{}: a block of code has no end", self.path.display());
        (prose, blocks)
    }
}

fn find_pages(folder: &Path, pages: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("a folder can be read").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let foreign = name.starts_with('.') || name.starts_with("target") || FOREIGN.contains(&name.as_ref());
        if path.is_dir() && !foreign {
            find_pages(&path, pages);
        } else if name.ends_with(".md") {
            pages.push(path);
        }
    }
}

/// What a line of prose links to: `[words](target)`, `[words]: target`, and `src="target"` or `href="target"` of HTML.
fn targets(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    // Every second part is code.
    for part in line.split('`').step_by(2) {
        for (opening, closing) in [("](", ')'), ("src=\"", '"'), ("srcset=\"", '"'), ("href=\"", '"')] {
            found.extend(part.split(opening).skip(1).filter_map(|rest| rest.split(closing).next()));
        }
    }
    let defined = line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")).map(|(_, target)| target);
    found.extend(defined);
    // A title may follow.
    found.into_iter().filter_map(|target| target.split_whitespace().next()).collect()
}

fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Page {
        Page { path: PathBuf::new(), text: text.to_owned() }
    }

    #[test]
    fn blocks_have_a_language_and_perhaps_a_reason_not_to_be_run() {
        let page = page("a\n```sh\nls\n```\n<!-- not run: too long -->\n\n```sh\nmake\n```\n");
        let sh = |line, text: &str, not_run: Option<&str>| Block {
            line,
            language: "sh".to_owned(),
            text: text.to_owned(),
            not_run: not_run.map(str::to_owned),
        };
        assert_eq!(page.blocks(), [sh(2, "ls\n", None), sh(7, "make\n", Some("too long"))]);
    }

    #[test]
    fn links_are_found_outside_of_code() {
        let page =
            page("[a](b.md#c) `[x](y)` ![p](p.svg \"title\")\n<img src=\"q.png\">\n```\n[n](m)\n```\n[r]: s.md\n");
        assert_eq!(page.links(), [(1, "b.md#c"), (1, "p.svg"), (2, "q.png"), (6, "s.md")]);
    }

    #[test]
    fn anchors_are_those_of_github() {
        let page = page("# What it's for\n## `chorale up`, and more\n## Limits\n```\n# no\n```\n### Limits\n");
        let anchors: Vec<String> = page.anchors().into_iter().collect();
        assert_eq!(anchors, ["chorale-up-and-more", "limits", "limits-1", "what-its-for"]);
    }
}
