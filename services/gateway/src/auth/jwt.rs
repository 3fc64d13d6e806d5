//! Signed tokens (JWT, RFC 7519) of an identity provider, whose public keys a file holds (JWKS, RFC 7517).

use std::collections::HashMap;

use chorale_runtime::reload::{ReloadError, Reloaded};
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet},
};
use serde::Deserialize;

use super::Caller;
use crate::config::JwtConfig;

/// Signatures that only the holder of a private key can make. Shared secrets are not among them: who could verify could sign.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Verifies tokens.
pub(super) struct JwtVerifier {
    /// Keys by their ids, with the one algorithm that each is for.
    keys: HashMap<String, (DecodingKey, Algorithm)>,
    issuer: String,
    audience: String,
}

impl std::fmt::Debug for JwtVerifier {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { keys, issuer, audience } = self;
        formatter
            .debug_struct("JwtVerifier")
            .field("keys", &keys.keys())
            .field("issuer", issuer)
            .field("audience", audience)
            .finish()
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
}

impl JwtVerifier {
    pub(super) fn follow(config: &JwtConfig) -> Result<Reloaded<Self>, ReloadError> {
        let config = config.clone();
        Reloaded::follow("JWKS", vec![config.jwks_file.clone()], move |contents| {
            let content = contents.first().map(Vec::as_slice).unwrap_or_default();
            Self::new(content, &config).map_err(|message| ReloadError::content(&config.jwks_file, message))
        })
    }

    fn new(jwks: &[u8], config: &JwtConfig) -> Result<Self, String> {
        let set: JwkSet = serde_json::from_slice(jwks).map_err(|error| error.to_string())?;
        let mut keys = HashMap::new();
        for jwk in &set.keys {
            // Others are for encryption, or for signatures that are not taken.
            let (Some(id), Some(algorithm)) = (&jwk.common.key_id, algorithm_of(jwk)) else { continue };
            let key = DecodingKey::from_jwk(jwk).map_err(|error| format!("key {id}: {error}"))?;
            keys.insert(id.clone(), (key, algorithm));
        }
        if keys.is_empty() {
            return Err("expected a key with an id (`kid`) for signatures (RS, PS, ES or EdDSA), found none".to_owned());
        }
        Ok(Self { keys, issuer: config.issuer.clone(), audience: config.audience.clone() })
    }

    /// The subject of a token that is signed by a known key, for this audience, and neither expired nor for later.
    pub(super) fn caller(&self, token: &str) -> Result<Caller, String> {
        let header = decode_header(token).map_err(|error| error.to_string())?;
        let key = header.kid.as_ref().and_then(|id| self.keys.get(id));
        let (key, algorithm) = key.ok_or("no known key has signed it (`kid`)")?;
        // The algorithm is the key's: what the token says counts for nothing.
        let mut validation = Validation::new(*algorithm);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        let claims = decode::<Claims>(token, key, &validation).map_err(|error| error.to_string())?.claims;
        Ok(Caller::named("jwt", &claims.sub, None))
    }
}

/// What a key signs with: what it says itself, or else what is usual for its kind.
fn algorithm_of(jwk: &Jwk) -> Option<Algorithm> {
    let algorithm = match (jwk.common.key_algorithm, &jwk.algorithm) {
        (Some(named), _) => Algorithm::try_from(named).ok()?,
        (None, AlgorithmParameters::RSA(_)) => Algorithm::RS256,
        (None, AlgorithmParameters::EllipticCurve(key)) if key.curve == EllipticCurve::P384 => Algorithm::ES384,
        (None, AlgorithmParameters::EllipticCurve(_)) => Algorithm::ES256,
        (None, AlgorithmParameters::OctetKeyPair(_)) => Algorithm::EdDSA,
        (None, _) => return None,
    };
    ALGORITHMS.contains(&algorithm).then_some(algorithm)
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, time::SystemTime};

    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    // The example keys of RFC 8037, appendix A: the private one as RFC 8410 wraps it.
    const SECRET: &str = "302e020100300506032b657004220420\
                          9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    const PUBLIC: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    fn config() -> JwtConfig {
        let (issuer, audience) = ("https://login.example".to_owned(), "chorale".to_owned());
        JwtConfig { jwks_file: PathBuf::new(), issuer, audience }
    }

    fn keys() -> serde_json::Value {
        let ours = json!({"kty": "OKP", "crv": "Ed25519", "x": PUBLIC, "kid": "one"});
        let shared_secret = json!({"kty": "oct", "k": "c2VjcmV0", "kid": "two", "alg": "HS256"});
        json!({"keys": [ours, shared_secret]})
    }

    fn verifier() -> JwtVerifier {
        JwtVerifier::new(keys().to_string().as_bytes(), &config()).unwrap()
    }

    fn token(header: &Header, changes: &serde_json::Value) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({"sub": "studio", "iss": config().issuer, "aud": "chorale", "exp": now + 600});
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let key = match header.alg {
            Algorithm::HS256 => EncodingKey::from_secret(b"secret"),
            _ => {
                let digits = |at| u8::from_str_radix(&SECRET[at..at + 2], 16).unwrap();
                EncodingKey::from_ed_der(&(0..SECRET.len()).step_by(2).map(digits).collect::<Vec<_>>())
            }
        };
        encode(header, &claims, &key).unwrap()
    }

    fn header(kid: &str, algorithm: Algorithm) -> Header {
        Header { kid: Some(kid.to_owned()), ..Header::new(algorithm) }
    }

    #[test]
    fn a_token_that_the_provider_signed_names_its_caller() {
        let caller = verifier().caller(&token(&header("one", Algorithm::EdDSA), &json!({}))).unwrap();
        assert_eq!((&*caller.key, caller.is_tenant), ("jwt:studio", true));
    }

    #[test]
    fn a_token_for_others_or_of_another_time_or_without_a_good_signature_is_refused() {
        let ours = header("one", Algorithm::EdDSA);
        for changes in [
            json!({"exp": 1_000}),
            json!({"exp": null}),
            json!({"nbf": u32::MAX}),
            json!({"iss": "https://other.example"}),
            json!({"aud": "other"}),
            json!({"sub": null}),
        ] {
            let token = token(&ours, &changes);
            assert!(verifier().caller(&token).is_err(), "{changes}");
        }
        // Known keys alone, each with its own algorithm: no shared secrets, and not what the token says.
        for header in [header("two", Algorithm::HS256), header("one", Algorithm::HS256), header("x", Algorithm::EdDSA)]
        {
            assert!(verifier().caller(&token(&header, &json!({}))).is_err(), "{header:?}");
        }
        let mut forged = token(&ours, &json!({}));
        forged.replace_range(forged.len() - 4.., "AAAA");
        assert!(verifier().caller(&forged).is_err());
        for garbage in ["", "x", "a.b.c", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJzdHVkaW8ifQ."] {
            assert!(verifier().caller(garbage).is_err(), "{garbage}");
        }
    }

    #[test]
    fn a_key_set_without_a_key_for_signatures_is_refused() {
        for unusable in
            ["", "{}", "{\"keys\": []}", "{\"keys\": [{\"kty\": \"oct\", \"k\": \"c2VjcmV0\", \"kid\": \"two\"}]}"]
        {
            assert!(JwtVerifier::new(unusable.as_bytes(), &config()).is_err(), "{unusable}");
        }
    }
}
