//! Why files have no verdict: which reasons last, and what they mean in words.

use chorale_client::{ClientError, Reason};

/// The file was changed while it was read.
pub(crate) const CHANGING: &str = "CHANGING";

/// The name of the reason: that of `google.rpc.ErrorInfo` where a server said no, that of a gRPC code where the file cannot be
/// read.
pub(crate) fn code_of(error: &ClientError) -> &'static str {
    match error {
        ClientError::Server(failure) => failure.reason.name(),
        other => other.code(),
    }
}

/// True if `error` is about the file. Otherwise no other file would fare better: the server is away, or refuses this caller.
pub(crate) fn is_of_file(error: &ClientError) -> bool {
    match error {
        ClientError::Read(_) => true,
        ClientError::Server(failure) => {
            use Reason::{DeadlineExceeded, DigestMismatch, Internal};
            is_lasting(failure.reason.name()) || [DeadlineExceeded, DigestMismatch, Internal].contains(&failure.reason)
        }
        _ => false,
    }
}

/// True if a file that failed for this reason will fail again as long as it is the same.
pub(crate) fn is_lasting(code: &str) -> bool {
    use Reason::{AudioEmpty, AudioTooShort, AudioUnreadable, AudioUnsupported, LimitExceeded};
    let lasting = [AudioEmpty, AudioTooShort, AudioUnreadable, AudioUnsupported, LimitExceeded];
    lasting.iter().any(|reason| reason.name() == code)
}

/// What the reason with this name means, in a few words.
#[must_use]
pub fn failure_title(code: &str) -> &'static str {
    match code {
        "AUDIO_EMPTY" => "empty",
        "AUDIO_TOO_SHORT" => "shorter than a second",
        "AUDIO_UNREADABLE" => "damaged: nothing in it can be decoded",
        "AUDIO_UNSUPPORTED" => "no audio, or in a format that is not read",
        "LIMIT_EXCEEDED" => "over a limit of the server",
        "DEADLINE_EXCEEDED" => "took longer than --timeout",
        "PERMISSION_DENIED" => "this user may not read them",
        "NOT_FOUND" => "not there",
        CHANGING | "DIGEST_MISMATCH" => "changed while they were read",
        "INTERNAL" => "failed in the server",
        _ => "could not be read",
    }
}

#[cfg(test)]
mod tests {
    use chorale_client::Failure;

    use super::*;

    #[test]
    fn a_file_is_not_blamed_for_a_server_that_is_away() {
        let server = |reason| ClientError::from(Failure::new(reason, ""));
        for own in [Reason::AudioTooShort, Reason::LimitExceeded, Reason::DeadlineExceeded, Reason::Internal] {
            assert!(is_of_file(&server(own)), "{own}");
        }
        for other in [Reason::Unauthenticated, Reason::DependencyUnavailable, Reason::ModelUnknown, Reason::Overloaded]
        {
            assert!(!is_of_file(&server(other)), "{other}");
        }
        assert!(is_of_file(&std::io::Error::from(std::io::ErrorKind::NotFound).into()));
    }

    #[test]
    fn only_what_the_file_itself_is_to_blame_for_lasts() {
        assert!(is_lasting("AUDIO_UNSUPPORTED"));
        for passing in ["PERMISSION_DENIED", CHANGING, "DEADLINE_EXCEEDED", "INTERNAL", ""] {
            assert!(!is_lasting(passing), "{passing}");
        }
    }
}
