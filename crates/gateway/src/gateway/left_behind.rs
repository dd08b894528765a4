//! What a killed gateway left behind, as the run after it shows it.

use systole_core::cause::Cause;

use super::Gateway;
use crate::store::LeftBehind;

impl Gateway {
    /// Makes the sessions known that a killed gateway left behind: their verdicts are kept and
    /// their leaves published. Called before the first fact of this run. Those who are told have
    /// their leaves from the store, and the log has one line for all.
    pub(crate) fn note_left_behind(&self, left: &LeftBehind) {
        for lost in &left.latest {
            let fact = lost.fact(left.at_ms, self.events.names().listener(&lost.listener));
            self.keep_verdict(&fact);
            self.events.publish(fact);
        }
        self.events.mark_left_behind(left.count);
        if let Some(shard) = self.stats.first() {
            shard.verdicts[Cause::GatewayLost.index()].add(left.count);
        }
    }
}
