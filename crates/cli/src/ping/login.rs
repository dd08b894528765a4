//! The options of `ping` for logging in.

use std::env::{self, VarError};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use systole_client::token::TokenSource;
use systole_client::{Codec, Options};
use systole_core::wire::{MAX_IDENTITY, MAX_TOKEN};

use crate::config_args::show;

/// The environment variable for the token. There is no flag, because the process list would show
/// the token to every user of the machine.
const VARIABLE: &str = "SYSTOLE_TOKEN";

/// Who `ping` says it is, and how it proves that.
#[derive(Debug, clap::Args)]
pub(super) struct LoginArgs {
    /// Identity to claim (native only) [default: none, or that of the token]
    #[arg(long, value_name = "NAME", value_parser = identity)]
    identity: Option<String>,

    /// File whose first line is the token that proves the identity, read again before each login
    /// (or set SYSTOLE_TOKEN to the token itself; native only) [default: no token]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl LoginArgs {
    /// Returns the file of the token.
    pub(super) fn token_file(&self) -> Option<&Path> {
        self.token_file.as_deref()
    }

    /// Returns whether a token is shown to the server.
    pub(super) fn shows_token(&self) -> bool {
        self.token_file.is_some() || env::var_os(VARIABLE).is_some()
    }

    /// Sets the identity and the token. The error never shows a token.
    pub(super) fn fill(&self, options: &mut Options) -> Result<(), String> {
        let has_codec = options.codec == Codec::Native;
        if !has_codec && (self.identity.is_some() || self.token_file.is_some()) {
            return Err("only the native codec carries an identity and a token".to_owned());
        }
        options.identity = self.identity.clone().unwrap_or_default();
        options.token = match (&self.token_file, env::var(VARIABLE)) {
            (Some(file), _) => {
                // Now too, so that a wrong file is wrong usage.
                read(file)?;
                let file = file.clone();
                options.token_source = Some(TokenSource::blocking(move |_| read(&file)));
                Vec::new()
            }
            (None, Ok(text)) if has_codec => {
                token(&text).map_err(|what| format!("{VARIABLE} {what}"))?
            }
            (None, Ok(_) | Err(VarError::NotPresent)) => Vec::new(),
            (None, Err(VarError::NotUnicode(_))) => {
                return Err(format!("{VARIABLE} must be ASCII"));
            }
        };
        Ok(())
    }
}

fn identity(text: &str) -> Result<String, String> {
    if systole_core::wire::is_identity(text) {
        return Ok(text.to_owned());
    }
    Err(format!("must be a text of 1 to {MAX_IDENTITY} bytes without control characters"))
}

/// Reads the token in a file.
fn read(file: &Path) -> Result<Vec<u8>, String> {
    let shown = show(file);
    let line = first_line(file).map_err(|error| format!("{shown}: {error}"))?;
    token(&line).map_err(|what| format!("{shown}: its first line {what}"))
}

/// Returns the first line of a file, as far as it may be a token.
fn first_line(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    let mut line = String::new();
    BufReader::new(file.take(2 * MAX_TOKEN as u64)).read_line(&mut line)?;
    Ok(line)
}

fn token(text: &str) -> Result<Vec<u8>, String> {
    let text = text.trim();
    if (1..=MAX_TOKEN).contains(&text.len()) {
        return Ok(text.into());
    }
    Err(format!("must be a token of 1 to {MAX_TOKEN} bytes"))
}
