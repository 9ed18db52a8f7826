//! What a connection says that failed because two nodes disagree about the time.

use std::io;

use rustls::{CertificateError, Error, pki_types::UnixTime};
use weft_types::Timestamp;

/// The failure in words that tell of clocks, where a certificate is of another time than this node's; else as it is.
pub(crate) fn named(failure: io::Error) -> io::Error {
    let inner = failure.get_ref().and_then(|inner| inner.downcast_ref());
    match inner.and_then(words) {
        Some(words) => io::Error::new(failure.kind(), words),
        None => failure,
    }
}

fn words(error: &Error) -> Option<String> {
    let (now, bound) = match error {
        Error::InvalidCertificate(CertificateError::NotValidYetContext { time, not_before }) => {
            (time, format!("begins at {}", moment(*not_before)))
        }
        Error::InvalidCertificate(CertificateError::ExpiredContext { time, not_after }) => {
            (time, format!("ended at {}", moment(*not_after)))
        }
        _ => return None,
    };
    Some(format!(
        "its certificate {bound}, and this node's clock says {}: set the clocks of both right",
        moment(*now)
    ))
}

fn moment(time: UnixTime) -> Timestamp {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Timestamp(seconds.saturating_mul(1_000_000_000))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_certificate_of_another_time_is_told_of_by_both_times() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let told = |error| named(io::Error::new(io::ErrorKind::InvalidData, error)).to_string();
        let early = told(Error::InvalidCertificate(
            CertificateError::NotValidYetContext {
                time: at(1_795_297_327),
                not_before: at(1_795_300_890),
            },
        ));
        for word in [
            "begins at 2026-11-21T22:41:30",
            "clock says 2026-11-21T21:42:07",
            "set the clocks",
        ] {
            assert!(early.contains(word), "{word:?} is not in: {early}");
        }
        let late = told(Error::InvalidCertificate(
            CertificateError::ExpiredContext {
                time: at(1_803_944_543),
                not_after: at(1_803_080_490),
            },
        ));
        assert!(late.contains("ended at 2027-02-19T23:41:30"), "{late}");
        // Anything else is told as it was.
        let other = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        assert_eq!(told(other.clone()), other.to_string());
    }
}
