//! Looks at the other sessions of a host that has lost one: are they heard, and are they reached?

use std::time::Duration;

use systole_core::Span;
use tokio::time::sleep;

use super::{Gateway, ask};
use crate::correlation::{Question, Siblings};
use crate::request::{Request, Sibling};

/// The wait before a second look at a sibling to which bytes were on their way at the first: longer
/// than a delayed acknowledgement and most round trips.
const SECOND_LOOK: Duration = Duration::from_millis(300);

impl Gateway {
    /// Looks at the siblings that `questions` ask for; twice, and only once more after a wait, at
    /// those to which bytes are on their way.
    pub(super) async fn look_at_siblings(&self, questions: &[Question]) -> Vec<Siblings> {
        let mut looks = Vec::with_capacity(questions.len());
        let mut is_any_on_its_way = false;
        for question in questions {
            let at = self.correlation.now();
            let mut siblings = Vec::new();
            for session in question.siblings.into_iter().filter(|session| *session != 0) {
                if let Some(sibling) = self.sibling(session).await {
                    is_any_on_its_way |= is_on_its_way(&sibling);
                    siblings.push((session, sibling));
                }
            }
            looks.push((question.session, at, siblings));
        }
        if is_any_on_its_way {
            sleep(SECOND_LOOK).await;
        }
        let mut seen = Vec::with_capacity(looks.len());
        for (session, at, siblings) in looks {
            let mut all =
                Siblings { session, at, heard_ago: None, reached_ago: None, suspect: false };
            for (session, sibling) in siblings {
                let reached_ago = self.reached_ago(session, &sibling).await;
                all.heard_ago = least(all.heard_ago, Some(sibling.heard_ago));
                all.reached_ago = least(all.reached_ago, reached_ago);
                all.suspect |= sibling.suspect;
            }
            seen.push(all);
        }
        seen
    }

    /// Returns how long before the first look our latest bytes left that reached the sibling;
    /// `None` if that is not known.
    async fn reached_ago(&self, session: u64, first: &Sibling) -> Option<Span> {
        let tcp = first.tcp?;
        let later = if is_on_its_way(first) { self.sibling(session).await?.tcp? } else { tcp };
        tcp.is_delivered_by(&later).then_some(tcp.last_sent)
    }

    async fn sibling(&self, session: u64) -> Option<Sibling> {
        let shard = self.shard_of(session)?;
        ask(shard, |reply| Request::Sibling { session, reply }).await.ok()?
    }
}

/// Returns whether bytes are on their way to the peer, so that a later look may show them arrived.
fn is_on_its_way(sibling: &Sibling) -> bool {
    !sibling.suspect && sibling.tcp.is_some_and(|tcp| tcp.unacked > 0 && tcp.retransmits == 0)
}

fn least(one: Option<Span>, other: Option<Span>) -> Option<Span> {
    one.into_iter().chain(other).min()
}
