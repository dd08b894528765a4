//! `systole serve`: runs a gateway until a signal stops it.

use std::io;

use systole_gateway::{ServeOptions, inherited_sockets, serve};

use crate::cli::ServeArgs;
use crate::exit::Exit;
use crate::output::Output;

pub(crate) fn run(args: &ServeArgs, output: &mut Output) -> io::Result<Exit> {
    let loaded = match args.config.load() {
        Ok(loaded) => loaded,
        Err(text) => {
            output.error(&text);
            return Ok(Exit::Usage);
        }
    };
    let inherited = match inherited_sockets() {
        Ok(sockets) => sockets,
        Err(error) => {
            output.error(&error.to_string());
            return Ok(Exit::Failure);
        }
    };
    let options = ServeOptions {
        ready_file: args.ready_file.clone(),
        config_file: loaded.file,
        overrides: loaded.overrides,
        inherited,
    };
    match serve(loaded.config, options) {
        Ok(()) => Ok(Exit::Success),
        Err(error) => {
            // A plain line in the midst of the log would be no JSON.
            if !error.is_logged() {
                output.error(&error.to_string());
            }
            Ok(Exit::Failure)
        }
    }
}
