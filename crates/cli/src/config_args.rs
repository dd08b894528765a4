//! The flags and environment variables that override the configuration file, and the choice of that
//! file.

use std::env;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use systole_core::text::Escaped;
use systole_gateway::Config;
use systole_gateway::config::{
    ConfigError, ConfigFile, FORMATS, Format, LEVELS, Level, ListenAt, Overrides, Shards, Token,
    listen_address,
};

/// The configuration file that is read without `--config`, if it exists.
const DEFAULT_FILE: &str = "systole.toml";

/// The environment variable for the admin token. There is no flag, because the process list would
/// show the token to every user of the machine.
pub(crate) const TOKEN_VARIABLE: &str = "SYSTOLE_ADMIN_TOKEN";

#[derive(Args, Debug)]
pub(crate) struct ConfigArgs {
    /// The configuration file [default: systole.toml if it exists]
    #[arg(long, value_name = "FILE", env = "SYSTOLE_CONFIG")]
    config: Option<PathBuf>,

    /// Listen only here: ADDRESS (native) or CODEC=ADDRESS; may be repeated [default:
    /// native=127.0.0.1:7400,message1028=127.0.0.1:7410,line=127.0.0.1:7420]
    #[arg(long, value_name = "[CODEC=]ADDRESS", env = "SYSTOLE_LISTEN", value_delimiter = ',')]
    listen: Vec<ListenAt>,

    /// Let anybody in at addresses of --listen that others can reach, with any identity
    #[arg(long, env = "SYSTOLE_ANONYMOUS")]
    anonymous: bool,

    /// Address of the admin interface [default: 127.0.0.1:7480]
    #[arg(long, value_name = "ADDRESS", env = "SYSTOLE_ADMIN", value_parser = address)]
    admin: Option<SocketAddr>,

    /// File whose first line is the admin token (or set SYSTOLE_ADMIN_TOKEN to the token itself)
    /// [default: no token]
    #[arg(long, value_name = "FILE", env = "SYSTOLE_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,

    /// Data-plane threads: a number, or auto for one per core [default: auto]
    #[arg(long, value_name = "N", env = "SYSTOLE_SHARDS", value_parser = shards)]
    shards: Option<Shards>,

    /// Disconnect dead peers (true) or only report them (false) [default: true]
    #[arg(long, value_name = "BOOL", env = "SYSTOLE_ENFORCE")]
    enforce: Option<bool>,

    /// The lowest level that is logged [default: info]
    #[arg(long, value_name = "LEVEL", env = "SYSTOLE_LOG", value_parser = level_parser())]
    log: Option<Level>,

    /// Format of the log lines [default: auto]
    #[arg(long, value_name = "FORMAT", env = "SYSTOLE_LOG_FORMAT", value_parser = format_parser())]
    log_format: Option<Format>,

    /// Log each heartbeat (true) or not (false) [default: false]
    #[arg(long, value_name = "BOOL", env = "SYSTOLE_LOG_HEARTBEATS")]
    log_heartbeats: Option<bool>,
}

/// A configuration, its file, and the overrides.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    pub(crate) file: Option<ConfigFile>,
    pub(crate) overrides: Overrides,
}

impl ConfigArgs {
    /// Loads the configuration from file, environment and flags.
    ///
    /// The error is the complete message for the user.
    pub(crate) fn load(&self) -> Result<Loaded, String> {
        let overrides = self.overrides()?;
        let file = self.file();
        let loaded = match &file {
            Some(path) => {
                ConfigFile::load(path, &overrides).map(|(config, file)| (config, Some(file)))
            }
            None => Config::load("", "", &overrides).map(|config| (config, None)),
        };
        let (config, file) = loaded.map_err(|error| explain(file.as_deref(), &error))?;
        Ok(Loaded { config, file, overrides })
    }

    fn file(&self) -> Option<PathBuf> {
        let default = Path::new(DEFAULT_FILE);
        self.config.clone().or_else(|| default.exists().then(|| default.to_owned()))
    }

    fn overrides(&self) -> Result<Overrides, String> {
        let admin_token = match env::var(TOKEN_VARIABLE) {
            Err(env::VarError::NotPresent) => None,
            Err(env::VarError::NotUnicode(_)) => {
                return Err(format!("{TOKEN_VARIABLE} must be ASCII"));
            }
            Ok(text) => {
                let refused = |expected| format!("{TOKEN_VARIABLE} must be {expected}");
                Some(Token::new(&text).map_err(refused)?)
            }
        };
        Ok(Overrides {
            listen: self.listen.clone(),
            anonymous: self.anonymous,
            admin: self.admin,
            admin_token,
            admin_token_file: self.admin_token_file.clone(),
            shards: self.shards,
            enforce: self.enforce,
            log_level: self.log,
            log_format: self.log_format,
            log_heartbeats: self.log_heartbeats,
        })
    }
}

impl Loaded {
    /// Name of the configuration in output: the file, or `defaults`.
    pub(crate) fn name(&self) -> String {
        let file = self.file.as_ref();
        file.map_or_else(|| "defaults".to_owned(), |file| show(file.path()))
    }
}

fn explain(file: Option<&Path>, error: &ConfigError) -> String {
    let count = match error.count() {
        1 => "1 problem".to_owned(),
        count => format!("{count} problems"),
    };
    // Without a file, only an override can be wrong.
    let place = file.map_or_else(|| "command line and environment".to_owned(), show);
    format!("{place}: {count}\n\n{error}")
}

/// Shows a path in one line: its name may hold line feeds.
pub(crate) fn show(path: &Path) -> String {
    Escaped::line(&path.to_string_lossy()).to_string()
}

fn address(text: &str) -> Result<SocketAddr, String> {
    listen_address(text).map_err(|right| format!("must be {right}"))
}

fn shards(text: &str) -> Result<Shards, String> {
    text.parse().map_err(|right| format!("must be {right}"))
}

fn level_parser() -> impl TypedValueParser<Value = Level> {
    PossibleValuesParser::new(LEVELS.map(|(name, _)| name)).try_map(|name| name.parse::<Level>())
}

fn format_parser() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(FORMATS.map(|(name, _)| name)).try_map(|name| name.parse::<Format>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_file_begins_no_line() {
        assert_eq!(show(Path::new("a\nerror: forged\r")), "a\\nerror: forged\\r");
    }

    #[test]
    fn the_error_of_a_file_has_no_lines_of_its_name() {
        let path = Path::new("missing\nerror: forged");
        let error = ConfigFile::load(path, &Overrides::default()).unwrap_err();
        let shown = explain(Some(path), &error);
        assert!(shown.contains("missing\\nerror: forged cannot be read"), "{shown}");
        assert!(!shown.contains("\nerror"), "{shown}");
    }
}
