//! Connects to a gateway, sends a message, and prints all events until the client ends.
//!
//! `cargo run --example hello -- 127.0.0.1:7400`

use systole_client::{Client, Event, Options};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7400".to_owned());
    let client = Client::connect(addr, Options::default()).await?;
    client.send(b"hello").await?;
    while let Some(event) = client.next_event().await {
        if let Event::Message(bytes) = event {
            println!("message: {}", String::from_utf8_lossy(&bytes));
        } else {
            println!("{event:?}");
        }
    }
    Ok(())
}
