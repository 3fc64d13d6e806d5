//! `chorale token`: a new bearer token for a caller, and the entry that lets it in.

use crate::{cli::TokenArguments, exit::Exit};

pub(crate) fn run(arguments: &TokenArguments) -> anyhow::Result<Exit> {
    // 256 bits of the operating system's randomness: nobody guesses it, so that its hash need not be slow.
    let token = blake3::Hash::from_bytes(rand::random()).to_hex();
    let hash = blake3::hash(token.as_bytes());
    let caller = toml::Value::from(arguments.caller.as_str());
    anstream::println!("{token}");
    anstream::eprintln!(
        "The token of {caller} stands above; it is not kept anywhere. Add this to gateway.auth.callers_file:\n\n\
         [{caller}]\ntoken_blake3 = \"{hash}\"\n\n\
         The caller sends `authorization: Bearer TOKEN`; `chorale classify` takes it from --token-file or CHORALE_TOKEN."
    );
    Ok(Exit::Done)
}
