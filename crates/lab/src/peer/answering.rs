//! A peer with many healthy links that answer pings and give no verdicts, however slow the gateway
//! is. On the order `message` each link sends data, which the gateway echoes.

use serde_json::json;
use systole_core::wire::{Beat, Codec, DataKind, Decoder, Frame, Hello};
use systole_net::{Clock, identity};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::{APART, Kind, MESSAGES, Spec, print_event};
use crate::trouble::Trouble;

pub(super) fn run(spec: &Spec) -> Result<(), Trouble> {
    let doing = Trouble::while_doing("a peer with many links");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(&doing)?;
    let codec = if spec.kind == Kind::Passive { Codec::Native } else { Codec::Line };
    runtime.block_on(async {
        let clock = Clock::start();
        let (sending, sends) = watch::channel(());
        for number in 0..spec.links {
            let name = format!("{}-{number}", spec.identity);
            let mut stream = TcpStream::connect(spec.gateway).await.map_err(&doing)?;
            stream.set_nodelay(true).map_err(&doing)?;
            stream.write_all(&introduction(codec, &name).map_err(&doing)?).await.map_err(&doing)?;
            print_event(clock, "join", &name, json!({}));
            let sends = sends.clone();
            tokio::spawn(async move {
                answer(stream, codec, sends).await;
                print_event(clock, "leave", &name, json!({}));
            });
        }
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            match line.as_str() {
                "message" => sending.send_replace(()),
                other => return Err(Trouble::new(format!("no such order: {other}"))),
            }
        }
        Ok(())
    })
}

/// Returns the bytes that complete the handshake. The gateway echoes the line.
fn introduction(codec: Codec, name: &str) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if codec.has_handshake() {
        let hello = Hello {
            boot_id: identity::boot_id(),
            instance_id: identity::instance_id()?,
            identity: name,
            ..Hello::default()
        };
        codec.encode(&Frame::Hello(hello), &mut bytes);
    } else {
        codec.encode(&data(b"here"), &mut bytes);
    }
    Ok(bytes)
}

fn data(bytes: &[u8]) -> Frame<'_> {
    Frame::data(bytes, false, DataKind::default())
}

/// Answers until the gateway ends the link.
async fn answer(mut stream: TcpStream, codec: Codec, mut sends: watch::Receiver<()>) {
    let mut decoder = Decoder::new(codec, u32::MAX);
    let mut buffer = [0; 4_096];
    loop {
        let mut answers = Vec::new();
        tokio::select! {
            length = stream.read(&mut buffer) => {
                let mut input = match length {
                    Ok(length) if length > 0 => buffer.get(..length).unwrap_or_default(),
                    Ok(_) | Err(_) => return,
                };
                while let Ok(Some(frame)) = decoder.next(&mut input) {
                    if let Frame::Ping(Beat { sequence, .. }) = frame {
                        codec.encode(&Frame::Pong(Beat::bare(sequence)), &mut answers);
                    }
                }
            }
            Ok(()) = sends.changed() => {
                for message in MESSAGES {
                    let mut bytes = Vec::new();
                    codec.encode(&data(message), &mut bytes);
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(APART.into()).await;
                }
            }
        }
        if stream.write_all(&answers).await.is_err() {
            return;
        }
    }
}
