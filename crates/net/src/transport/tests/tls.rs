//! TLS in memory: what one end says is what the other hears, wherever the bytes are cut.

use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion, version};

use super::super::Tls;
use super::*;

/// The configurations of both ends.
#[derive(Clone)]
pub(super) struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Configs {
    /// Returns the same with a server that sends records of at most `len` bytes.
    pub(super) fn with_records_of(mut self, len: usize) -> Configs {
        Arc::make_mut(&mut self.server).max_fragment_size = Some(len);
        self
    }
}

pub(super) fn configs(version: &'static SupportedProtocolVersion, with_client: bool) -> Configs {
    let provider: Arc<CryptoProvider> = rustls::crypto::aws_lc_rs::default_provider().into();
    let made = rcgen::generate_simple_self_signed(vec!["gateway.test".into()]).unwrap();
    let chain = vec![made.cert.der().clone()];
    let key = || PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
    let mut roots = RootCertStore::empty();
    roots.add(chain[0].clone()).unwrap();
    let roots = Arc::new(roots);
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[version])
        .unwrap();
    let server = if with_client {
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
        server.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        server.with_no_client_auth()
    };
    let server = server.with_single_cert(chain.clone(), key()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let client = if with_client {
        client.with_client_auth_cert(chain, key()).unwrap()
    } else {
        client.with_no_client_auth()
    };
    Configs { server: server.into(), client: client.into() }
}

fn tls13() -> Configs {
    static MADE: OnceLock<Configs> = OnceLock::new();
    MADE.get_or_init(|| configs(&version::TLS13, false)).clone()
}

pub(super) fn ends(configs: &Configs) -> (Tls, Tls) {
    let name = ServerName::try_from("gateway.test").unwrap();
    let client = Tls::connect(configs.client.clone(), name, &[]).unwrap();
    (client, Tls::accept(configs.server.clone()).unwrap())
}

impl Tested for Tls {
    const CUT: End = End::Truncated;
    const BELOW: usize = MAX_RECORD;
    const SEALED: bool = true;

    fn pair() -> (Tls, Tls) {
        ends(&tls13())
    }
}

fn halves(configs: &Configs) -> (Half<Tls>, Half<Tls>) {
    let (client, server) = ends(configs);
    (Socket::new(Scripted::new(), client, ()), Socket::new(Scripted::new(), server, ()))
}

/// Carries what `from` has sent to `to`, in pieces of random length. Returns what `to` heard.
fn carry(from: &mut Half<Tls>, to: &mut Half<Tls>, random: &mut Random) -> Vec<u8> {
    let mut heard = Vec::new();
    let wire = from.stream().take_written();
    let mut rest = &wire[..];
    while !rest.is_empty() {
        let most = if random.below(2) == 0 { 4 } else { 9_000 };
        let (piece, behind) = rest.split_at(rest.len().min(1 + random.below(most) as usize));
        rest = behind;
        to.stream().give(Given::Bytes(piece.to_vec()));
        let size = [1, 5, 4_096, 40_000][random.below(4) as usize];
        heard.extend(read_all(to, size));
        if to.has_answer() {
            to.flush();
        }
    }
    heard
}

#[test]
fn what_is_said_before_during_and_after_the_handshake_is_heard_in_order() {
    for version in [&version::TLS12, &version::TLS13] {
        let configs = configs(version, version == &version::TLS12);
        for seed in 0..40 {
            let mut random = Random::new(seed);
            let (mut client, mut server) = halves(&configs);
            let [mut said, mut heard] = [[Vec::new(), Vec::new()], [Vec::new(), Vec::new()]];
            for round in 0..12 {
                let ends = [&mut client, &mut server];
                for (index, end) in ends.into_iter().enumerate() {
                    // A server may have nothing to say until it has heard somebody.
                    if round < 8 && random.below(3) > 0 && (index == 0 || round > 3) {
                        let news = message(1 + random.below(40_000) as usize);
                        said[index].extend_from_slice(&news);
                        let taken = end.write(&news).taken;
                        if taken < news.len() {
                            end.queue(&news, &[(news.len(), Lane::Data)], taken, 1 << 20).unwrap();
                        }
                    }
                    end.flush();
                }
                heard[0].extend(carry(&mut client, &mut server, &mut random));
                heard[1].extend(carry(&mut server, &mut client, &mut random));
            }
            assert!(client.is_flushed() && server.is_flushed(), "seed {seed}");
            assert!(heard == said, "seed {seed} of {version:?}");
            let shown = server.transport().peer_certificate().is_some();
            assert_eq!(shown, version == &version::TLS12);
        }
    }
}

