//! A peer with many healthy links that answer pings and give no verdicts, however slow the gateway
//! is.

use serde_json::json;
use systole_net::Clock;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{Spec, print_event};
use crate::trouble::Trouble;

pub(super) fn run(spec: &Spec) -> Result<(), Trouble> {
    let doing = Trouble::while_doing("a peer with many links");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(&doing)?;
    runtime.block_on(async {
        let clock = Clock::start();
        for number in 0..spec.links {
            let mut stream = TcpStream::connect(spec.gateway).await.map_err(&doing)?;
            // The first line completes the handshake; the gateway echoes it.
            stream.write_all(b"here\n").await.map_err(&doing)?;
            let name = format!("{}-{number}", spec.identity);
            print_event(clock, "join", &name, json!({}));
            tokio::spawn(async move {
                answer(stream).await;
                print_event(clock, "leave", &name, json!({}));
            });
        }
        let mut end = Vec::new();
        tokio::io::stdin().read_to_end(&mut end).await.map(drop).map_err(&doing)
    })
}

/// Answers until the gateway ends the link.
async fn answer(stream: TcpStream) {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if line == "ping" && writer.write_all(b"pong\n").await.is_err() {
            return;
        }
    }
}
