//! Words in a picture: what may stand there, and how much room it takes.

/// About how wide `text` is in a proportional font of `size` pixels.
#[must_use]
pub fn width_of(text: &str, size: f64) -> i32 {
    (text.chars().count() as f64 * size * 0.54).ceil() as i32
}

/// At most `letters` letters of a name, none of which would break a document.
#[must_use]
pub fn shorten(name: &str, letters: usize) -> String {
    let name = printable(name);
    if name.chars().count() <= letters {
        return name;
    }
    let kept: String = name.chars().take(letters.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// The text, with a sign in place of every character that XML forbids.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|letter| match letter {
            '\u{fffe}' | '\u{ffff}' => char::REPLACEMENT_CHARACTER,
            _ if letter.is_control() => char::REPLACEMENT_CHARACTER,
            _ => letter,
        })
        .collect()
}

/// A time as a clock shows it: `1:02:03`, `2:03`.
#[must_use]
pub fn clock(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    if whole >= 3_600 {
        return format!("{}:{:02}:{:02}", whole / 3_600, whole / 60 % 60, whole % 60);
    }
    format!("{}:{:02}", whole / 60, whole % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_end_early() {
        assert_eq!(shorten("classical", 9), "classical");
        assert_eq!(shorten("drum and bass", 6), "drum…");
    }

    #[test]
    fn times_are_read_from_a_clock() {
        let times = [0.0, 59.4, 59.5, 3_599.0, 3_661.0, -1.0, f64::NAN].map(clock);
        assert_eq!(times, ["0:00", "0:59", "1:00", "59:59", "1:01:01", "0:00", "0:00"]);
    }
}
