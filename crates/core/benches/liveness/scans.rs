//! Searches of a table whose slots are mostly empty.

use std::hint::black_box;
use std::time::Duration;

use systole_core::pages::{PAGE, Slots};

use super::{Figures, timed};

/// The slots that one step of a search visits, and the size of a slot, as in the hub.
const SLOTS_PER_STEP: usize = 4_096;
const SLOT: usize = 432;

/// Measures the longest step of a search, and a search of the whole table in one step, in µs. The
/// table is full of links and then empty but for one link in each page.
pub(crate) fn scan_cell(links: u32) -> Figures {
    let mut table = Slots::new();
    for index in 0..links {
        table.insert(index, [u64::from(index); SLOT / 8]);
    }
    for index in (0..links).filter(|index| !(*index as usize).is_multiple_of(PAGE)) {
        table.remove(index);
    }
    let (mut longest, mut from) = (Duration::ZERO, Some(0));
    while let Some(start) = from {
        let mut scan = table.scan(start, SLOTS_PER_STEP);
        longest = longest.max(timed(|| {
            black_box(scan.by_ref().count());
        }));
        from = scan.cursor();
    }
    let all = timed(|| {
        black_box(table.scan(0, usize::MAX).count());
    });
    [longest.as_nanos() as f64 / 1e3, all.as_nanos() as f64 / 1e3, 0.0, 0.0, 0.0]
}
