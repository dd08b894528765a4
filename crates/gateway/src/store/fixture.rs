//! Stores for tests.

use std::path::Path;
use std::sync::Arc;

use super::{Database, Opening, Place, Store, StoreSettings, Subscription};
use crate::epochs::Epochs;
use crate::wake::LoopWaker;

/// More rows than a test needs that is not about full tables.
const ROWS: u64 = 1_000_000;

/// Settings of a durable store that has room.
pub(crate) fn settings(directory: &Path) -> StoreSettings {
    StoreSettings {
        directory: directory.to_owned(),
        sync: None,
        max_rows: ROWS,
        max_rows_per_identity: ROWS,
        max_rows_per_address: ROWS,
        drops_oldest: false,
        is_required: true,
    }
}

/// What a store in memory is opened with that tells one receiver about one kind of event, at the
/// listener "native".
fn opening(receiver: &str, event: &'static str) -> Opening {
    let told = [Subscription { name: receiver.into(), events: vec![event] }];
    let (subscriptions, listeners) = (told.into(), ["native".into()].into());
    Opening { subscriptions, listeners, now_ms: 1, remembered: 1, trusted: [].into() }
}

/// Starts a store in memory that tells `receiver` about one kind of event. `wakers` are those of
/// the shards.
pub(crate) fn in_memory(receiver: &str, event: &'static str, wakers: Vec<LoopWaker>) -> Store {
    let settings = settings(Path::new("unused"));
    let database = Database::open(&settings, opening(receiver, event), Place::Memory).unwrap();
    Store::start(database, &settings, wakers, Arc::new(Epochs::above(1))).unwrap()
}
