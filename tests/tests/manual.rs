//! The manual and the completions say what `--help` says, and the programs that read them have nothing to complain about.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use chorale_tests::{command::run, skip, skip_without_tool};

/// The commands below `path`, as its help lists them, at every depth; `path` itself comes first.
fn commands(path: &[String]) -> Vec<Vec<String>> {
    let help = help(path);
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    // A description may go on in the next line, further to the right.
    let listed = listed.take_while(|line| line.starts_with("  ")).filter(|line| !line.starts_with("   "));
    let names = listed.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    let below = names.flat_map(|name| commands(&[path, &[name.to_owned()]].concat()));
    std::iter::once(path.to_vec()).chain(below.collect::<Vec<_>>()).collect()
}

fn help(path: &[String]) -> String {
    run(path.iter().map(String::as_str).chain(["--help"])).expect_code(0).stdout
}

/// The page of every command, written to a folder.
fn write_pages(folder: &Path) -> BTreeSet<String> {
    let written = run(["man".as_ref(), folder.as_os_str()]).expect_code(0);
    assert!(written.stderr.contains(" pages in "), "{}", written.stderr);
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_command_has_a_page_with_all_its_flags() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("share/man/man1");
    let pages = write_pages(&folder);
    let mut expected = BTreeSet::new();
    for path in commands(&[]) {
        let name = [&["chorale".to_owned()], &path[..]].concat().join("-");
        let page = fs::read_to_string(folder.join(format!("{name}.1"))).expect("every command has a page");
        for part in [format!(".TH {name} 1"), ".SH NAME".to_owned(), ".SH SYNOPSIS".to_owned()] {
            assert!(page.contains(&part), "{part} is not in {page}");
        }
        let help = help(&path);
        let flags = help.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 2);
        for flag in flags.map(|word| word.trim_end_matches(|end: char| !end.is_alphanumeric())) {
            assert!(page.contains(&flag.replace('-', "\\-")), "{flag} is not in the page of {name}");
        }
        expected.insert(format!("{name}.1"));
    }
    assert_eq!(pages, expected, "there are no other pages");
    assert!(fs::read_to_string(folder.join("chorale-up.1")).unwrap().contains(".SH CONFIGURATION\n"));
    let first = fs::read_to_string(folder.join("chorale.1")).unwrap();
    assert!(first.contains(".SH EXAMPLES\n") && first.contains(".SH \"EXIT STATUS\"\n"), "{first}");
    assert_eq!(run(["man"]).expect_code(0).stdout, first);
}

#[test]
fn typesetters_have_nothing_to_complain_about() {
    let folder = tempfile::tempdir().unwrap();
    let pages = write_pages(folder.path());
    let Ok(_) = Command::new("groff").arg("--version").output() else {
        return skip_without_tool("groff", "apt-get install groff-base");
    };
    for page in pages {
        let mut groff = Command::new("groff");
        groff.args(["-man", "-ww", "-K", "utf8", "-T", "utf8", "-P-cbou", "-rLL=100n"]).arg(folder.path().join(&page));
        let set = groff.output().unwrap();
        let (text, complaints) = (String::from_utf8_lossy(&set.stdout), String::from_utf8_lossy(&set.stderr));
        assert!(set.status.success() && complaints.is_empty(), "{page}: {complaints}");
        assert!(text.contains("NAME") && text.contains("chorale"), "{page}: {text}");
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let refused = run(["man".as_ref(), file.join("man1").as_os_str()]).expect_code(1);
    assert!(refused.stderr.lines().count() == 1 && refused.stderr.contains("man1"), "{}", refused.stderr);
}

#[test]
fn bash_completes_commands_flags_and_values() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("chorale");
    fs::write(&script, run(["completions", "bash"]).expect_code(0).stdout).unwrap();
    let complete = |words: &[&str]| {
        let last = words.len() - 1;
        let ask = format!(
            "source {} && complete -p chorale > /dev/null && COMP_WORDS=({}) COMP_CWORD={last} \
             && _chorale chorale \"${{COMP_WORDS[{last}]}}\" \"${{COMP_WORDS[{}]}}\" && printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script.display(),
            words.join(" "),
            last - 1,
        );
        let answer = Command::new("bash").args(["--norc", "-c", &ask]).output().unwrap();
        assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
        String::from_utf8(answer.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete(&["chorale", "cla"]), ["classify"]);
    assert_eq!(complete(&["chorale", "classify", "--endp"]), ["--endpoint"]);
    assert_eq!(complete(&["chorale", "features", "--dtype", "f"]), ["f32"]);
    assert_eq!(complete(&["chorale", "completions", "fi"]), ["fish"]);
}

#[test]
fn every_shell_has_completions_and_those_that_are_here_can_read_them() {
    let folder = tempfile::tempdir().unwrap();
    for (shell, check) in
        [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute"), ("elvish", "-compileonly"), ("powershell", "")]
    {
        let script = folder.path().join(shell);
        let text = run(["completions", shell]).expect_code(0).stdout;
        assert!(text.contains("chorale") && text.contains("classify") && text.contains("endpoint"), "{shell}: {text}");
        fs::write(&script, text).unwrap();
        if check.is_empty() {
            continue;
        }
        match Command::new(shell).arg(check).arg(&script).output() {
            Ok(read) => assert!(read.status.success(), "{shell}: {}", String::from_utf8_lossy(&read.stderr)),
            Err(_) => skip(format_args!("no {shell} to read its completions")),
        }
    }
    let unknown = run(["completions", "csh"]).expect_code(2);
    assert!(unknown.stderr.contains("elvish"), "the shells that are known are named: {}", unknown.stderr);
}
