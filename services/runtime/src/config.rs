//! Configuration: defaults, then a TOML file, then the environment, then flags; the later one wins.

use std::path::Path;

pub use figment::value::Value;
use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use serde::{Serialize, de::DeserializeOwned};

/// The start of every environment variable that configures Chorale: `CHORALE_GATEWAY__CACHE__TTL=1h` sets
/// `gateway.cache.ttl`.
pub const ENVIRONMENT_PREFIX: &str = "CHORALE_";

/// A configuration that cannot be used. Its text names the key and where the value came from.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value of the wrong type, or a key that does not exist.
    #[error("configuration: {0}")]
    Invalid(#[from] Box<figment::Error>),
    /// No such file.
    #[error("configuration file {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why it cannot be read.
        source: std::io::Error,
    },
}

/// Loads a configuration of type `T`.
///
/// `flags` holds what the command line said, by dotted key, and wins over everything.
///
/// # Errors
/// If the file cannot be read, a key is unknown, or a value does not fit.
pub fn load<T>(file: Option<&Path>, flags: &[(&str, Value)]) -> Result<T, ConfigError>
where
    T: Serialize + DeserializeOwned + Default,
{
    let mut figment = Figment::from(Serialized::defaults(T::default()));
    if let Some(path) = file {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::File { path: path.display().to_string(), source })?;
        figment = figment.merge(Toml::string(&text));
    }
    // Only sections are configuration: a variable without `__` (`CHORALE_BIN`) belongs to somebody else.
    figment = figment.merge(Env::prefixed(ENVIRONMENT_PREFIX).filter(|key| key.as_str().contains("__")).split("__"));
    for (key, value) in flags {
        figment = figment.merge(Serialized::default(key, value));
    }
    figment.extract().map_err(|error| Box::new(error).into())
}

/// Reads TOML that is no configuration of a process: neither defaults nor the environment change it.
///
/// # Errors
/// If the text is no TOML, a key is unknown, or a value does not fit.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, ConfigError> {
    Figment::from(Toml::string(text)).extract().map_err(|error| Box::new(error).into())
}

/// A flag's value for [`load`].
///
/// # Errors
/// If the value cannot be represented, which no flag's type allows.
pub fn flag_value(value: impl Serialize) -> Result<Value, ConfigError> {
    Value::serialize(value).map_err(|error| Box::new(error).into())
}

/// The value that `text` means, as in an environment variable: a number, true or false, a list in brackets, or else itself.
#[must_use]
pub fn text_value(text: &str) -> Value {
    match text.parse() {
        Ok(value) => value,
        // Figment's parser accepts any text.
        Err(never) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Serialize, Deserialize, PartialEq, Default)]
    #[serde(deny_unknown_fields, default)]
    struct Config {
        cache: Cache,
    }

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Cache {
        #[serde(with = "humantime_serde")]
        ttl: Duration,
        size: bytesize::ByteSize,
    }

    impl Default for Cache {
        fn default() -> Self {
            Self { ttl: Duration::from_secs(1), size: bytesize::ByteSize::mib(1) }
        }
    }

    fn load_text(text: &str, flags: &[(&str, Value)]) -> Result<Config, ConfigError> {
        // Tests run at the same time: every one has a file of its own.
        static FILES: AtomicUsize = AtomicUsize::new(0);
        let file = FILES.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("chorale-config-{}-{file}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let config = load(Some(&path), flags);
        std::fs::remove_file(&path).unwrap();
        config
    }

    #[test]
    fn durations_and_sizes_carry_units_and_flags_win() {
        let config = load_text("[cache]\nttl = '1h 30m'\nsize = '2 GiB'\n", &[]).unwrap();
        assert_eq!(config.cache.ttl, Duration::from_secs(5_400));
        assert_eq!(config.cache.size, bytesize::ByteSize::gib(2));
        let flags = [("cache.ttl", flag_value("5s").unwrap())];
        assert_eq!(load_text("[cache]\nttl = '1h'\n", &flags).unwrap().cache.ttl, Duration::from_secs(5));
    }

    #[test]
    fn an_unknown_key_or_a_missing_unit_is_an_error_that_names_it() {
        let unknown = load_text("[cache]\ntll = '1h'\n", &[]).unwrap_err().to_string();
        assert!(unknown.contains("tll") && unknown.contains("ttl"), "{unknown}");
        let unitless = load_text("[cache]\nttl = 'often'\n", &[]).unwrap_err().to_string();
        assert!(unitless.contains("cache.ttl"), "{unitless}");
        assert!(load::<Config>(Some(Path::new("/no/such/file.toml")), &[]).is_err());
    }
}
