//! Manual pages from the definition of the command line: one for each command, with the same words as `--help`.

use std::io;

use clap::Command;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

/// All pages are of the section for commands.
const SECTION: &str = "1";
/// More words than this before a colon are no heading.
const HEADING_WORDS: usize = 5;

/// A manual page, in the language of `man`.
#[derive(Debug)]
pub(crate) struct Page {
    /// As `man` expects it: `chorale-classify.1`.
    pub(crate) file_name: String,
    pub(crate) text: Vec<u8>,
}

/// The page of `command` and those of all commands below it.
///
/// # Errors
/// None that is known: memory can be written to.
pub(crate) fn pages(command: Command) -> io::Result<Vec<Page>> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let source = format!("Chorale {}", command.get_version().unwrap_or_default());
    let mut pages = Vec::new();
    add_pages(&command, &[], &source, &mut pages)?;
    Ok(pages)
}

fn add_pages(command: &Command, above: &[String], source: &str, pages: &mut Vec<Page>) -> io::Result<()> {
    // Pages are the same whenever they are made. A date that is empty would be left out, and the source be taken for it.
    let man = Man::new(command.clone()).date(" ").source(source).manual("Chorale Manual");
    pages.push(Page { file_name: man.get_filename(), text: render(command, &man, above)? });
    let path = [above, &[page_name(command)]].concat();
    command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
        .try_for_each(|below| add_pages(below, &path, source, pages))
}

/// `chorale-classify`: what `man` is asked for.
fn page_name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn render(command: &Command, man: &Man, above: &[String]) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        man.render_options_section(&mut page)?;
    }
    if command.get_subcommands().any(|below| !below.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    let mut rest = Roff::new();
    if let Some(notes) = command.get_after_long_help().or_else(|| command.get_after_help()) {
        add_notes(&mut rest, &notes.to_string());
    }
    if !above.is_empty() {
        rest.control("SH", ["SEE ALSO"]);
        let names = above.iter().map(|name| format!("{name}({SECTION})"));
        rest.text([roman(names.collect::<Vec<_>>().join(", "))]);
    }
    rest.to_writer(&mut page)?;
    Ok(page)
}

/// What the notes below a command's options are made of.
#[derive(Debug, PartialEq, Eq)]
enum Note<'a> {
    /// A paragraph that begins with some words and a colon is a section of its own.
    Heading(String),
    /// The next paragraph begins.
    Gap,
    Text(&'a str),
    /// A command line, and what is said of it.
    Command(&'a str, &'a str),
    /// Lines that keep their shape.
    Literal(Vec<&'a str>),
}

fn parse_notes(notes: &str) -> Vec<Note<'_>> {
    let mut parsed = Vec::new();
    let mut after_gap = true;
    for line in notes.lines() {
        if line.trim().is_empty() {
            after_gap = true;
            continue;
        }
        let indented = line.strip_prefix("  ");
        let heading = heading(line).filter(|_| after_gap && indented.is_none());
        match (indented, heading, parsed.last_mut()) {
            (Some(text), ..) if text.starts_with("chorale ") => {
                let (command, description) = text.split_once("   ").unwrap_or((text, ""));
                parsed.push(Note::Command(command, description.trim()));
            }
            (Some(text), _, Some(Note::Literal(lines))) => {
                lines.extend(after_gap.then_some(""));
                lines.push(text);
            }
            (Some(text), ..) => parsed.push(Note::Literal(vec![text])),
            (None, Some((heading, text)), _) => {
                parsed.push(Note::Heading(heading));
                parsed.extend(Some(text).filter(|text| !text.is_empty()).map(Note::Text));
            }
            (None, None, _) => {
                parsed.extend(after_gap.then_some(Note::Gap));
                parsed.push(Note::Text(line));
            }
        }
        after_gap = false;
    }
    parsed
}

/// The heading of a section and what follows on its line, if `line` begins one.
fn heading(line: &str) -> Option<(String, &str)> {
    let (words, rest) = line.split_once(':')?;
    let words = words.split_once(',').map_or(words, |(first, _)| first);
    let named = words.starts_with(char::is_uppercase)
        && words.chars().all(|letter| letter.is_alphabetic() || letter == ' ')
        && words.split(' ').count() <= HEADING_WORDS;
    let heading = if words == "Exit codes" { "EXIT STATUS".to_owned() } else { words.to_uppercase() };
    named.then_some((heading, rest.trim()))
}

fn add_notes(roff: &mut Roff, notes: &str) {
    let notes = parse_notes(notes);
    if !matches!(notes.first(), Some(Note::Heading(_))) {
        roff.control("SH", ["NOTES"]);
    }
    for note in notes {
        match note {
            Note::Heading(words) => {
                roff.control("SH", [words.as_str()]);
            }
            Note::Gap => {
                roff.control("PP", []);
            }
            Note::Text(text) => {
                roff.text([roman(text)]);
            }
            Note::Command(command, description) => {
                roff.control("PP", []).text([bold(command)]);
                if !description.is_empty() {
                    roff.control("RS", ["4"]).text([roman(description)]).control("RE", []);
                }
            }
            Note::Literal(lines) => {
                roff.control("PP", []).control("RS", ["4"]).control("nf", []);
                for line in lines {
                    roff.text([roman(line)]);
                }
                roff.control("fi", []).control("RE", []);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    fn notes(text: &str) -> String {
        let mut roff = Roff::new();
        add_notes(&mut roff, text);
        roff.render()
    }

    #[test]
    fn every_command_at_every_depth_has_a_page() {
        let command = Command::new("tool").subcommand(
            Command::new("library").subcommand(Command::new("scan")).subcommand(Command::new("secret").hide(true)),
        );
        let names: Vec<String> = pages(command).unwrap().into_iter().map(|page| page.file_name).collect();
        assert_eq!(names, ["tool.1", "tool-library.1", "tool-library-scan.1"]);

        let names: Vec<String> = pages(Cli::command()).unwrap().into_iter().map(|page| page.file_name).collect();
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            assert!(names.contains(&format!("chorale-{}.1", command.get_name())), "{names:?}");
        }
    }

    #[test]
    fn pages_say_what_they_are_pages_of() {
        let page = pages(Command::new("tool").version("1.2")).unwrap().remove(0);
        let page = String::from_utf8(page.text).unwrap();
        assert!(page.contains(".TH tool 1 \" \" \"Chorale 1.2\" \"Chorale Manual\"\n"), "{page}");
    }

    #[test]
    fn notes_become_sections_commands_and_text_that_keeps_its_shape() {
        let page = notes(
            "Examples:\n  chorale listen song.mp3      what is it\n  chorale sing\n\nA file holds:\n\n  key = 1\n\n  other = 2\n\n\
             Exit codes: 0 done, 1 not.",
        );
        assert!(
            page.contains(".SH EXAMPLES\n.PP\n\\fBchorale listen song.mp3\\fR\n.RS 4\nwhat is it\n.RE\n"),
            "{page}"
        );
        assert!(page.contains(".nf\nkey = 1\n\nother = 2\n.fi\n.RE\n"), "{page}");
        assert!(page.contains(".SH \"EXIT STATUS\"\n0 done, 1 not.\n"), "{page}");
    }

    #[test]
    fn notes_without_a_heading_have_one() {
        assert!(notes("To be read: slowly, twice: so.").ends_with(".SH \"TO BE READ\"\nslowly, twice: so.\n"));
        assert!(notes("no heading here").ends_with(".SH NOTES\n.PP\nno heading here\n"));
    }
}
