//! How long a caller waits.

use std::time::Duration;

use tonic::metadata::MetadataMap;

/// A caller who waits for longer has no deadline: a hundred years. Not every part of the transport can tell such times.
pub const LONGEST_TIMEOUT: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// The `grpc-timeout` that a caller sent, if it sent a valid one.
#[must_use]
pub fn timeout_of(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    // The protocol allows at most eight digits, which also keeps the products below in range.
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3_600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout(text: &'static str) -> Option<Duration> {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", text.parse().unwrap());
        timeout_of(&metadata)
    }

    #[test]
    fn reads_what_the_protocol_allows_and_nothing_else() {
        assert_eq!(timeout("100m"), Some(Duration::from_millis(100)));
        assert_eq!(timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        assert_eq!(timeout("5S"), Some(Duration::from_secs(5)));
        for wrong in ["", "m", "-1S", "1.5S", "999999999S", "5X", "5"] {
            assert_eq!(timeout(wrong), None, "{wrong}");
        }
        assert_eq!(timeout_of(&MetadataMap::new()), None);
    }
}
