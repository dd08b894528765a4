//! Settings of the command line and the environment, which override those of the file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use systole_core::wire::Codec;

use super::address::listen_address;
use super::listener::CODECS;
use super::settings::{Format, Level, Shards};
use super::token::Token;
use super::value;

/// Settings that override those of the file; `None` or an empty list overrides nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Overrides {
    /// Listeners that replace all listeners of the file. They use the gateway's policy and the
    /// defaults.
    pub listen: Vec<ListenAt>,
    /// Whether anybody may log in at listeners of `listen` that others can reach.
    pub anonymous: bool,
    /// Address of the admin interface.
    pub admin: Option<SocketAddr>,
    /// The admin token; overrides `admin_token_file`.
    pub admin_token: Option<Token>,
    /// A file whose first line is the admin token, relative to the working directory.
    pub admin_token_file: Option<PathBuf>,
    /// The number of shards.
    pub shards: Option<Shards>,
    /// Whether verdicts end links.
    pub enforce: Option<bool>,
    /// The least important level that is logged.
    pub log_level: Option<Level>,
    /// The format of a log line.
    pub log_format: Option<Format>,
    /// Whether each heartbeat is logged.
    pub log_heartbeats: Option<bool>,
}

/// A listener of the command line, written `ADDRESS` or `CODEC=ADDRESS`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListenAt {
    /// The codec that clients use; native by default.
    pub codec: Codec,
    /// The address to listen at.
    pub address: SocketAddr,
}

impl FromStr for ListenAt {
    type Err = String;
    fn from_str(text: &str) -> Result<ListenAt, String> {
        let (codec, address) = match text.split_once('=') {
            Some((codec, address)) => {
                let codec = value::choose(codec, &CODECS).map_err(|right| {
                    format!("the codec must be {right}; beacon needs keys, and so a file")
                })?;
                (codec, address)
            }
            None => (Codec::Native, text),
        };
        let address = listen_address(address).map_err(|right| {
            format!("must be ADDRESS or CODEC=ADDRESS, where ADDRESS is {right}")
        })?;
        Ok(ListenAt { codec, address })
    }
}
