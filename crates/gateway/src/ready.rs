//! The ready file, which informs the starter of the gateway that it is ready, and of its addresses.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The content of the ready file, one JSON object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// The process id of the gateway.
    pub pid: u32,
    /// The address of the admin interface.
    pub admin: SocketAddr,
    /// The listeners for clients, with the ports that the system chose.
    pub listeners: Vec<ReadyListener>,
}

/// One listener in the ready file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReadyListener {
    /// The listener's name in the configuration.
    pub name: String,
    /// The name of the codec in the configuration.
    pub codec: String,
    /// The address that clients connect to.
    pub address: SocketAddr,
}

impl Ready {
    /// Writes the file at once, so that a reader sees all of it or nothing: writes `FILE.tmp`, then
    /// renames it to `FILE`.
    ///
    /// # Errors
    /// The file system's error; `FILE.tmp` may be left over. The gateway is unharmed.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let mut file = File::create(&temporary)?;
        serde_json::to_writer(&mut file, self)?;
        file.write_all(b"\n")?;
        drop(file);
        fs::rename(&temporary, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_written_whole_and_replaced() {
        let name = format!("systole-ready-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("ready.json");
        let listener = ReadyListener {
            name: "native".to_owned(),
            codec: "native".to_owned(),
            address: SocketAddr::from(([127, 0, 0, 1], 7400)),
        };
        let mut ready = Ready {
            pid: 7,
            admin: SocketAddr::from(([127, 0, 0, 1], 7480)),
            listeners: vec![listener],
        };
        ready.write(&path).unwrap();
        let expected = "{\"pid\":7,\"admin\":\"127.0.0.1:7480\",\"listeners\":[{\"name\":\
                        \"native\",\"codec\":\"native\",\"address\":\"127.0.0.1:7400\"}]}\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        ready.pid = 8;
        ready.write(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(serde_json::from_str::<Ready>(&text).unwrap(), ready);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "no temporary file is left");
        fs::remove_dir_all(&directory).unwrap();
    }
}
