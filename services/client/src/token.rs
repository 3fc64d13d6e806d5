//! The bearer token by which a gateway knows a caller.

use std::{env, fs, path::Path};

use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
};

use crate::ClientError;

/// The environment variable with the bearer token.
const VARIABLE: &str = "CHORALE_TOKEN";

/// A bearer token. Its value is in no log.
#[derive(Debug, Clone)]
pub struct BearerToken(MetadataValue<Ascii>);

impl BearerToken {
    /// The token in `file`, or that of the environment variable `CHORALE_TOKEN`, or none.
    ///
    /// # Errors
    /// If the file cannot be read, or a header cannot carry what it holds.
    pub fn find(file: Option<&Path>) -> Result<Option<Self>, ClientError> {
        let place = file.unwrap_or(Path::new(VARIABLE));
        let error = |why| ClientError::Token { place: place.to_owned(), why };
        let text = match file {
            Some(path) => Some(fs::read_to_string(path).map_err(|source| error(source.to_string()))?),
            None => env::var(VARIABLE).ok(),
        };
        let Some(token) = text.as_deref().map(str::trim).filter(|token| !token.is_empty()) else { return Ok(None) };
        // The parser's error would repeat the token.
        let unfit = |_| error("it holds characters that a header cannot carry; is it the right file?".to_owned());
        let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().map_err(unfit)?;
        value.set_sensitive(true);
        Ok(Some(Self(value)))
    }

    /// Says in `request` who calls.
    pub fn sign<T>(&self, request: &mut Request<T>) {
        request.metadata_mut().insert("authorization", self.0.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_without_its_line_end_and_shown_to_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "s3cret\n").unwrap();
        let token = BearerToken::find(Some(&path)).unwrap().unwrap();
        let mut request = Request::new(());
        token.sign(&mut request);
        assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer s3cret");
        assert!(!format!("{token:?}").contains("s3cret"));

        fs::write(&path, "s3cret\u{7}").unwrap();
        let error = BearerToken::find(Some(&path)).unwrap_err().to_string();
        assert!(error.contains("a header cannot carry") && !error.contains("s3cret"), "{error}");
        fs::write(&path, "\n").unwrap();
        assert!(BearerToken::find(Some(&path)).unwrap().is_none());
    }
}
