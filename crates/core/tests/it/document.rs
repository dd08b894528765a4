//! A parser of `docs/protocol.md`: its byte blocks and its tables.

use std::path::PathBuf;

/// A fenced block of example bytes.
pub(crate) struct Block {
    /// Whether the block is marked as illegal.
    pub(crate) illegal: bool,
    /// The text after the mark.
    pub(crate) title: String,
    /// The bytes of the block.
    pub(crate) bytes: Vec<u8>,
}

/// Returns the root of the repository.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Returns the text of the document.
pub(crate) fn text() -> String {
    std::fs::read_to_string(root().join("docs/protocol.md")).expect("docs/protocol.md is there")
}

/// Returns all blocks marked `hex` or `illegal`, in order.
pub(crate) fn blocks() -> Vec<Block> {
    blocks_marked("hex", "illegal")
}

/// Returns all blocks with one of these two marks, in order.
pub(crate) fn blocks_marked(legal: &str, illegal: &str) -> Vec<Block> {
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

/// Returns the first two cells of each row of the table whose header starts with `header`.
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
