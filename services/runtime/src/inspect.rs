//! What a process tells an engineer of its state: views by name, as JSON, on the admin port.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;
use serde_json::Value;
use url::Url;

/// What stands where a secret was.
const MASK: &str = "***";

type View = Arc<dyn Fn() -> Value + Send + Sync>;

/// The views of one process. Cheap to clone.
#[derive(Clone, Default)]
pub struct Views {
    views: Arc<Mutex<BTreeMap<&'static str, View>>>,
}

impl Views {
    /// Shows what `view` returns under `name`, whenever somebody looks.
    pub fn show<T: Serialize>(&self, name: &'static str, view: impl Fn() -> T + Send + Sync + 'static) {
        let view = move || serde_json::to_value(view()).unwrap_or_else(|error| Value::String(error.to_string()));
        self.views.lock().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::new(view));
    }

    /// The names of all views.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// What the view `name` shows now, if there is one.
    #[must_use]
    pub fn look(&self, name: &str) -> Option<Value> {
        let view = self.views.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()?;
        Some(view())
    }
}

impl fmt::Debug for Views {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Views").field(&self.names()).finish()
    }
}

/// A configuration as it may be shown: what a URL says of who asks is masked. All other secrets are in files, which are named
/// only.
#[must_use]
pub fn masked(config: &impl Serialize) -> Value {
    let mut value = serde_json::to_value(config).unwrap_or_else(|error| Value::String(error.to_string()));
    mask(&mut value);
    value
}

fn mask(value: &mut Value) {
    match value {
        Value::String(text) => {
            let Ok(mut url) = Url::parse(text) else { return };
            if url.password().is_some() || !url.username().is_empty() {
                let masked = url.set_username(MASK).and_then(|()| url.set_password(None));
                *text = if masked.is_ok() { url.to_string() } else { MASK.to_owned() };
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask),
        Value::Object(fields) => fields.values_mut().for_each(mask),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_view_shows_what_is_so_now() {
        let views = Views::default();
        let count = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&count);
        views.show("count", move || {
            let mut count = counted.lock().unwrap();
            *count += 1;
            *count
        });
        assert_eq!((views.look("count"), views.look("count")), (Some(json!(1)), Some(json!(2))));
        assert_eq!((views.names(), views.look("nothing")), (vec!["count"], None));
    }

    #[test]
    fn no_url_shows_who_asks() {
        let config =
            json!({"a": [{"url": "redis://user:secret@redis:6379/1"}], "b": "redis://:secret@redis", "c": "x:y"});
        let shown = masked(&config);
        assert!(!shown.to_string().contains("secret"), "{shown}");
        assert_eq!(shown["a"][0]["url"], "redis://***@redis:6379/1");
        assert_eq!(shown["c"], "x:y");
    }
}
