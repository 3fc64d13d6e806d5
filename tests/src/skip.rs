//! What a tester should see, whatever the test runner captures.

use std::{env, fmt::Display, io::Write, thread};

/// Says something on the terminal.
pub fn note(text: impl Display) {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    // Nobody reads a closed terminal.
    let _ = writeln!(std::io::stderr(), "{test}: {text}");
}

/// Says that a test leaves something out, and why.
pub fn skip(why: impl Display) {
    note(format_args!("skipped, {why}"));
}

/// Says that a test is left out for want of a tool.
///
/// `tests/run` installs what tests need and sets `CHORALE_TESTS_REQUIRE_TOOLS`: then a missing tool fails the test.
pub fn skip_without_tool(tool: &str, how: &str) {
    assert!(env::var_os("CHORALE_TESTS_REQUIRE_TOOLS").is_none(), "{tool} is needed: {how}");
    skip(format_args!("no {tool} ({how}; or let tests/run do it)"));
}
