//! Reads `docs/protocol.md`: its blocks of bytes and its table of bounds.

use std::path::PathBuf;

/// A fenced block whose bytes mean something.
pub(crate) struct Block {
    /// Whether its mark says that it is illegal.
    pub(crate) illegal: bool,
    /// What stands after the mark.
    pub(crate) title: String,
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The text of the document.
pub(crate) fn text() -> String {
    std::fs::read_to_string(root().join("docs/protocol.md")).expect("docs/protocol.md is there")
}

/// All blocks marked `hex` or `illegal`, in their order.
pub(crate) fn blocks() -> Vec<Block> {
    marked("hex", "illegal")
}

/// All blocks with one of these marks, in their order.
pub(crate) fn marked(legal: &str, illegal: &str) -> Vec<Block> {
    let text = text();
    let mut lines = text.lines();
    let mut blocks = Vec::new();
    while let Some(line) = lines.next() {
        let Some(mark) = line.strip_prefix("```") else { continue };
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let (word, title) = mark.split_once(' ').unwrap_or((mark, ""));
        if word == legal || word == illegal {
            let bytes = body.iter().flat_map(|line| bytes_of(line)).collect();
            blocks.push(Block { illegal: word == illegal, title: title.to_owned(), bytes });
        }
    }
    blocks
}

fn bytes_of(line: &str) -> Vec<u8> {
    let (bytes, _comment) = line.split_once('#').unwrap_or((line, ""));
    let byte = |text| u8::from_str_radix(text, 16).expect("two hexadecimal digits");
    bytes.split_whitespace().map(byte).collect()
}

/// The rows of the table whose header starts with `header`, as their first two cells.
pub(crate) fn table(header: &str) -> Vec<(String, String)> {
    let text = text();
    let rows = text.lines().skip_while(|line| !line.starts_with(header)).skip(2);
    rows.take_while(|line| line.starts_with('|'))
        .map(|row| {
            let mut cells = row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
            (cells.next().unwrap_or_default(), cells.next().unwrap_or_default())
        })
        .collect()
}
