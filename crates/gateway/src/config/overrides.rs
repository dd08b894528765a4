//! What the command line and the environment say over the file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use systole_core::wire::Codec;

use super::listener::CODECS;
use super::settings::{Format, Level, Shards};
use super::token::Token;
use super::value;

/// Settings that win over those of the file; `None` and empty leave the file's.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Overrides {
    /// If not empty, exactly these listeners, with the gateway's policy and defaults otherwise; the
    /// file's are dropped.
    pub listen: Vec<ListenAt>,
    /// Where the admin interface listens.
    pub admin: Option<SocketAddr>,
    /// The admin token; wins over `admin_token_file`.
    pub admin_token: Option<Token>,
    /// A file whose first line is the admin token, relative to the working directory.
    pub admin_token_file: Option<PathBuf>,
    /// The number of shards.
    pub shards: Option<Shards>,
    /// Whether verdicts end links.
    pub enforce: Option<bool>,
    /// The least important level that is logged.
    pub log_level: Option<Level>,
    /// How a line of the log looks.
    pub log_format: Option<Format>,
    /// Whether each heartbeat is logged.
    pub log_heartbeats: Option<bool>,
}

/// A listener as it is written on the command line: `ADDRESS` or `CODEC=ADDRESS`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListenAt {
    /// What clients speak there; native if not said.
    pub codec: Codec,
    /// Where.
    pub address: SocketAddr,
}

impl FromStr for ListenAt {
    type Err = String;
    fn from_str(text: &str) -> Result<ListenAt, String> {
        let (codec, address) = match text.split_once('=') {
            Some((codec, address)) => {
                let codec = value::choose(codec, &CODECS)
                    .map_err(|right| format!("the codec must be {right}"))?;
                (codec, address)
            }
            None => (Codec::Native, text),
        };
        let right = "must be ADDRESS or CODEC=ADDRESS, as in line=127.0.0.1:7420";
        let address = address.parse().map_err(|_| right.to_owned())?;
        Ok(ListenAt { codec, address })
    }
}
