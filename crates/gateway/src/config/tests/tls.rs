//! Certificates and keys that cannot be used: each refusal names the file.

use super::*;
use rcgen::{CertificateParams, KeyPair};

/// A certificate for `name` that vouches for itself, and its key.
fn certified(name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let directory = tempfile::tempdir().unwrap();
    for number in [1, 2] {
        let (certificate, key) = certified("a.test");
        fs::write(directory.path().join(format!("cert{number}.pem")), certificate).unwrap();
        fs::write(directory.path().join(format!("key{number}.pem")), key).unwrap();
    }
    fs::write(directory.path().join("empty.pem"), "").unwrap();
    let file = directory.path().join("systole.toml");
    let read = |certificate: &str, key: &str, more: &str| {
        let text = format!(
            "[[listener]]\naddress = \"127.0.0.1:9\"\nanonymous = true\n\
             certificate = {certificate}\nkey = {key}\n{more}"
        );
        let read = Config::load(&text, &file.display().to_string(), &Overrides::default());
        read.map(drop).map_err(|error| error.problems()[0].what.clone())
    };
    assert_eq!(read("\"cert1.pem\"", "\"key1.pem\"", ""), Ok(()));
    for (certificate, key, more, expected) in [
        ("\"cert2.pem\"", "\"key1.pem\"", "", "key1.pem is not the key of cert2.pem"),
        (
            "[\"cert1.pem\", \"cert2.pem\"]",
            "[\"key1.pem\", \"key1.pem\"]",
            "",
            "key1.pem is not the key of cert2.pem",
        ),
        (
            "\"cert1.pem\"",
            "\"empty.pem\"",
            "",
            "the file empty.pem: no private key in it (BEGIN PRIVATE KEY)",
        ),
        (
            "\"empty.pem\"",
            "\"key1.pem\"",
            "",
            "the file empty.pem: no certificate in it (BEGIN CERTIFICATE)",
        ),
        (
            "\"cert1.pem\"",
            "\"key1.pem\"",
            "client_roots = \"key2.pem\"\n",
            "the file key2.pem: no certificate in it (BEGIN CERTIFICATE)",
        ),
    ] {
        assert_eq!(read(certificate, key, more), Err(expected.to_owned()));
    }
}
