//! Whom a certificate names.

use rustls::pki_types::CertificateDer;
use x509_parser::parse_x509_certificate;
use x509_parser::prelude::GeneralName;

/// Returns whom a certificate names: the first URI of its alternative names, without one the first
/// DNS name, and without that the common name (CN). `None` if it names nobody, or is illegal.
///
/// Whether the certificate is to be believed must have been checked before.
pub fn subject(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = parse_x509_certificate(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()?;
    let names = names.as_ref().map_or(&[][..], |it| &it.value.general_names);
    let uri = names.iter().find_map(as_uri);
    let dns = || names.iter().find_map(as_dns_name);
    let common = || parsed.subject().iter_common_name().next()?.as_str().ok();
    uri.or_else(dns).or_else(common).map(str::to_owned)
}

fn as_uri<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    if let GeneralName::URI(uri) = name { Some(uri) } else { None }
}

fn as_dns_name<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    if let GeneralName::DNSName(dns) = name { Some(dns) } else { None }
}