#[test]
fn a_handshake_cut_at_every_byte_is_completed_or_truncated() {
    cut_handshakes(&tls13());
    cut_handshakes(&configs(&version::TLS12, true));
}

fn cut_handshakes(configs: &Configs) {
    let mut cut = 0;
    loop {
        let (mut client, mut server) = halves(configs);
        client.flush();
        let mut left = cut;
        let mut is_cut = false;
        for _ in 0..4 {
            for (from, to) in [(0, 1), (1, 0)] {
                let [a, b] = [&mut client, &mut server];
                let (from, to) = if from < to { (a, b) } else { (b, a) };
                let wire = from.stream().take_written();
                let carried = wire.len().min(left);
                left -= carried;
                is_cut |= carried < wire.len();
                if carried > 0 {
                    to.stream().give(Given::Bytes(wire[..carried].to_vec()));
                    assert!(read_all(to, 64).is_empty());
                    to.flush();
                }
                if is_cut {
                    to.stream().give(Given::End);
                    let end = ReadOutcome::Ended(End::Truncated);
                    assert_eq!(to.read(&mut [0; 64]), end, "cut at {cut}");
                    assert_eq!(to.read(&mut [0; 64]), ReadOutcome::Empty);
                    break;
                }
            }
            if is_cut {
                break;
            }
        }
        if !is_cut {
            assert!(cut > 500 && client.transport().is_open() && server.transport().is_open());
            return;
        }
        cut += 1;
    }
}

#[test]
fn whoever_speaks_no_tls_is_illegal_at_once_and_gets_an_alert() {
    for hello in [&b"\x01\x0bhello"[..], b"GET / HTTP/1.1\r\n\r\n", b"ping\n"] {
        let (_, mut server) = halves(&tls13());
        server.stream().give(Given::Bytes(hello.to_vec()));
        assert_eq!(server.read(&mut [0; 64]), ReadOutcome::Illegal(Malformed::NoTls), "{hello:?}");
        assert!(server.has_answer());
        server.flush();
        assert_eq!(server.stream().take_written().first(), Some(&0x15), "an alert");
        assert_eq!(server.read(&mut [0; 64]), ReadOutcome::Empty, "told once");
        server.stream().give(Given::Bytes(b"more".to_vec()));
        assert_eq!(server.read(&mut [0; 64]), ReadOutcome::Heard { more: false });
    }
}

#[test]
fn plaintext_before_a_broken_record_is_heard_first() {
    let (mut client, mut server) = shaken();
    client.write(b"legal");
    let mut wire = client.stream().take_written();
    client.write(b"illegal");
    wire.extend(client.stream().take_written());
    let last = wire.len() - 1;
    wire[last] ^= 1;
    server.stream().give(Given::Bytes(wire));
    let mut buffer = [0; 256];
    assert_eq!(server.read(&mut buffer), ReadOutcome::Bytes { count: 5, more: true });
    assert_eq!(&buffer[..5], b"legal");
    assert_eq!(server.read(&mut buffer), ReadOutcome::Illegal(Malformed::Record));
}

#[test]
fn frames_that_wait_for_a_handshake_go_with_the_link() {
    let (mut client, _) = halves(&tls13());
    client.queue(b"hello", &[(5, Lane::Control)], 0, 100).unwrap();
    client.flush();
    assert!(client.outbox().is_some(), "the handshake has not taken it");
    assert!(!client.is_flushed() && !client.awaits_room(), "it waits for the peer");
    client.finish();
    assert!(client.outbox().is_none());
    client.flush();
    assert!(client.is_flushed());
}

/// Returns two ends after their handshake.
fn shaken() -> (Half<Tls>, Half<Tls>) {
    let (mut client, mut server) = halves(&tls13());
    let mut random = Random::new(1);
    for _ in 0..3 {
        client.flush();
        carry(&mut client, &mut server, &mut random);
        carry(&mut server, &mut client, &mut random);
    }
    assert!(client.transport().is_open() && server.transport().is_open());
    (client, server)
}

#[test]
fn the_close_of_the_transport_is_an_end_and_its_lack_is_told() {
    for finished in [false, true] {
        let (mut client, mut server) = shaken();
        client.write(b"bye");
        if finished {
            client.finish();
            client.flush();
        }
        server.stream().give(Given::Bytes(client.stream().take_written()));
        server.stream().give(Given::End);
        let mut buffer = [0; 64];
        let outcome = server.read(&mut buffer);
        assert_eq!(outcome, ReadOutcome::Bytes { count: 3, more: finished });
        let end = if finished { End::Closed } else { End::Truncated };
        assert_eq!(server.read(&mut buffer), ReadOutcome::Ended(end));
        assert_eq!(server.read(&mut buffer), ReadOutcome::Empty);
        assert!(server.has_ended());
    }
}
