//! What a certificate says of itself: whom it names, and from when to when.

use rustls::pki_types::CertificateDer;
use x509_parser::parse_x509_certificate;
use x509_parser::prelude::GeneralName;
use x509_parser::time::ASN1Time;

/// What a certificate says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateFacts {
    /// The hosts that it names (DNS names and addresses); without any, the common name.
    pub names: Vec<String>,
    /// The day from which it is valid (UTC), as in 2026-12-27.
    pub from: String,
    /// The day on which it expires.
    pub until: String,
    /// The seconds since 1970-01-01 UTC at which it becomes valid, and at which it expires.
    valid: (i64, i64),
}

/// Whether a certificate is valid at some time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Validity {
    /// It is not valid yet.
    NotYet,
    /// It is valid.
    Valid,
    /// It is no longer valid.
    Expired,
}

impl CertificateFacts {
    /// Reads a certificate; `None` if it is illegal.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<CertificateFacts> {
        let (_, parsed) = parse_x509_certificate(certificate).ok()?;
        let alternative = parsed.subject_alternative_name().ok()?;
        let alternative = alternative.as_ref().map_or(&[][..], |it| &it.value.general_names);
        let mut names: Vec<String> = alternative.iter().filter_map(host).collect();
        if names.is_empty() {
            let common = parsed.subject().iter_common_name().filter_map(|it| it.as_str().ok());
            names.extend(common.map(str::to_owned));
        }
        let validity = parsed.validity();
        let (from, until) = (validity.not_before, validity.not_after);
        let valid = (from.timestamp(), until.timestamp());
        Some(CertificateFacts { names, from: day(from), until: day(until), valid })
    }

    /// Returns whether it is valid at a time, in milliseconds since 1970-01-01 UTC.
    pub fn validity_at(&self, wall_ms: u64) -> Validity {
        let now = i64::try_from(wall_ms / 1_000).unwrap_or(i64::MAX);
        let (from, until) = self.valid;
        if now < from {
            Validity::NotYet
        } else if now > until {
            Validity::Expired
        } else {
            Validity::Valid
        }
    }
}

fn day(time: ASN1Time) -> String {
    time.to_datetime().date().to_string()
}

fn host(name: &GeneralName<'_>) -> Option<String> {
    if let GeneralName::DNSName(dns) = name {
        return Some((*dns).to_owned());
    }
    let GeneralName::IPAddress(bytes) = name else { return None };
    let four = <[u8; 4]>::try_from(*bytes).map(|it| std::net::IpAddr::from(it).to_string());
    let sixteen = || <[u8; 16]>::try_from(*bytes).map(|it| std::net::IpAddr::from(it).to_string());
    four.or_else(|_| sixteen()).ok()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    use super::*;

    fn facts(names: &[&str], common: &str) -> CertificateFacts {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common);
        params.not_before = date_time_ymd(2026, 11, 27);
        params.not_after = date_time_ymd(2026, 12, 27);
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        CertificateFacts::of(made.der()).unwrap()
    }

    #[test]
    fn names_and_days_are_those_of_the_certificate() {
        let found = facts(&["a.test", "*.b.test", "192.0.2.1", "2001:db8::1"], "c.test");
        assert_eq!(found.names, ["a.test", "*.b.test", "192.0.2.1", "2001:db8::1"]);
        assert_eq!((&*found.from, &*found.until), ("2026-11-27", "2026-12-27"));
        assert_eq!(facts(&[], "c.test").names, ["c.test"]);
        assert_eq!(CertificateFacts::of(&CertificateDer::from(vec![0x30, 0])), None);
    }

    #[test]
    fn it_is_valid_from_its_first_second_to_its_last() {
        let found = facts(&["a.test"], "a");
        let (from, until) = (1_795_737_600_000, 1_798_329_600_000);
        for (at, expected) in [
            (0, Validity::NotYet),
            (from - 1, Validity::NotYet),
            (from, Validity::Valid),
            (until, Validity::Valid),
            (until + 1_000, Validity::Expired),
            (u64::MAX, Validity::Expired),
        ] {
            assert_eq!(found.validity_at(at), expected, "{at}");
        }
    }
}
