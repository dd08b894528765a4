//! The ready file: how whoever started the gateway learns that it is ready, and where.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What the ready file says, as one JSON object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// The process.
    pub pid: u32,
    /// Where the admin interface listens.
    pub admin: SocketAddr,
    /// Where clients connect, with the ports that the system chose.
    pub listeners: Vec<ReadyListener>,
}

/// One listener in the ready file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReadyListener {
    /// Its name in the configuration.
    pub name: String,
    /// What clients speak there, by its name in the configuration.
    pub codec: String,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Ready {
    /// Writes the file so that a reader sees all of it or nothing: beside it first, as `FILE.tmp`,
    /// then renamed over it.
    ///
    /// # Errors
    /// Those of the file system; `FILE.tmp` may then be left over. The gateway is unharmed.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".tmp");
        let beside = PathBuf::from(beside);
        let mut file = File::create(&beside)?;
        serde_json::to_writer(&mut file, self)?;
        file.write_all(b"\n")?;
        drop(file);
        fs::rename(&beside, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_appears_whole_and_is_replaced() {
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
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "nothing is left beside it");
        fs::remove_dir_all(&directory).unwrap();
    }
}
