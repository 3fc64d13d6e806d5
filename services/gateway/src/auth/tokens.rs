//! The callers that a file names, each with the hashes of its tokens.
//!
//! ```toml
//! [studio]
//! token_blake3 = "2f0e…"      # or a list, while one token replaces another
//! max_streams = 100           # optional
//! ```
//!
//! Tokens are long and random, so that a plain hash of one gives nothing away: who reads the file cannot call.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use chorale_runtime::reload::{ReloadError, Reloaded};
use serde::Deserialize;

use super::Caller;

/// The longest name of a caller, in bytes.
const MAX_NAME: usize = 100;

/// Callers by the hashes of their tokens.
#[derive(Debug)]
pub(super) struct Tokens(HashMap<blake3::Hash, Caller>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    token_blake3: Hashes,
    max_streams: Option<u32>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected the BLAKE3 hash of a token in hexadecimal, or a list of such")]
enum Hashes {
    One(String),
    Many(Vec<String>),
}

impl Tokens {
    pub(super) fn follow(path: &Path) -> Result<Reloaded<Self>, ReloadError> {
        let file = PathBuf::from(path);
        Reloaded::follow("callers", vec![file.clone()], move |contents| {
            let text = contents.first().and_then(|content| std::str::from_utf8(content).ok());
            let text = text.ok_or_else(|| ReloadError::content(&file, "expected UTF-8 text"))?;
            Self::parse(text).map_err(|message| ReloadError::content(&file, message))
        })
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let entries: BTreeMap<String, Entry> = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        let mut callers = HashMap::new();
        for (name, Entry { token_blake3, max_streams }) in entries {
            let fits = (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic());
            if !fits {
                return Err(format!("[{name}]: expected a name of 1 to {MAX_NAME} visible ASCII characters"));
            }
            if max_streams == Some(0) {
                return Err(format!("[{name}]: max_streams: expected at least 1, found 0"));
            }
            let hashes = match token_blake3 {
                Hashes::One(hash) => vec![hash],
                Hashes::Many(hashes) => hashes,
            };
            let caller = Caller::named("token", &name, max_streams);
            for hash in hashes {
                // What was found may be a token: it is not repeated.
                let hash = blake3::Hash::from_hex(hash.trim())
                    .map_err(|_| format!("[{name}]: token_blake3: expected 64 hexadecimal digits"))?;
                if callers.insert(hash, caller.clone()).is_some() {
                    return Err(format!("[{name}]: token_blake3: another entry has the same token"));
                }
            }
        }
        Ok(Self(callers))
    }

    /// Whose token it is. Only hashes are compared, which says nothing about how near a guess is.
    pub(super) fn caller(&self, token: &str) -> Option<Caller> {
        self.0.get(&blake3::hash(token.as_bytes())).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_may_have_two_tokens_and_a_limit_of_its_own() {
        let (old, new) = (blake3::hash(b"old"), blake3::hash(b"new"));
        let tokens = Tokens::parse(&format!("[studio]\ntoken_blake3 = ['{old}', '{new}']\nmax_streams = 3\n")).unwrap();
        assert_eq!(tokens.caller("old"), tokens.caller("new"));
        assert_eq!(tokens.caller("new").unwrap().max_streams, Some(3));
    }

    #[test]
    fn what_does_not_fit_is_named_and_never_repeated() {
        let hash = blake3::hash(b"token");
        let refused = |text: &str| Tokens::parse(text).unwrap_err();
        let token = refused("[studio]\ntoken_blake3 = 'sesame'\n");
        assert!(token.contains("studio") && !token.contains("sesame"), "{token}");
        assert!(refused("[studio]\ntoken = 'sesame'\n").contains("token"));
        assert!(!refused("[studio]\ntoken = 'sesame'\n").contains("sesame"));
        assert!(refused(&format!("[studio]\ntoken_blake3 = '{hash}'\nmax_streams = 0\n")).contains("max_streams"));
        assert!(refused(&format!("['a b']\ntoken_blake3 = '{hash}'\n")).contains("visible"));
        let twice = format!("[a]\ntoken_blake3 = '{hash}'\n[b]\ntoken_blake3 = '{hash}'\n");
        assert!(refused(&twice).contains("[b]"));
    }
}
