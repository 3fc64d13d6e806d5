//! Which share of a playlist each genre has, and the order of genres in which every beginning has these shares as well.

use std::str::FromStr;

use crate::{LibraryError, tagging::same_genre};

/// Shares may be rounded: "33 % jazz, 33 % blues, 33 % rock".
const ROUNDING: f64 = 1.5;
const MAX_GENRES: usize = 100;

/// Genres with their shares, which add up to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Mix(Vec<(String, f64)>);

impl FromStr for Mix {
    type Err = LibraryError;

    /// Reads `70 % jazz, 30 % blues`, or `2 jazz, 1 blues`; the number may come last.
    fn from_str(text: &str) -> Result<Self, LibraryError> {
        let parts: Vec<&str> = text.split([',', ';', '+']).map(str::trim).filter(|part| !part.is_empty()).collect();
        if parts.is_empty() || parts.len() > MAX_GENRES {
            return Err(wrong(format!("expected one to {MAX_GENRES} genres, found {}", parts.len())));
        }
        let parts = parts.into_iter().map(part).collect::<Result<Vec<_>, _>>()?;
        let percentages = parts.iter().filter(|part| part.is_percentage).count();
        let total: f64 = parts.iter().map(|part| part.amount).sum();
        if percentages != 0 && percentages != parts.len() {
            return Err(wrong("expected a percentage for each genre or for none".to_owned()));
        }
        if percentages != 0 && (total - 100.0).abs() > ROUNDING {
            return Err(wrong(format!("expected percentages that add up to 100, found {total}")));
        }
        for (index, part) in parts.iter().enumerate() {
            if parts.iter().skip(index + 1).any(|other| same_genre(&part.genre, &other.genre)) {
                return Err(wrong(format!("expected each genre once, found {} again", part.genre)));
            }
        }
        Ok(Self(parts.into_iter().map(|part| (part.genre, part.amount / total)).collect()))
    }
}

struct Part {
    genre: String,
    amount: f64,
    is_percentage: bool,
}

fn part(text: &str) -> Result<Part, LibraryError> {
    let expected = || wrong(format!("expected a share and a genre, as in `70 % jazz`, found {text:?}"));
    let is_number = |character: char| character.is_ascii_digit() || character == '.' || character == '%';
    let is_edge =
        |character: char| is_number(character) || character.is_whitespace() || character == ':' || character == '=';
    let genre = text.trim_matches(is_edge);
    let number: String = match text.split_once(genre) {
        Some((before, after)) if !genre.is_empty() => format!("{before}{after}"),
        _ => return Err(expected()),
    };
    let digits: String = number.chars().filter(|character| is_number(*character) && *character != '%').collect();
    let amount: f64 = digits.parse().map_err(|_| expected())?;
    if !(amount > 0.0 && amount <= 1e6) {
        return Err(wrong(format!("expected a share above 0, found {text:?}")));
    }
    Ok(Part { genre: genre.to_owned(), amount, is_percentage: number.contains('%') })
}

fn wrong(what: String) -> LibraryError {
    LibraryError::Mix(what)
}

impl Mix {
    /// The genres, each with its share.
    #[must_use]
    pub fn shares(&self) -> &[(String, f64)] {
        &self.0
    }

    /// The place of the genre in the mix that comes next, after `counts` tracks of each: the one that is most behind.
    pub(crate) fn next(&self, counts: &[usize]) -> usize {
        let length = counts.iter().sum::<usize>() as f64 + 1.0;
        let behind = |place: usize| {
            let (share, count) = (self.0.get(place).map_or(0.0, |(_, share)| *share), counts.get(place).copied());
            share * length - count.unwrap_or_default() as f64
        };
        let places = 0..self.0.len();
        // Of equal ones the first: `max_by` takes the last.
        places.rev().max_by(|&one, &other| behind(one).total_cmp(&behind(other))).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shares(text: &str) -> Vec<(String, u32)> {
        let mix: Mix = text.parse().unwrap();
        mix.shares().iter().map(|(genre, share)| (genre.clone(), (share * 100.0).round() as u32)).collect()
    }

    #[test]
    fn people_write_mixes_in_their_own_ways() {
        let expected = [("jazz".to_owned(), 70), ("blues".to_owned(), 30)];
        for text in [
            "70 % jazz, 30 % blues",
            "70%jazz,30%blues",
            "jazz 70 %; blues 30 %",
            "jazz: 7, blues: 3",
            "7 jazz + 3 blues",
        ] {
            assert_eq!(shares(text), expected, "{text}");
        }
        assert_eq!(shares("33 % a, 33 % b, 33 % c")[2].1, 33);
        assert_eq!(shares("1 lo-fi house")[0].0, "lo-fi house");
    }

    #[test]
    fn what_is_no_mix_is_refused_with_what_was_expected() {
        let wrong = [
            ("", "one to 100"),
            ("jazz", "a share and a genre"),
            ("70 %", "a share and a genre"),
            ("70 % jazz, 40 % blues", "add up to 100, found 110"),
            ("70 % jazz, 3 blues", "for each genre or for none"),
            ("0 jazz", "above 0"),
            ("1 jazz, 2 Jazz", "each genre once"),
            ("1.2.3 jazz", "a share and a genre"),
        ];
        for (text, expected) in wrong {
            let error = text.parse::<Mix>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn every_beginning_has_the_shares_to_within_a_track(weights in proptest::collection::vec(1_u32..100, 2..6)) {
            let text: Vec<String> = weights.iter().enumerate().map(|(place, weight)| format!("{weight} g{place}x")).collect();
            let mix: Mix = text.join(", ").parse().unwrap();
            let mut counts = vec![0; weights.len()];
            for length in 1..200_usize {
                let next = mix.next(&counts);
                counts[next] += 1;
                for (count, (_, share)) in counts.iter().zip(mix.shares()) {
                    let away = (*count as f64 - share * length as f64).abs();
                    // Two genres stay within one track; more of them can be behind at a time.
                    prop_assert!(away < 1.0 + (weights.len() - 2) as f64 * 0.5, "{counts:?} of {length}");
                }
            }
        }

        #[test]
        fn no_text_breaks_the_reader(text in "[0-9a-c%. ,:;+=é]{0,40}") {
            let _ = text.parse::<Mix>();
        }
    }
}
